"""Run by Alembic with the connection that `service.db` hands over."""

from alembic import context

from service import platform_tables, tables
from service.columns import Row

ROWS = (tables, platform_tables)
"""Importing them makes the metadata whole."""

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
