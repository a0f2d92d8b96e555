"""Identity under concurrency: many calls at once about few persons, against as many calls about one person each."""

import itertools
import uuid
from collections.abc import Callable

import orjson
import psycopg

from bench.load import Target, drive
from bench.measures import ROUND_S, Pair, rate_of
from bench.stack import Servers, role, token

PERSONS = 5
AT_ONCE = 50
LEADS = "SELECT count(*) FROM capture.leads WHERE merged_into IS NULL AND made_from = 'email'"


def concurrent_leads(servers: Servers, rounds: int) -> list[Pair]:
    """Leads through HTTP, fifty calls at once about five persons in many spellings, against one person a call.

    Raises RuntimeError when the five persons did not come out as five leads.
    """
    database_url = servers.fresh_database()
    environment = servers.environment(database_url, "identity.")
    pairs = []
    with role("capture", ["api"], environment) as port:
        target = Target("127.0.0.1", port, "/capture/v1/leads", token())
        for _ in range(rounds):
            before = _leads(database_url)
            few = rate_of(drive(target, _about_few(6_000), connections=AT_ONCE, seconds=ROUND_S))
            made = _leads(database_url) - before
            if made != PERSONS:
                raise RuntimeError(f"{PERSONS} persons came out as {made} leads")
            many = rate_of(drive(target, _about_many(6_000), connections=AT_ONCE, seconds=ROUND_S))
            pairs.append(Pair(few, many))
    return pairs


def _leads(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute(LEADS).fetchone()
    return row[0] if row else 0


def _about_few(count: int) -> list[bytes]:
    names = [f"nora.{uuid.uuid4().hex[:8]}@harborlane.example" for _ in range(PERSONS)]
    spellings: list[Callable[[str], str]] = [str.lower, str.upper, str.title, lambda text: f" {text} "]
    turns = itertools.product(range(count // PERSONS), range(PERSONS))
    return [
        orjson.dumps(
            {
                "email": spellings[turn % len(spellings)](names[person]),
                "external_id": f"{names[person]}-{turn % 3}",
                "title": f"Title {turn}",
            }
        )
        for turn, person in turns
    ]


def _about_many(count: int) -> list[bytes]:
    return [
        orjson.dumps({"email": f"{uuid.uuid4().hex}@harborlane.example", "title": f"Title {number}"})
        for number in range(count)
    ]
