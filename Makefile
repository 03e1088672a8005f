.PHONY: run test test-fast test-browsers lint types format bench check

run:
	bin/run

test:
	bin/test

test-fast:
	bin/test --fast

test-browsers:
	bin/test-browsers

lint:
	.venv/bin/ruff check
	.venv/bin/djlint templates --lint --quiet

types:
	.venv/bin/mypy

format:
	.venv/bin/ruff format
	.venv/bin/ruff check --fix

bench:
	bin/test tests/test_benchmarks.py -s

check:
	bin/check
