"""How much a benchmark does: in full, or so little that a test can see whether it runs at all."""

import os

TINY = os.environ.get("BENCH_TINY") == "1"


def sized(full: int, tiny: int) -> int:
    """The full number, or the tiny one where a test only starts the benchmark."""
    return tiny if TINY else full
