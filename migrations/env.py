"""Run by Alembic: with the connection that publisher.store.migrate hands over, or for its command line by itself."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from publisher.settings import settings
from publisher.store.database import create_database_engine
from publisher.store.models import Table


def run_on(connection: Connection) -> None:
    # SQLite can't alter a column: batch mode copies the table instead
    batch = connection.dialect.name == "sqlite"
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=batch)
    with context.begin_transaction():
        context.run_migrations()


handed_over: Connection | None = context.config.attributes.get("connection")
if handed_over is not None:
    run_on(handed_over)
else:
    with create_database_engine(settings().resolved_database_url).connect() as own:
        run_on(own)
        own.commit()
