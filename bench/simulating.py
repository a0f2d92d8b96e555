"""Rules tried on the leads of ninety days through the API: seconds, and what the process grows by.

The leads are put into the table of assignments as the product leaves them, with what the rules saw in clear.
"""

import asyncio
import time
from dataclasses import dataclass

import asyncpg
import httpx
import psutil

from bench.stack import Servers, role, settings_of, token

SIZES = (10_000, 100_000)
SECONDS_GOAL = 60
REPS = 20
DAYS = 90
COUNTRIES = ("AT", "DE", "US", "FR")
SEED = """
INSERT INTO assignments (assignment_id, lead_id, person_id, revision, rep_id, queue, strategy, state, assigned_at,
    settled_at, rules_version, trace, cause_id, entry_id, inputs, company)
SELECT 'a' || n, 'lead' || n, 'lead' || n, 1, ($2::text[])[1 + n % array_length($2::text[], 1)], 'everybody',
    'round_robin', 'accepted', at, at + interval '7 minutes', 1,
    '[{"rule_id": "catch-all", "matched": true, "why": "next in turn among 20"}]', 'cause' || n, 'cause' || n,
    jsonb_build_object(
        'lead', jsonb_build_object(
            'country', ($3::text[])[1 + n % array_length($3::text[], 1)], 'employees', n % 3000,
            'company', 'c' || n % 5000, 'use_case', CASE WHEN n % 3 = 0 THEN 'crm' ELSE 'support' END
        ),
        'score', jsonb_build_object('engagement', 50.5 + n % 40, 'fit', n % 90, 'total', 60.25 + n % 70, 'grade', 'B'),
        'stage', 'mql', 'now', at
    ),
    'c' || n % 5000
FROM generate_series(1, $1::bigint) AS n
CROSS JOIN LATERAL (SELECT clock_timestamp() - interval '89 days' * (1 - n::float / $1) AS at) AS moment
"""
DRAFT = {
    "rules": [
        {"id": "big", "when": "lead.employees > 2000", "queue": "all", "strategy": "highest_seniority"},
        {
            "id": "crm",
            "when": "lead.use_case == 'crm'",
            "who": "'crm' in rep.skills && lead.country in rep.territories",
            "queue": "all",
            "strategy": "round_robin",
            "available": True,
            "sla": {"accept_minutes": 30},
        },
        {
            "id": "country",
            "when": "score.total > 70.0",
            "who": "lead.country in rep.territories",
            "queue": "all",
            "strategy": "round_robin",
        },
    ],
    "queues": [{"id": "all", "who": "true"}],
    "catch_all": {"queue": "all", "strategy": "round_robin", "sla": {"accept_minutes": 240}},
}


@dataclass(frozen=True, slots=True)
class Simulated:
    """How long one size took, and the process' resident memory before and after, MiB."""

    leads: int
    seconds: float
    before_mib: float
    after_mib: float


def measure(servers: Servers) -> list[Simulated]:
    """Each size in a database of its own."""
    return [_measure(servers, leads) for leads in SIZES]


def _measure(servers: Servers, leads: int) -> Simulated:
    environment = servers.environment(servers.fresh_database(), f"simulate{leads}.")
    with role("routing", ["api"], environment) as port:
        base = f"http://127.0.0.1:{port}/routing/v1/"
        with httpx.Client(base_url=base, headers={"authorization": f"Bearer {token()}"}, timeout=600) as client:
            reps = [_hire(client, number) for number in range(REPS)]
            asyncio.run(_seed(environment, leads, reps))
            client.post("/rules:simulate", json={"document": DRAFT, "days": 1}).raise_for_status()
            process = next(one for one in psutil.Process().children() if "routing" in one.cmdline())
            before = process.memory_info().rss / 2**20
            began = time.perf_counter()
            answer = client.post("/rules:simulate", json={"document": DRAFT, "days": DAYS}).raise_for_status().json()
            seconds = time.perf_counter() - began
            assert answer["leads"] == leads, answer["leads"]
            return Simulated(leads, seconds, before, process.memory_info().rss / 2**20)


def _hire(client: httpx.Client, number: int) -> str:
    hours = {day: [["08:00", "18:00"]] for day in ("mon", "tue", "wed", "thu", "fri")}
    rep = {
        "name": f"Rep {number}",
        "email": f"rep-{number}@sales.example.com",
        "time_zone": ("Europe/Vienna", "America/New_York")[number % 2],
        "territories": [COUNTRIES[number % len(COUNTRIES)], COUNTRIES[number % 3]],
        "skills": ["crm"] if number % 2 else [],
        "seniority": number % 5,
        "weight": 50 + number % 3 * 25,
        "working_hours": hours,
    }
    return str(client.post("reps", json=rep).raise_for_status().json()["rep_id"])


async def _seed(environment: dict[str, str], leads: int, reps: list[str]) -> None:
    connection = await asyncpg.connect(settings_of(environment).database_url.get_secret_value())
    try:
        await connection.execute("SET search_path TO routing")
        await connection.execute(SEED, leads, reps, list(COUNTRIES))
        await connection.execute("VACUUM ANALYZE assignments")
    finally:
        await connection.close()
