"""Each service's own Alembic history, in its own schema, and the tables every service has."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.operations import Operations

IDENTITY_TABLES = ("shared.identity", "projection.sql")
RUNTIME_TABLES = (("shared.db", "runtime.sql"), ("shared.rules", "tables.sql"))
_LOCK = 7_418_111


def package_sql(package: str, name: str) -> str:
    """A SQL file that lies in a package."""
    return resources.files(package).joinpath(name).read_text()


def runtime_sql() -> str:
    """The tables of the runtime, for a service's first migration."""
    return "\n".join(package_sql(package, name) for package, name in RUNTIME_TABLES)


def projection_sql(service: str) -> str:
    """The tables of a service's projection: identity's, the service's own, then those of each of its features."""
    folder = resources.files(f"services.{service}")
    features = sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    files = [where / "projection.sql" for where in (folder, *features)]
    return package_sql(*IDENTITY_TABLES) + "\n".join(file.read_text() for file in files if file.is_file())


def schema_sql(service: str) -> str:
    """What a service's first migration starts with: its two schemas, the runtime's tables, the projection."""
    return (
        f"CREATE SCHEMA IF NOT EXISTS {service}_projection;\n"
        f"SET LOCAL search_path TO {service}_projection;\n{projection_sql(service)}\n"
        f"SET LOCAL search_path TO {service};\n{runtime_sql()}\n"
    )


def search_path(service: str) -> str:
    """Where a migration looks, and where it makes what names no schema: first what no rebuild drops."""
    return f"SET LOCAL search_path TO {service}, {service}_projection"


def run_sql(op: Operations, script: str) -> None:
    """Run a script of several statements in a migration, untouched: neither `:` nor `%` means anything in it."""
    import psycopg

    connection = op.get_bind().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    path = search_path(str(op.get_context().version_table_schema))
    connection.execute(f"{path};\n{script}".encode())


def _config(service: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resources.files("shared.db") / "alembic"))
    config.set_main_option("version_locations", str(resources.files(f"services.{service}") / "migrations" / "versions"))
    config.set_main_option("path_separator", "os")
    return config


def _sync_url(url: str) -> str:
    return "postgresql+psycopg://" + url.split("://", 1)[1]


def migrate(service: str, url: str, revision: str = "head") -> None:
    """Bring a service's schema to a revision, the newest by default. Two at once wait for each other."""
    import psycopg
    from alembic import command
    from psycopg import sql
    from sqlalchemy import create_engine

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(service)))
        engine = create_engine(_sync_url(url))
        try:
            with engine.connect() as alembic_connection:
                config = _config(service)
                config.attributes["connection"] = alembic_connection
                config.attributes["service"] = service
                command.upgrade(config, revision)
        finally:
            engine.dispose()


def migrated(service: str, url: str) -> bool:
    """Whether a service's schema is at the newest revision. Every process asks when it starts, without Alembic."""
    import psycopg
    from psycopg import sql

    table = sql.Identifier(service, "alembic_version")
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass(%s)", (table.as_string(connection),)).fetchone() == (None,):
            return False
        found = connection.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchall()
        return found == [(newest(service),)]


def newest(service: str) -> str:
    """The newest revision of a service: its files begin with their revision, and each goes on from the one before."""
    versions = resources.files(f"services.{service}") / "migrations" / "versions"
    return max(file.name.partition("_")[0] for file in versions.iterdir() if file.name.endswith(".py"))
