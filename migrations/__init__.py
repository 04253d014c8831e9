"""Alembic revisions of the tables in publisher.store.models; run by publisher.store.migrate."""
