"""Who was given which variant, what was ruled, and what the people of each came to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from services.nurture.experiments.domain import Standing, Trial
from services.nurture.measurement.queries import ANSWERS, LEFT_US, converted, owners_of, replied
from shared.db import Connection
from shared.events import EnrolmentStarted, ExperimentRuled, MessageClaimed, VariantAssigned
from shared.ids import LeadId, SequenceId

GIVEN = """
SELECT experiment_id, variant, design FROM trials WHERE sequence_id = $1 AND lead_id = ANY($2)
ORDER BY assigned_at, lead_id
"""
RULINGS = """
SELECT ruling_id, experiment_id, design, kind, variant, reason, decided_by, decided_at FROM experiment_rulings
WHERE sequence_id = $1 ORDER BY decided_at, ruling_id
"""
ASSIGN = """
INSERT INTO trials (sequence_id, experiment_id, lead_id, design, variant, enrolment_id, assigned_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING assigned_at
"""
RULE = """
INSERT INTO experiment_rulings
    (ruling_id, sequence_id, experiment_id, design, kind, variant, reason, decided_by, decided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING ruling_id
"""
# One process rules about a sequence's experiments at a time.
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('nurture/experiments/' || $1, 0))"
NOTE_VARIANTS = """
UPDATE messages SET variant = given.variant FROM unnest($1::text[], $2::text[]) AS given (message_id, variant)
WHERE messages.message_id = given.message_id AND messages.variant IS DISTINCT FROM given.variant
"""
WAS_HELD_OUT = "SELECT EXISTS (SELECT FROM enrolments WHERE sequence_id = $1 AND lead_id = ANY($2) AND held_out)"
HOLD_OUT = """
INSERT INTO enrolments (enrolment_id, sequence_id, version, lead_id, run, cause_event_id, triggered_at, step_id,
    started_at, due_at, active, held_out, reason, ended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'end', $8, $8, false, true, $9, $8)
ON CONFLICT DO NOTHING RETURNING enrolment_id
"""
IN_TRIAL = """entered AS MATERIALIZED (
    SELECT variant, lead_id, assigned_at AS at, enrolment_id FROM trials
    WHERE sequence_id = $1 AND experiment_id = $2 AND design = $3
)"""
IN_SEQUENCE = """entered AS MATERIALIZED (
    SELECT DISTINCT ON (lead_id) CASE WHEN held_out THEN 'held_out' ELSE 'treated' END AS variant, lead_id,
        triggered_at AS at, enrolment_id
    FROM enrolments WHERE sequence_id = $1 AND version = ANY($2::integer[]) ORDER BY lead_id, triggered_at, run
)"""
_NOTHING = """happened AS MATERIALIZED (
    SELECT NULL::text AS fact_id, NULL::text AS lead_id, NULL::timestamptz AS occurred_at, NULL::text AS currency,
        NULL::bigint AS value_minor WHERE false
)"""
_SINCE = "said.occurred_at >= (SELECT min(at) FROM entered)"


def _of_people(entered: str, happened: str) -> str:
    """Those who entered, of people who turned out to be one whoever was first; and whose is what happened."""
    return f"""
WITH RECURSIVE {entered},
{happened},
{owners_of("SELECT lead_id FROM entered UNION SELECT lead_id FROM happened")},
merged AS MATERIALIZED (
    SELECT DISTINCT owners.person_id FROM entered JOIN owners ON owners.lead_id = entered.lead_id
),
people AS MATERIALIZED (
    SELECT lead_id AS person_id, variant, at, enrolment_id FROM entered
    WHERE lead_id NOT IN (SELECT lead_id FROM owners) AND lead_id NOT IN (SELECT person_id FROM merged)
    UNION ALL
    (SELECT DISTINCT ON (merged.person_id) merged.person_id, variant, at, enrolment_id
    FROM entered LEFT JOIN owners ON owners.lead_id = entered.lead_id
    JOIN merged ON merged.person_id = coalesce(owners.person_id, entered.lead_id)
    ORDER BY merged.person_id, at, variant)
),
done AS MATERIALIZED (
    SELECT happened.*, coalesce(owners.person_id, happened.lead_id) AS person_id
    FROM happened LEFT JOIN owners ON owners.lead_id = happened.lead_id
)"""


def _bought(entered: str, window: str) -> str:
    """By variant: people; people who converted within the window; and by currency buyers, money and its squares."""
    return f"""{_of_people(entered, converted(_SINCE))},
bought AS MATERIALIZED (
    SELECT people.person_id, people.variant, done.currency, sum(done.value_minor) AS value_minor
    FROM people JOIN done USING (person_id)
    WHERE done.occurred_at >= people.at AND done.occurred_at < people.at + {window}::interval
    GROUP BY 1, 2, 3
)
SELECT variant, NULL AS currency, count(*) AS people, 0 AS buyers, 0::bigint AS value_minor, 0::float8 AS squares
FROM people GROUP BY variant
UNION ALL
SELECT variant, NULL, 0, count(DISTINCT person_id), 0, 0 FROM bought GROUP BY variant
UNION ALL
SELECT variant, currency, 0, count(*) FILTER (WHERE value_minor > 0), sum(value_minor)::bigint,
    sum(value_minor::float8 ^ 2)
FROM bought GROUP BY variant, currency
"""


BOUGHT = _bought(IN_TRIAL, "$4")
BOUGHT_BY_HOLDOUT = _bought(IN_SEQUENCE, "$3")
EARNED = f"""{_of_people(IN_TRIAL, _NOTHING)},
earned AS (
    SELECT people.person_id, people.variant, part.currency, sum(part.minor) AS value_minor
    FROM (
        SELECT given.touch_id, given.minor, earnings.currency
        FROM earnings CROSS JOIN LATERAL unnest(touch_ids, value_minor) AS given (touch_id, minor)
        WHERE model = $4 AND touch_ids <> '{{}}' AND converted_at >= (SELECT min(at) FROM entered)
    ) AS part JOIN responses USING (touch_id) JOIN messages USING (message_id) JOIN people USING (enrolment_id)
    WHERE messages.claimed_at >= people.at
    GROUP BY 1, 2, 3
)
SELECT variant, currency, count(*) FILTER (WHERE value_minor > 0) AS buyers, sum(value_minor)::bigint AS value_minor,
    sum(value_minor::float8 ^ 2) AS squares
FROM earned GROUP BY variant, currency
"""
# Of an experiment on a message only that one counts; of others all that were sent in the run since.
RESPONDED = f"""{_of_people(IN_TRIAL, _NOTHING)},
reached AS (
    SELECT people.variant, people.person_id, bool_or({LEFT_US}) AS sent, bool_or(state = 'delivered') AS delivered,
        bool_or(state = 'bounced') AS bounced, bool_or(state = 'failed') AS failed,
        bool_or(kind = 'email_opened' AND by_person) AS opened, bool_or(kind = 'email_opened') AS opened_raw,
        bool_or(kind LIKE '%_clicked' AND by_person) AS clicked, bool_or(kind LIKE '%_clicked') AS clicked_raw,
        bool_or(kind = 'unsubscribed') AS unsubscribed
    FROM people JOIN messages USING (enrolment_id) LEFT JOIN {ANSWERS} USING (message_id)
    WHERE coalesce(claimed_at, settled_at) >= people.at AND ($4::text IS NULL OR messages.step_id = $4)
    GROUP BY people.variant, people.person_id
)
SELECT variant, count(*) FILTER (WHERE sent) AS sent, count(*) FILTER (WHERE delivered) AS delivered,
    count(*) FILTER (WHERE bounced) AS bounced, count(*) FILTER (WHERE failed) AS failed,
    count(*) FILTER (WHERE opened) AS opened, count(*) FILTER (WHERE opened_raw) AS opened_raw,
    count(*) FILTER (WHERE clicked) AS clicked, count(*) FILTER (WHERE clicked_raw) AS clicked_raw,
    count(*) FILTER (WHERE unsubscribed) AS unsubscribed
FROM reached GROUP BY variant
"""
REPLIED = f"""{_of_people(IN_TRIAL, replied(_SINCE))}
SELECT variant, count(DISTINCT person_id) AS replied
FROM people JOIN done USING (person_id)
WHERE done.occurred_at >= people.at AND done.occurred_at < people.at + $4::interval
GROUP BY variant
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ruling as it stands in the ledger."""

    kind: str
    variant: str
    reason: str
    decided_by: str
    decided_at: datetime


async def given_before(
    connection: Connection, sequence_id: SequenceId, ids: Sequence[LeadId]
) -> dict[str, list[tuple[str, str]]]:
    """The variants and designs that a person was given, the first ones first, by experiment."""
    given: dict[str, list[tuple[str, str]]] = {}
    for row in await connection.fetch(GIVEN, sequence_id, ids):
        given.setdefault(row["experiment_id"], []).append((row["variant"], row["design"]))
    return given


async def verdicts(connection: Connection, sequence_id: SequenceId) -> dict[tuple[str, str], list[Verdict]]:
    """What was ruled about a sequence's experiments, in order, by experiment and design."""
    found: dict[tuple[str, str], list[Verdict]] = {}
    for row in await connection.fetch(RULINGS, sequence_id):
        verdict = Verdict(row["kind"], row["variant"], row["reason"], row["decided_by"], row["decided_at"])
        found.setdefault((row["experiment_id"], row["design"]), []).append(verdict)
    return found


def standing_of(found: Mapping[tuple[str, str], Sequence[Verdict]], trial: Trial) -> Standing:
    """How an experiment stands: the winner ruled last, and all that were stopped."""
    mine = found.get((trial.experiment.id, trial.design), ())
    winners = [one.variant for one in mine if one.kind == "winner"]
    return Standing(winners[-1] if winners else None, frozenset(one.variant for one in mine if one.kind == "stopped"))


async def save_assignment(connection: Connection, event: VariantAssigned) -> bool:
    """Note which variant a person was given; False when they take part already."""
    saved = await connection.fetchval(
        ASSIGN,
        event.sequence_id,
        event.experiment_id,
        event.lead_id,
        event.design,
        event.variant,
        event.enrolment_id,
        event.occurred_at,
    )
    return saved is not None


async def save_ruling(connection: Connection, event: ExperimentRuled) -> bool:
    """Note a ruling; False when it was noted before."""
    saved = await connection.fetchval(
        RULE,
        event.event_id,
        event.sequence_id,
        event.experiment_id,
        event.design,
        event.ruling,
        event.variant,
        event.reason,
        event.decided_by,
        event.occurred_at,
    )
    return saved is not None


async def take_turn(connection: Connection, sequence_id: SequenceId) -> None:
    """Rule about this sequence's experiments alone until the end of the transaction."""
    await connection.execute(TAKE_TURN, sequence_id)


async def note_variants(connection: Connection, events: Sequence[MessageClaimed]) -> None:
    """Write the variants of messages into the ledger."""
    varied = sorted((event.message_id, event.variant) for event in events if event.variant is not None)
    if varied:
        await connection.execute(NOTE_VARIANTS, [one for one, _ in varied], [variant for _, variant in varied])


async def was_held_out(connection: Connection, sequence_id: SequenceId, ids: Sequence[LeadId]) -> bool:
    """Whether a person, under any of their ids, is one from whom the sequence is kept."""
    return bool(await connection.fetchval(WAS_HELD_OUT, sequence_id, ids))


async def save_held_out(connection: Connection, event: EnrolmentStarted, reason: str) -> bool:
    """Note that somebody would have entered, and was kept out; False when that is known."""
    saved = await connection.fetchval(
        HOLD_OUT,
        event.enrolment_id,
        event.sequence_id,
        event.sequence_version,
        event.lead_id,
        event.run,
        event.cause_event_id or event.enrolment_id,
        event.triggered_at or event.occurred_at,
        event.occurred_at,
        reason,
    )
    return saved is not None


async def people_and_money(
    connection: Connection, sequence_id: SequenceId, trial: Trial, window: object
) -> list[asyncpg.Record]:
    """By variant people, those who converted within the window, and their money by currency."""
    rows: list[asyncpg.Record] = await connection.fetch(BOUGHT, sequence_id, trial.experiment.id, trial.design, window)
    return rows


async def people_and_money_by_holdout(
    connection: Connection, sequence_id: SequenceId, versions: Iterable[int], window: object
) -> list[asyncpg.Record]:
    """The same of those whom the sequence was kept from (`held_out`) and the others (`treated`)."""
    rows: list[asyncpg.Record] = await connection.fetch(BOUGHT_BY_HOLDOUT, sequence_id, sorted(versions), window)
    return rows


async def credited(connection: Connection, sequence_id: SequenceId, trial: Trial) -> list[asyncpg.Record]:
    """By variant and currency what attribution credits to its opens and clicks."""
    rows: list[asyncpg.Record] = await connection.fetch(
        EARNED, sequence_id, trial.experiment.id, trial.design, trial.experiment.model
    )
    return rows


async def responded(
    connection: Connection, sequence_id: SequenceId, trial: Trial, step_id: str | None
) -> dict[str, asyncpg.Record]:
    """By variant how many people were sent something, and answered how."""
    rows = await connection.fetch(RESPONDED, sequence_id, trial.experiment.id, trial.design, step_id)
    return {row["variant"]: row for row in rows}


async def replied_within(
    connection: Connection, sequence_id: SequenceId, trial: Trial, window: object
) -> dict[str, int]:
    """By variant how many people replied within the window."""
    rows = await connection.fetch(REPLIED, sequence_id, trial.experiment.id, trial.design, window)
    return {row["variant"]: row["replied"] for row in rows}
