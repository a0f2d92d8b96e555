"""Whoever comes from any earlier version has what a new installation has, and has it where it outlasts a rebuild."""

import uuid
from importlib import resources

import psycopg
import pytest

from shared.db import migrate
from tests.conftest import DatabaseServer
from throughline.services import SERVICES

MADE = """
SELECT nspname, relkind::text, relname, attname, format_type(atttypid, atttypmod), attnotnull
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname IN (%(own)s, %(projection)s) AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT nspname, 'function', proname, pg_get_function_identity_arguments(pg_proc.oid), prosrc, NULL
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname IN (%(own)s, %(projection)s)
UNION ALL
SELECT nspname, 'trigger', relname, tgname, pg_get_triggerdef(pg_trigger.oid), NULL
FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname IN (%(own)s, %(projection)s) AND NOT tgisinternal
"""


def made(url: str, service: str) -> set[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return set(connection.execute(MADE, {"own": service, "projection": f"{service}_projection"}))


@pytest.mark.parametrize("service", SERVICES)
def test_one_revision_after_the_other_makes_what_all_at_once_make(
    database_server: DatabaseServer, service: str
) -> None:
    versions = resources.files(f"services.{service}") / "migrations" / "versions"
    revisions = sorted(file.name.partition("_")[0] for file in versions.iterdir() if file.name[0].isdigit())
    names = [f"upgrade_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    at_once, by_and_by = (database_server.make(name) for name in names)
    try:
        migrate(service, at_once)
        for revision in revisions:
            migrate(service, by_and_by, revision)
        assert made(by_and_by, service) == made(at_once, service)
    finally:
        for name in names:
            database_server.drop(name)
