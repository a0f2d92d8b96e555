"""Scoring under other rules: a simulation of the last 90 days, and everybody scored anew, at growing numbers of leads.

Leads with profiles and touches are put into the projection, without scores: what the worker does first is to make them,
and to decide where everybody stands.
Run as `python -m bench.rulesets PEOPLE` it measures one size and prints the figures.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import orjson
import psutil

from bench.stack import Servers, role, servers, settings_of, token
from services.scoring.rules.document import shipped_document
from shared.ids import LeadId
from shared.service import build_runtime

SIZES = (10_000, 100_000)
SECONDS_GOAL = 60
MEMORY_GOAL = 1.3
DAYS = 90
TOUCHES = 12
AT_ONCE = 5_000
KINDS = ("page_view",) * 12 + ("email_clicked",) * 3 + ("session_started",) * 3
RARE = ("form_submitted", "content_downloaded", "webinar_attended", "demo_requested", "unsubscribed")
PAGES = ("/", "/pricing", "/product", "/careers/jobs", "/blog/one", "/blog/two", "/docs", "/about")
TITLES = ("Head of Sales", "Student", "Analyst", "Manager", "VP Marketing", "Engineer")
SCORED = "SELECT count(*) > 0 FROM scoring.switches"
STAND = "SELECT bool_and(finished_at IS NOT NULL) FROM scoring.switches"
NO_LIMIT = {"THROUGHLINE_SCORING_ADVANCES_PER_MINUTE": "0"}


@dataclass(frozen=True, slots=True)
class Figures:
    """One size: seconds of the simulation, the most memory of its processes together, and of scoring all anew."""

    people: int
    simulated_s: float
    peak_mib: float
    rescored_s: float


def measure(made: Servers, sizes: Sequence[int] = SIZES) -> list[Figures]:
    """Each size in a database of its own."""
    return [asyncio.run(_measure(made, people)) for people in sizes]


async def _measure(made: Servers, people: int) -> Figures:
    environment = made.environment(made.fresh_database(), f"simulating{people}.")
    connection = await asyncpg.connect(settings_of(environment).database_url.get_secret_value())
    await connection.execute("SET search_path TO scoring_projection, scoring")
    await _seed(environment, connection, people)
    began = time.perf_counter()
    with role("scoring", ["worker"], environment | NO_LIMIT):
        await _until(connection, SCORED)
        rescored = time.perf_counter() - began
        await _until(connection, STAND)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()
    with role("scoring", ["api"], environment) as port:
        began = time.perf_counter()
        peak = await _simulated(port)
        return Figures(people, time.perf_counter() - began, peak, rescored)


async def _until(connection: "asyncpg.Connection[Any]", done: str) -> None:
    while True:
        if await connection.fetchval(done):
            return
        await asyncio.sleep(0.2)


async def _simulated(port: int) -> float:
    """Ask, wait, and watch the memory of the api and the processes it starts, in MiB."""
    document = shipped_document()
    for rule in document["engagement"]["rules"]:
        if rule["id"] in ("form-submitted", "content-downloaded"):
            rule["points"] += 15
    peak = 0.0
    base = f"http://127.0.0.1:{port}/scoring/v1"
    async with httpx.AsyncClient(base_url=base, headers={"authorization": f"Bearer {token()}"}, timeout=60) as client:
        body = {"document": document, "days": DAYS}
        asked = (await client.post("/rules:simulate", json=body, headers={"prefer": "respond-async"})).json()
        while True:
            peak = max(peak, _memory())
            job = (await client.get(f"/simulations/{asked['simulation_id']}")).json()
            if job["state"] != "running":
                break
            await asyncio.sleep(0.2)
    if job["state"] != "done" or not job["report"]["changed"]:
        raise RuntimeError(f"the simulation is {job['state']}: {job['problem']}")
    return peak


def _memory() -> float:
    """What all processes below this one hold for themselves."""
    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            if "python" in child.name():
                total += child.memory_full_info().uss
        except psutil.Error:
            continue
    return total / 2**20


async def _seed(environment: dict[str, str], connection: "asyncpg.Connection[Any]", people: int) -> None:
    runtime = build_runtime("scoring", settings_of(environment))
    dice, now = random.Random(1), datetime.now(UTC)  # noqa: S311  # the same people each time
    for start in range(0, people, AT_ONCE):
        ids = [LeadId(f"lead-{number:08}") for number in range(start, min(start + AT_ONCE, people))]
        async with runtime.database.transaction() as tx:
            ciphers, _ = await runtime.keys.ciphers(tx.connection, ids, now)
        sealed = [
            runtime.keys.seal(
                one, ciphers[one], orjson.dumps({"title": dice.choice(TITLES), "email": f"{one}@example.com"})
            ).decode()
            for one in ids
        ]
        profiles = [_profile(one, block, dice, now) for one, block in zip(ids, sealed, strict=True)]
        await connection.copy_records_to_table("profiles", records=profiles)
        await connection.copy_records_to_table("touches", records=_touches(ids, dice, now))
    await connection.execute(
        "INSERT INTO scores (person_id, rules_version, sums, types, fit, grade, fit_rules, lead) "
        "SELECT lead_id, 0, '{}', '[]', 0, 'D', '[]', '{}' FROM profiles"
    )
    await connection.execute("ANALYZE")
    await runtime.database.close()


def _profile(lead_id: str, sealed: str, dice: random.Random, now: datetime) -> tuple[Any, ...]:
    fields = {
        "employees": dice.choice([5, 80, 700, 9_000]),
        "country": "AT",
        "industry": dice.choice(["Software", "Art"]),
    }
    told = now - timedelta(days=dice.uniform(0, DAYS))
    return lead_id, f"captured-{lead_id}", 1, told, told, orjson.dumps(fields).decode(), sealed, False


def _touches(ids: Sequence[str], dice: random.Random, now: datetime) -> Iterator[tuple[Any, ...]]:
    """About a dozen for each: most of them page views, crowded around one day."""
    for lead_id in ids:
        around = dice.uniform(0, DAYS)
        for number in range(dice.randint(1, 2 * TOUCHES - 1)):
            at = now - timedelta(days=max(0.01, around + dice.gauss(0, 10)))
            kind = dice.choice(RARE) if dice.random() < 0.1 else dice.choice(KINDS)
            page = dice.choice(PAGES)
            name = f"{lead_id}-{number}"
            yield (
                *("web", name, lead_id, name, 1, at, kind, None, dice.choice(["google", "news"]), "cpc", None, None),
                *(f"https://x.example.com{page}", None, False, None),
            )


if __name__ == "__main__":
    with servers() as fresh:
        print(measure(fresh, [int(sys.argv[1])]))
