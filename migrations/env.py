"""Alembic's environment: hand-written SQL, one transaction, the settings' database."""

from alembic import context
from flask import current_app
from sqlalchemy import create_engine, pool


def run() -> None:
    engine = create_engine(current_app.config["SQLALCHEMY_DATABASE_URI"], poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, transaction_per_migration=False)
        with context.begin_transaction():
            connection.exec_driver_sql("select pg_advisory_xact_lock(72010)")
            context.run_migrations()


run()
