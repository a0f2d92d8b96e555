"""PostgreSQL: connections, transactions that tell facts, migrations.

A service's migration `0001` is `run_sql(op, schema_sql("<service>"))` followed by its own tables, also by `run_sql`;
`op` is `alembic.op`. Tables of the projection stand in `services/<service>/projection.sql`.
"""

from shared.db._database import (
    API_LOG,
    CONSUMER_LOG,
    COPIED_FROM,
    TRANSIENT,
    Connection,
    Database,
    LogRow,
    Tx,
    append_rows,
    log_row,
    one,
)
from shared.db._migrations import heads, migrate, migrated, projection_sql, run_sql, schema_sql

__all__ = [
    "API_LOG",
    "CONSUMER_LOG",
    "COPIED_FROM",
    "TRANSIENT",
    "Connection",
    "Database",
    "LogRow",
    "Tx",
    "append_rows",
    "heads",
    "log_row",
    "migrate",
    "migrated",
    "one",
    "projection_sql",
    "run_sql",
    "schema_sql",
]
