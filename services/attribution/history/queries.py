"""The statements about what was told, and when it was received."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from services.attribution.accounts.queries import KEPT_ACCOUNT
from services.attribution.channels.groupings import ChannelGrouping
from services.attribution.channels.queries import traffic_in
from services.attribution.conversions.queries import CONVERSION_COLUMNS, REFUND_COLUMNS
from services.attribution.domain import Conversion, Touch
from services.attribution.history.told import (
    AssignmentTold,
    ConversionTold,
    DealTold,
    IdentityTold,
    ProfileTold,
    RefundTold,
    Told,
    TouchTold,
    WithdrawalTold,
)
from services.attribution.journeys.queries import TOUCH_COLUMNS, touch_of
from shared.db import Connection
from shared.events import DealChanged, LeadCaptured
from shared.identity import Member
from shared.ids import ConversionId, LeadId

MOST_TOUCHES = 10_000
MOST_IDS = 1_000

PUT_IDENTITY = """
INSERT INTO identity_log (event_id, kind, lead_id, into_id, occurred_at, received_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
ON CONFLICT DO NOTHING
"""
PUT_PROFILES = """
INSERT INTO profile_log (lead_id, revision, captured_at, country, account_id, received_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::timestamptz[])
ON CONFLICT DO NOTHING
"""
PUT_DEALS = """
INSERT INTO deal_log (deal_id, revision, opened_at, rep_id, received_at)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::timestamptz[])
ON CONFLICT DO NOTHING
"""
# Up: whoever the conversion's ids ever led to; down: whose facts ever were theirs. A browser that several shared leads
# down only, so that it does not lead to all of them.
EVERYONE = """
WITH RECURSIVE up AS (
    SELECT id FROM unnest($1::text[]) AS id
    UNION
    SELECT log.into_id FROM up JOIN identity_log AS log ON log.lead_id = up.id AND log.kind IN ('linked', 'merged')
), down AS (
    SELECT id FROM up
    UNION
    SELECT log.lead_id FROM down JOIN identity_log AS log ON log.into_id = down.id AND log.kind IN ('linked', 'merged')
)
SELECT id FROM down LIMIT $2
"""
IDENTITY = """
SELECT event_id, kind, lead_id, into_id, occurred_at, received_at FROM identity_log WHERE lead_id = ANY($1)
"""
CONVERSION_VERSIONS = f"""
SELECT {", ".join(CONVERSION_COLUMNS)} FROM conversions WHERE conversion_id = $1 AND lead_id IS NOT NULL
UNION ALL SELECT {", ".join(CONVERSION_COLUMNS)} FROM conversion_versions WHERE conversion_id = $1
"""
CONVERSIONS_TOLD = f"""
WITH named AS (
    SELECT conversion_id FROM conversions WHERE lead_id = ANY($1)
    UNION SELECT conversion_id FROM conversion_versions WHERE lead_id = ANY($1)
)
SELECT {", ".join(CONVERSION_COLUMNS)} FROM conversions JOIN named USING (conversion_id)
UNION ALL SELECT {", ".join(CONVERSION_COLUMNS)} FROM conversion_versions JOIN named USING (conversion_id)
"""
REFUNDS_TOLD = f"""
SELECT {", ".join(REFUND_COLUMNS)} FROM refunds WHERE conversion_id = $1
UNION ALL SELECT {", ".join(REFUND_COLUMNS)} FROM refund_versions WHERE conversion_id = $1
"""
# A version that belonged here brings all versions of its name, wherever they belong.
TOUCHES_TOLD = f"""
WITH named AS (
    SELECT touch_id, origin FROM touches
    WHERE lead_id = ANY($1) AND occurred_at <= $3 AND ($2::timestamptz IS NULL OR occurred_at >= $2)
    UNION SELECT touch_id, origin FROM touch_versions
    WHERE lead_id = ANY($1) AND occurred_at <= $3 AND ($2::timestamptz IS NULL OR occurred_at >= $2)
    LIMIT $4
)
SELECT {", ".join(TOUCH_COLUMNS)} FROM touches JOIN named USING (touch_id, origin)
UNION ALL SELECT {", ".join(TOUCH_COLUMNS)} FROM touch_versions JOIN named USING (touch_id, origin)
"""
WITHDRAWALS = """
SELECT origin, touch_id, reason, received_at FROM withdrawals
JOIN unnest($1::text[], $2::text[]) AS named (origin, touch_id) USING (origin, touch_id)
"""
TIED = "SELECT DISTINCT lead_id FROM identity_log WHERE into_id = ANY($1) AND kind IN ('linked', 'merged')"
OF_IDS = f"""
SELECT {", ".join(TOUCH_COLUMNS)} FROM touches
WHERE lead_id = ANY($1) AND occurred_at <= $3 AND ($2::timestamptz IS NULL OR occurred_at >= $2)
ORDER BY occurred_at DESC, touch_id LIMIT $4
"""
REPLACED = f"""
SELECT {", ".join(TOUCH_COLUMNS)} FROM touch_versions
WHERE lead_id = ANY($1) AND occurred_at <= $3 AND ($2::timestamptz IS NULL OR occurred_at >= $2)
ORDER BY occurred_at DESC, touch_id, position LIMIT $4
"""
PROFILES_TOLD = f"""
SELECT lead_id, told.revision, told.captured_at, told.country, {KEPT_ACCOUNT.format(account="told.account_id")},
    told.received_at
FROM profile_log AS told JOIN leads USING (lead_id) WHERE lead_id = ANY($1)
"""
DEALS_TOLD = "SELECT deal_id, revision, opened_at, rep_id, received_at FROM deal_log WHERE deal_id = ANY($1)"
ASSIGNMENTS_TOLD = """
SELECT assignment_id, lead_id, revision, rep_id, assigned_at FROM assignments WHERE lead_id = ANY($1)
"""


async def put_identity(connection: Connection, rows: Sequence[IdentityTold]) -> None:
    """Write down identity facts; the same one again changes nothing."""
    await connection.execute(PUT_IDENTITY, *(list(column) for column in zip(*sorted(rows), strict=True)))


async def put_profiles(connection: Connection, events: Sequence[LeadCaptured]) -> None:
    """Write down revisions of profiles; the same one again changes nothing."""
    ordered = sorted(events, key=lambda event: (event.lead_id, event.revision))
    await connection.execute(
        PUT_PROFILES,
        [event.lead_id for event in ordered],
        [event.revision for event in ordered],
        [event.captured_at for event in ordered],
        [event.country for event in ordered],
        [event.account_id for event in ordered],
        [event.received_at for event in ordered],
    )


async def put_deals(connection: Connection, events: Sequence[DealChanged]) -> None:
    """Write down revisions of deals; the same one again changes nothing."""
    ordered = sorted(events, key=lambda event: (event.deal_id, event.revision))
    await connection.execute(
        PUT_DEALS,
        [event.deal_id for event in ordered],
        [event.revision for event in ordered],
        [event.opened_at for event in ordered],
        [event.rep_id for event in ordered],
        [event.received_at for event in ordered],
    )


async def versions_of(connection: Connection, conversion_id: ConversionId) -> list[ConversionTold]:
    """Every version of a conversion, the one that counts among them."""
    return [_conversion(row) for row in await connection.fetch(CONVERSION_VERSIONS, conversion_id)]


async def everyone(connection: Connection, lead_ids: Iterable[LeadId]) -> list[LeadId]:
    """The ids whose facts ever belonged, or could have, to whoever these ids ever led to; at most so many."""
    return [row["id"] for row in await connection.fetch(EVERYONE, sorted(set(lead_ids)), MOST_IDS + 1)]


async def told_of(
    connection: Connection,
    conversion_id: ConversionId,
    lead_ids: Sequence[LeadId],
    span: tuple[datetime | None, datetime],
    grouping: ChannelGrouping,
) -> list[Told] | None:
    """All that was told of a conversion and of these ids, of touches those within a span, both ends included.

    None when it is more than can be gone through.
    """
    touches = await connection.fetch(TOUCHES_TOLD, lead_ids, *span, MOST_TOUCHES + 1)
    if len(lead_ids) > MOST_IDS or len(touches) > MOST_TOUCHES:
        return None
    names = sorted({(row["origin"], row["touch_id"]) for row in touches})
    withdrawn = await connection.fetch(WITHDRAWALS, [origin for origin, _ in names], [name for _, name in names])
    conversions = [_conversion(row) for row in await connection.fetch(CONVERSIONS_TOLD, lead_ids)]
    deal_ids = {told.conversion.deal_id for told in conversions if told.conversion.conversion_id == conversion_id} - {
        None
    }
    return [
        *(IdentityTold(*row.values()) for row in await connection.fetch(IDENTITY, lead_ids)),
        *(TouchTold(row["lead_id"], row["position"], _as_told(row, grouping)) for row in touches),
        *(WithdrawalTold(*row.values()) for row in withdrawn),
        *conversions,
        *(RefundTold(*list(row.values())[1:]) for row in await connection.fetch(REFUNDS_TOLD, conversion_id)),
        *(ProfileTold(*row.values()) for row in await connection.fetch(PROFILES_TOLD, lead_ids)),
        *(DealTold(*row.values()) for row in await connection.fetch(DEALS_TOLD, sorted(filter(None, deal_ids)))),
        *(AssignmentTold(*row.values()) for row in await connection.fetch(ASSIGNMENTS_TOLD, lead_ids)),
    ]


async def nearby(
    connection: Connection, members: Sequence[Member], span: tuple[datetime | None, datetime], limit: int
) -> list[TouchTold]:
    """The touches of ids that were ever tied to a person's, and are not all the person's; the newest first."""
    rows = await connection.fetch(TIED, [member.lead_id for member in members])
    whole = {member.lead_id for member in members if member.since is None and member.until is None}
    shared = ({row["lead_id"] for row in rows} | {member.lead_id for member in members}) - whole
    found = await connection.fetch(OF_IDS, sorted(shared), *span, limit)
    return [TouchTold(row["lead_id"], row["position"], touch_of(row)) for row in found]


async def replaced(
    connection: Connection,
    lead_ids: Sequence[LeadId],
    span: tuple[datetime | None, datetime],
    grouping: ChannelGrouping,
    limit: int,
) -> list[Touch]:
    """What was told of touches of these ids before a correction, the newest first."""
    return [_touch(row, grouping) for row in await connection.fetch(REPLACED, lead_ids, *span, limit)]


def _touch(row: asyncpg.Record, grouping: ChannelGrouping) -> Touch:
    """A touch as it counts, or one that does not any more, grouped as those that count are."""
    touch = touch_of(row)
    if touch.channel:
        return touch
    found = grouping.group(traffic_in(row))
    return replace(touch, channel=found.channel, channel_rule=found.rule, source=found.source, medium=found.medium)


def _as_told(row: asyncpg.Record, grouping: ChannelGrouping) -> Touch:
    """A touch without what a withdrawal made of it."""
    touch = _touch(row, grouping)
    return replace(touch, automated=False, automated_reason=None) if row["withdrawn"] else touch


def _conversion(row: asyncpg.Record) -> ConversionTold:
    fields = dict(row)
    return ConversionTold(fields.pop("position"), Conversion(**fields))
