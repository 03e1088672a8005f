"""Alembic's environment: hand-written SQL, one transaction, the settings' database as its owner.

After a migration the triggers and rights of every table follow the classification again.
"""

import sys

import click
from alembic import context
from sqlalchemy import create_engine, pool

import config
from app import db, guard, logs


def run() -> None:
    settings = config.current()
    engine = create_engine(settings.owner_url, poolclass=pool.NullPool)
    try:
        connection = engine.connect()
    except db.UNREACHABLE as error:
        click.echo(f"The database could not be used: {logs.summary(error)}", err=True)
        sys.exit(2)
    with connection:
        context.configure(connection=connection, transaction_per_migration=False)
        with context.begin_transaction():
            connection.exec_driver_sql("select pg_advisory_xact_lock(72010)")
            before = context.get_context().get_current_heads()
            context.run_migrations()
            if context.get_context().get_current_heads() != before:
                guard.apply(connection.connection.driver_connection, settings.database_role)


run()
