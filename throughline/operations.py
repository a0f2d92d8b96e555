"""`throughline run`, `migrate`, `topics`, `lag` and `rebuild`. Imports are inside: each command pays for its own."""

import asyncio
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from throughline.errors import FOUND, CommandFailed
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir
from throughline.services import SERVICES, service_code
from throughline.settings import load_settings

if TYPE_CHECKING:
    from shared.settings import Settings

ROLE_NAMES = ("api", "consumer", "worker")
WIDEST = 2_000


def service_name(text: str) -> str:
    """A service that exists."""
    if text not in SERVICES:
        raise typer.BadParameter(f"{text!r} is no service; there are {', '.join(SERVICES)}")
    return text


def role_name(text: str) -> str:
    """A role that exists."""
    if text not in ROLE_NAMES:
        raise typer.BadParameter(f"{text!r} is no role; there are {', '.join(ROLE_NAMES)}")
    return text


Service = Annotated[
    str,
    typer.Argument(parser=service_name, metavar="SERVICE", help=", ".join(SERVICES)),
]


def run(
    service: Service,
    roles: Annotated[
        list[str],
        typer.Argument(parser=role_name, metavar="ROLE...", help=", ".join(ROLE_NAMES)),
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Run one process with these roles of a service, until SIGTERM."""
    settings = load_settings(data_dir)
    gc.disable()  # what is imported stays; to look through it again and again is a sixth of a start
    from shared.service import run as run_process

    wanted: Any = tuple(dict.fromkeys(roles))
    code = service_code(service)
    gc.enable()
    return run_process(code, wanted, settings)


def migrate(
    services: Annotated[list[str] | None, typer.Argument(parser=service_name, metavar="[SERVICE...]")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Bring every service's schema, or those that are named, to its newest revision."""
    settings = load_settings(data_dir)
    from shared.db import migrate as migrate_service
    from shared.service import prepare_partitions

    url = settings.database_url.get_secret_value()
    with servers(settings):
        for service in services or SERVICES:
            migrate_service(service, url)
            prepare_partitions(url, service)
            print(f"{service}: newest revision")


def prepare(
    wait: Annotated[float, typer.Option(help="Seconds to wait for PostgreSQL and Kafka.")] = 60.0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """`migrate` and `topics apply` in one, for a start in which the servers are only just starting too."""
    settings = load_settings(data_dir)
    import psycopg

    from shared.errors import Unavailable
    from shared.kafka import apply_topics as apply

    deadline = time.monotonic() + wait
    url = settings.database_url.get_secret_value()
    with servers(settings):
        _patiently(
            lambda: psycopg.connect(url, connect_timeout=2).close(),
            psycopg.OperationalError,
            deadline,
        )
    migrate(None, data_dir)
    with servers(settings):
        _patiently(lambda: asyncio.run(apply(settings)), Unavailable, deadline)


def _patiently(work: Callable[[], object], until_no: type[Exception], deadline: float) -> None:
    while True:
        try:
            work()
            return
        except until_no:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def apply_topics(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Make the topics that are missing. What is there is left as it is."""
    settings = load_settings(data_dir)
    from shared.kafka import apply_topics as apply

    with servers(settings):
        made = asyncio.run(apply(settings))
    print("\n".join(f"{topic}: made" for topic in made) or "Every topic is there.")


def topic_drift(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> int:
    """Show where the broker's topics differ from the topic table. Ends with status 2 where they do."""
    settings = load_settings(data_dir)
    from shared.kafka import topic_drift as drift_of

    with servers(settings):
        drifts = asyncio.run(drift_of(settings))
    if as_json:
        print(json.dumps([asdict(drift) for drift in drifts], indent=2))
    else:
        print("\n".join(f"{drift.topic}: {drift.detail}" for drift in drifts) or "Every topic is as it should be.")
    return FOUND if drifts else 0


def lag(
    threshold: Annotated[int | None, typer.Option(help="End with status 2 where a lag is greater.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> int:
    """Show how far each service's consumers are behind Kafka and its relay behind the event log."""
    settings = load_settings(data_dir)
    from throughline.lag import lags_of

    with servers(settings):
        rows = asyncio.run(lags_of(settings, SERVICES))
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        print_table(
            ("service", "what", "place", "position", "end", "lag", "seconds"),
            [
                (
                    row.service,
                    row.what,
                    row.place,
                    row.position,
                    row.end,
                    row.lag,
                    row.seconds,
                )
                for row in rows
            ],
        )
    return FOUND if threshold is not None and any(row.lag > threshold for row in rows) else 0


def rebuild(service: Service, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Build a service's projection anew from the log beside the one that serves, then swap it in."""
    settings = load_settings(data_dir)
    from shared.faults import arm
    from shared.service import rebuild as rebuild_projection

    arm(settings.failpoints)
    with servers(settings):
        equal = asyncio.run(rebuild_projection(service_code(service), settings, print))
    for table, same in equal.items():
        print(f"{service}: {table} is {'the same as before' if same else 'different from before'}")


@contextmanager
def servers(settings: "Settings") -> Iterator[None]:
    """Say in a sentence when PostgreSQL or Kafka cannot be worked with."""
    import asyncpg
    import psycopg
    from aiokafka.errors import KafkaError
    from sqlalchemy.exc import DBAPIError

    from shared.errors import Unavailable

    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # its tries; what comes of them is said below
    try:
        yield
    except Unavailable as exc:
        raise CommandFailed(f"{exc.detail[:1].upper()}{exc.detail[1:]}.") from exc
    except KafkaError as exc:
        raise CommandFailed(f"Kafka at {settings.kafka_bootstrap_servers}: {exc}.") from exc
    except asyncpg.UndefinedTableError as exc:
        raise CommandFailed("The database is not migrated: run `throughline migrate`.") from exc
    except (
        psycopg.Error,
        DBAPIError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        OSError,
        TimeoutError,
    ) as exc:
        raise CommandFailed(
            f"PostgreSQL cannot be worked with: {' '.join(str(exc).split()) or type(exc).__name__}"
        ) from exc


def print_table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Rows for a person to read, each a line, whole: what is shown here is given to other commands."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(width=WIDEST).print(table, soft_wrap=True)
