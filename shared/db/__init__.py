"""PostgreSQL: connections, transactions that tell facts, migrations.

A service's migration `0001` is `run_sql(op, schema_sql("<service>"))` followed by its own tables, also by `run_sql`;
`op` is `alembic.op`. Tables of the projection stand in `services/<service>/projection.sql`. What a migration makes
without naming a schema is the service's own.
"""

from shared.db._bell import API_LOG, CONSUMER_LOG, Bell, noticed
from shared.db._clock import agreed_apart, agreed_in, agreed_now
from shared.db._database import (
    COPIED_FROM,
    TRANSIENT,
    Connection,
    Database,
    LogRow,
    Tx,
    append_rows,
    have_patience,
    hear_time,
    log_row,
    one,
)
from shared.db._kept import KeptConnection
from shared.db._migrations import migrate, migrated, package_sql, projection_sql, run_sql, schema_sql

__all__ = [
    "API_LOG",
    "CONSUMER_LOG",
    "COPIED_FROM",
    "TRANSIENT",
    "Bell",
    "Connection",
    "Database",
    "KeptConnection",
    "LogRow",
    "Tx",
    "agreed_apart",
    "agreed_in",
    "agreed_now",
    "append_rows",
    "have_patience",
    "hear_time",
    "log_row",
    "migrate",
    "migrated",
    "noticed",
    "one",
    "package_sql",
    "projection_sql",
    "run_sql",
    "schema_sql",
]
