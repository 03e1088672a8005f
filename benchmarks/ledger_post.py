"""Posting: beside the least any ledger in this database could do, a ledger of pgledger's shape, and the usual ORM way.

    BENCH_DATABASE_URL=postgresql+psycopg://… python benchmarks/ledger_post.py

The limit writes the same rows in one statement and keeps nothing safe: no key, no check, no chain, no second index. Ours keeps all of it.
"""

import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from _books import ACCOUNTS, Verdict, best, connected, house, open_accounts, per_second, rate, server_cpu
from _size import sized
from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, Text, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from app import clock, db, ledger

ROUNDS, SECONDS = sized(3, 1), 1
PYTHON_POSTINGS, CPU_POSTINGS = sized(300, 100), sized(1_000, 20)

LIMIT = """
create schema least;
create table least.accounts (id bigint primary key, balance bigint not null default 0, entry_count bigint not null default 0) with (fillfactor = 50);
create table least.transfers (id bigint generated always as identity primary key, reference text, posted_at timestamptz not null default now());
create table least.entries (account_id bigint, seq bigint, transfer_id bigint, amount bigint, balance_after bigint, primary key (account_id, seq));
insert into least.accounts select n from generate_series(1, 2000) n
"""

# A ledger of pgledger's shape, written anew: ids are ULIDs spelled out in SQL, amounts NUMERIC, foreign keys, both balances on each entry; one
# function takes an array of requests, locks the accounts in order, writes, and answers from the table.
PEER = """
create schema peer;
create function peer.make_id(prefix text) returns text language plpgsql volatile as $$
declare
  letters constant text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
  stamp bigint := (extract(epoch from clock_timestamp()) * 1000)::bigint;
  noise bytea := uuid_send(gen_random_uuid());
  id text := '';
begin
  for place in reverse 9 .. 0 loop
    id := id || substr(letters, ((stamp >> (place * 5)) & 31)::integer + 1, 1);
  end loop;
  for place in 0 .. 15 loop
    id := id || substr(letters, (get_byte(noise, place) & 31) + 1, 1);
  end loop;
  return prefix || '_' || id;
end $$;
create table peer.accounts (
  id text primary key default peer.make_id('acc'), name text not null, currency text not null, balance numeric not null default 0, version bigint not null default 0,
  allow_negative boolean not null default true, allow_positive boolean not null default true, metadata jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now()
);
create table peer.transfers (
  id text primary key default peer.make_id('tr'), from_account text not null references peer.accounts, to_account text not null references peer.accounts,
  amount numeric not null check (amount > 0), metadata jsonb, event_at timestamptz not null, created_at timestamptz not null default now()
);
create index on peer.transfers (from_account);
create index on peer.transfers (to_account);
create table peer.entries (
  id text primary key default peer.make_id('en'), account_id text not null references peer.accounts, transfer_id text not null references peer.transfers,
  amount numeric not null, balance_before numeric not null, balance_after numeric not null, account_version bigint not null, created_at timestamptz not null default now()
);
create index on peer.entries (account_id);
create index on peer.entries (transfer_id);
create type peer.request as (giver text, taker text, amount numeric);
create function peer.move(account text, by numeric, transfer text) returns void language plpgsql as $$
declare
  now_there peer.accounts;
begin
  update peer.accounts a set balance = a.balance + by, version = a.version + 1, updated_at = now() where a.id = account returning * into now_there;
  if now_there.balance < 0 and not now_there.allow_negative or now_there.balance > 0 and not now_there.allow_positive then
    raise exception 'refused';
  end if;
  insert into peer.entries (account_id, transfer_id, amount, balance_before, balance_after, account_version)
    values (account, transfer, by, now_there.balance - by, now_there.balance, now_there.version);
end $$;
create function peer.transfer(requests peer.request[]) returns setof peer.transfers language plpgsql as $$
declare
  wanted peer.request;
  made text;
  all_made text[] := '{}';
begin
  perform from peer.accounts a where a.id in (select giver from unnest(requests) union select taker from unnest(requests)) order by a.id for update;
  foreach wanted in array requests loop
    if (select count(distinct currency) from peer.accounts where id in (wanted.giver, wanted.taker)) <> 1 then
      raise exception 'two currencies';
    end if;
    insert into peer.transfers (from_account, to_account, amount, event_at) values (wanted.giver, wanted.taker, wanted.amount, now()) returning id into made;
    perform peer.move(wanted.giver, -wanted.amount, made);
    perform peer.move(wanted.taker, wanted.amount, made);
    all_made := all_made || made;
  end loop;
  return query select * from peer.transfers where id = any (all_made);
end $$;
insert into peer.accounts (id, name, currency) select 'acc_' || lpad(n::text, 26, '0'), 'account ' || n, 'EUR' from generate_series(1, 2001) n
"""

_RANDOM = "\\set a random(1, 1000)\n\\set b random(1001, 2000)\n\\set r random(1, 9000000000000000000)\n"
_POSTING = """with posted as (
  insert into transfers (reference, kind, description, actor, posted_at, payment_id, bill_id, service_id, refund_id, reverses)
  values ('bench:' || (:r)::bigint, 'charge', 'vps-7 renewed', 'system', '2026-01-01'::timestamptz, null, null, null, null, null)
  on conflict (reference) do nothing returning id
)
insert into entries (account_id, transfer_id, amount)
select line.account_id, posted.id, line.amount from posted, unnest(array[{accounts}]::bigint[], array[-5, 5]::bigint[]) as line (account_id, amount) order by line.account_id
returning transfer_id, account_id, amount, currency, balance_after;
"""
SCRIPTS = {
    "limit": _RANDOM
    + """with t as (insert into least.transfers (reference) values ('bench:' || (:r)::bigint) returning id), moved as (
  update least.accounts a set balance = balance + line.amount, entry_count = entry_count + 1
  from unnest(array[:a, :b]::bigint[], array[-5, 5]::bigint[]) line (account_id, amount) where a.id = line.account_id returning a.id, a.entry_count, line.amount, a.balance
)
insert into least.entries select moved.id, moved.entry_count, t.id, moved.amount, moved.balance from moved, t returning account_id, balance_after;
""",
    "pgledger's shape": _RANDOM
    + "select id from peer.transfer(array[row('acc_' || lpad((:a)::bigint::text, 26, '0'), 'acc_' || lpad((:b)::bigint::text, 26, '0'), 5)::peer.request]);\n",
    "ours": _RANDOM + _POSTING.format(accounts=":a, :b"),
    "ours, one hot system account": _RANDOM + _POSTING.format(accounts=f":a, {ACCOUNTS + 1}"),
}


class Base(DeclarativeBase):
    """The ORM's own tables."""


class Account(Base):
    __tablename__ = "orm_accounts"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger, default=0)
    entry_count: Mapped[int] = mapped_column(BigInteger, default=0)


class Transfer(Base):
    __tablename__ = "orm_transfers"
    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    reference: Mapped[str] = mapped_column(Text, unique=True)
    kind: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    posted_at: Mapped[Any] = mapped_column(DateTime(timezone=True))


class Entry(Base):
    __tablename__ = "orm_entries"
    account_id: Mapped[int] = mapped_column(ForeignKey(Account.id), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    transfer_id: Mapped[int] = mapped_column(ForeignKey(Transfer.id), index=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    balance_after: Mapped[int] = mapped_column(BigInteger)


def in_sql(address: Any, scripts: dict[str, Path], verdict: Verdict) -> None:
    """All contestants by pgbench, one and eight clients, by turns; then the hot account beside the same without it."""
    runs = {
        (name, clients): (lambda path=path, clients=clients: per_second(address, path, clients, SECONDS)) for name, path in scripts.items() for clients in (1, 8)
    }  # fmt: skip
    best(runs, 1)
    with connected(address) as admin:
        admin.execute("vacuum analyze")
    found = best(runs, ROUNDS)
    for name in scripts:
        print(f"{name:30} {found[name, 1]:7,.0f} /s with 1 client   {found[name, 8]:7,.0f} /s with 8")
    verdict.claim("of the limit, 8 clients", found["ours", 8] / found["limit", 8], 0.55)
    verdict.claim("pgledger's shape, 8 clients", found["ours", 8] / found["pgledger's shape", 8], 1.7)
    verdict.claim("hot system account beside none, 8 clients", found["ours, one hot system account", 8] / found["ours", 8], 0.95)


def in_cpu(address: Any) -> None:
    """The server's CPU for one posting, which a busy machine hardly changes."""
    found = dict.fromkeys(SCRIPTS, float("inf"))
    for _ in range(ROUNDS):
        for name, script in SCRIPTS.items():
            with connected(address) as connection:
                connection.execute("set synchronous_commit = off")
                found[name] = min(found[name], server_cpu(connection, _posting(connection, script), CPU_POSTINGS))
    print("server CPU for one posting: " + ", ".join(f"{name} {cost:.0f} µs" for name, cost in found.items()))


def _posting(connection: Any, script: str) -> Callable[[], object]:
    """A pgbench script as a prepared statement with its own random numbers."""
    body = "\n".join(line for line in script.splitlines() if not line.startswith("\\set")).rstrip(";\n")
    sql = re.sub(r"(?<!:):([abr])\b", r"%(\1)s::bigint", body)
    return lambda: connection.execute(sql, {"a": random.randint(1, 1000), "b": random.randint(1001, 2000), "r": random.getrandbits(62)}, prepare=True)


def in_python(address: Any, verdict: Verdict) -> None:
    """`ledger.post` beside the usual way: lock the rows, add in Python, let the unit of work write. Fifty to a transaction, and each in its own."""
    owner = create_engine(address, poolclass=NullPool)
    Base.metadata.create_all(owner)
    with owner.begin() as connection:  # the app's sessions work under a role of few rights
        for table in Base.metadata.tables:
            connection.execute(text(f"grant all on {table} to public"))
        connection.execute(text("grant usage on all sequences in schema public to public"))
    with Session(db.db.engine) as session, session.begin():
        session.add_all([Account() for _ in range(ACCOUNTS)])
    together, alone = (best({"ours": lambda size=size: _ours(size), "orm": lambda size=size: _orm(size)}, ROUNDS) for size in (50, 1))
    for words, found in (("fifty to a transaction", together), ("each in its own", alone)):
        print(f"through Python, 1 client, {words}: ledger.post {found['ours']:,.0f} /s, ORM {found['orm']:,.0f} /s ({found['ours'] / found['orm']:.1f} ×)")
    verdict.claim("the ORM way, through Python", together["ours"] / together["orm"], 4)
    verdict.exact("round trips of ledger.post", _round_trips(), 1)


def _ours(size: int) -> float:
    def batch() -> None:
        with db.transaction():
            for _ in range(size):
                lines = [(random.randint(1, 1000), -5), (random.randint(1001, 2000), 5)]
                ledger.post(f"bench:{uuid4()}", "charge", lines, description="vps-7 renewed")

    return rate(batch, PYTHON_POSTINGS // size) * size


def _orm(size: int) -> float:
    def batch() -> None:
        with Session(db.db.engine) as session, session.begin():
            for _ in range(size):
                _orm_posting(session)

    return rate(batch, PYTHON_POSTINGS // size) * size


def _orm_posting(session: Session) -> None:
    chosen = (random.randint(1, 1000), random.randint(1001, 2000))
    accounts = session.scalars(select(Account).where(Account.id.in_(chosen)).order_by(Account.id).with_for_update()).all()
    transfer = Transfer(reference=str(uuid4()), kind="charge", description="vps-7 renewed", posted_at=clock.now())
    session.add(transfer)
    session.flush()
    for account, amount in zip(accounts, (-5, 5), strict=True):
        account.balance += amount
        account.entry_count += 1
        session.add(Entry(account_id=account.id, seq=account.entry_count, transfer_id=transfer.id, amount=amount, balance_after=account.balance))
    session.flush()


def _round_trips() -> int:
    """Statements that one posting sends."""
    with db.transaction():
        sent: list[str] = []
        rows = db.rows
        db.rows = lambda sql, /, **params: sent.append(sql) or rows(sql, **params)  # type: ignore[assignment,func-returns-value]
        try:
            ledger.post(f"bench:{uuid4()}", "charge", [(1, -5), (2, 5)])
        finally:
            db.rows = rows
    return len(sent)


def main() -> int:
    """Print every figure with its ratio; 1 when a claim is not kept."""
    verdict = Verdict()
    with house() as (_app, address), tempfile.TemporaryDirectory() as folder:
        with connected(address) as admin:
            open_accounts(admin)
            for part in (LIMIT, PEER):
                admin.execute(part)
            deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        scripts = {name: Path(folder) / f"{number}.sql" for number, name in enumerate(SCRIPTS)}
        for name, path in scripts.items():
            path.write_text(SCRIPTS[name])
        in_sql(address, scripts, verdict)
        in_cpu(address)
        in_python(address, verdict)
        with connected(address) as admin:
            verdict.exact("deadlocks", admin.execute(deadlocks).fetchone()[0], 0)  # type: ignore[index]
        verdict.exact("faults afterwards", len(list(ledger.check())), 0)
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())
