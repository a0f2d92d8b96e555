"""Nothing in deciding and assigning reads more with more leads: no statement of it walks through a table of them."""

from datetime import timedelta

from shared.settings import Settings
from tests.service.routing_support import Routing, captured, entered, lead_id, routing_service

ROWS = 30_000
SEED = """
INSERT INTO assignments (assignment_id, lead_id, person_id, revision, rep_id, queue, strategy, state, assigned_at,
    settled_at, rules_version, trace, cause_id, entry_id, inputs, company)
SELECT 'a' || n, 'lead' || n, 'lead' || n, 1, $2, 'everybody', 'round_robin', 'accepted', at, at, 1, '[]', 'c' || n,
    'c' || n, '{"lead": {"country": "AT"}, "stage": "mql"}', 'company ' || n % 5000
FROM generate_series(1, $1::bigint) AS n
CROSS JOIN LATERAL (SELECT now() - interval '1 year' + n * interval '1 s' AS at) AS moment
"""
SEED_OTHERS = (
    """
    INSERT INTO fairness_entries (number, queue_id, kind, rep_id, at, units, why, level, assignment_id, lead_id)
    SELECT n, 'another', 'given', 'r', now(), 0, '', 0, 'a' || n, 'lead' || n FROM generate_series(1, $1::bigint) AS n
    """,
    """
    INSERT INTO decisions (assignment_id, number, pool_hash, passed_by)
    SELECT 'a' || n, n, 'none', '{}' FROM generate_series(1, $1::bigint) AS n
    """,
    """
    INSERT INTO rep_states (rep_id, number, profile_hash, open_leads, caps)
    SELECT 'r' || n % 10, n, 'none', n, '[]' FROM generate_series(1, $1::bigint) AS n
    """,
    """
    INSERT INTO standings (lead_id, revision, stage, engagement, fit, total, grade)
    SELECT 'lead' || n, 1, 'mql', 1, 1, 1, 'C' FROM generate_series(1, $1::bigint) AS n
    """,
    """
    INSERT INTO profiles (lead_id, revision, captured_at, fields)
    SELECT 'lead' || n, 1, now(), '{"country": "AT"}' FROM generate_series(1, $1::bigint) AS n
    """,
    """
    INSERT INTO consents (lead_id, channel, state, at)
    SELECT 'lead' || n, 'email', 'granted', now() FROM generate_series(1, $1::bigint) AS n
    """,
    """
    INSERT INTO deals (deal_id, lead_id, revision, name, status, stage, probability, value_minor, currency,
        pipeline_version, opened_at, changed_at)
    SELECT 'd' || n, 'lead' || n, 1, '', 'open', 'proposal', 10, 1, 'EUR', 1, now(), now()
    FROM generate_series(1, $1::bigint) AS n
    """,
)
GROWING = ("assignments", "fairness_entries", "decisions", "rep_states", "standings", "profiles", "consents", "deals")
WALKED = """
SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE relname = ANY($1) AND seq_tup_read > 0
"""


async def test_no_statement_of_a_decision_walks_through_a_table_of_leads(settings: Settings) -> None:
    async with routing_service(settings) as routing:
        await routing.put_rules()
        reps = [await routing.hire(name) for name in ("ann", "bob", "cid")]
        async with routing.service.runtime.database.reading() as connection:
            await connection.execute("SET statement_timeout = 0")
            await connection.execute(SEED, ROWS, reps[0], timeout=600)
            for statement in SEED_OTHERS:
                await connection.execute(statement, ROWS, timeout=600)
            await connection.execute("UPDATE dispatcher SET number = $1", ROWS)
            for table in GROWING:
                await connection.execute(f"VACUUM ANALYZE {table}", timeout=600)
            await connection.execute("RESET statement_timeout")
        before = await walked(routing)
        await decide_everything(routing)
        assert await walked(routing) == before


async def walked(routing: Routing) -> dict[str, int]:
    """How many rows were read by walking through each table, once all connections have told."""
    async with routing.service.runtime.database.reading() as connection:
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await connection.execute("SELECT pg_stat_clear_snapshot()")
        rows = await connection.fetch(WALKED, list(GROWING))
    return {row["relname"]: row["seq_tup_read"] for row in rows}


async def decide_everything(routing: Routing) -> None:
    """Leads given out, accepted, rejected, expired, held, given by hand, come back; the books set right; a replay."""
    names = ["one", "two", "three", "four"]
    await routing.service.deliver(
        *(captured(name, company="Company 7", country="AT") for name in names), *(entered(name) for name in names)
    )
    await routing.answer("one", "accept")
    await routing.answer("two", "reject", reason="a student")
    await routing.answer("three", "reassign", reason="on the road")
    owner = await routing.owner("one")
    assert owner is not None
    await routing.answer("four", "reassign", rep_id=owner, reason="knows them")
    await routing.pass_time(timedelta(minutes=61))
    await routing.service.deliver(entered("one", "recycled", "mql"), entered("one", "mql", "recycled"))
    body = {"rep_id": owner, "leads": 1, "reason": "was forgotten"}
    assert (await routing.client.post("/v1/queues/everybody/fairness:adjust", json=body)).status_code == 201
    replayed = await routing.client.post(f"/v1/assignments/{(await routing.assignment('one'))['assignment_id']}:replay")
    assert replayed.json()["same"], lead_id("one")
