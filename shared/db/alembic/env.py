"""Alembic's entry: one service's history, over the connection that `shared.db.migrate` opened."""

from alembic import context
from sqlalchemy import text

from shared.db._migrations import search_path

config = context.config
connection = config.attributes["connection"]
service = config.attributes["service"]
context.configure(connection=connection, version_table_schema=service)
with context.begin_transaction():
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    connection.execute(text(search_path(service)))
    context.run_migrations()
