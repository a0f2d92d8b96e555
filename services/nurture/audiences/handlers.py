"""Keeping retargeting lists up: look, decide, write down, tell. What was told twice changes nothing."""

import secrets
from collections.abc import Sequence
from datetime import timedelta

from services.nurture.audiences import queries
from services.nurture.audiences.domain import Audience, Change, Entry, change, told, wanted_of
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from shared.db import Connection, Tx
from shared.events import (
    ConsentChanged,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    SegmentEntered,
    SegmentLeft,
)
from shared.identity import resolve_many
from shared.ids import LeadId, new_id
from shared.outbound import Outbound
from shared.telemetry import counter, log
from shared.webhooks import Verdict, envelope, post, signed_headers

EVENT = "throughline.audience.changed"
AT_ONCE = 1_000
CLAIM_FOR = timedelta(seconds=60)
EVERY = timedelta(seconds=15)
BREATH = timedelta(seconds=1)
LOOK_AGAIN = timedelta(hours=1)
"""After this everybody is looked at again, whatever was heard of them."""
SETTLED = timedelta(minutes=1)
"""So long a transaction may last that heard of somebody and did not see yet that they entered: whoever is looked at for
the first time is looked at again after it."""
TOLD = counter("throughline_nurture_audience_tries_total", "Tries to tell of retargeting lists", ["state"])


async def on_moved(events: Sequence[SegmentEntered | SegmentLeft], tx: Tx) -> None:
    """Who enters or leaves a segment may belong in a list, or no longer."""
    moves = [(event.lead_id, event.segment_id) for event in events if isinstance(event, SegmentEntered)]
    await queries.entered(tx.connection, moves)
    await queries.look_again(tx.connection, [event.lead_id for event in events])


async def on_heard(events: Sequence[LeadCaptured | ConsentChanged], tx: Tx) -> None:
    """What is known of people, or allowed by them, has changed."""
    await queries.look_again(tx.connection, [event.lead_id for event in events])


async def on_identity(event: LeadErased | IdentityLinked | LeadMerged | LeadUnmerged, tx: Tx) -> None:
    """Who somebody is has changed, or they are gone."""
    others = [getattr(event, name, None) for name in ("anonymous_lead_id", "from_lead_id")]
    await queries.look_again(tx.connection, [event.lead_id, *(other for other in others if other is not None)])


class Keeper:
    """Tells of changes. Several may run at once: claims keep them apart."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._claim = secrets.token_hex(8)

    async def run(self) -> timedelta | None:
        """One batch of each list that is due; answers how long until the next one is."""
        runtime = self._parts.runtime
        async with Outbound.of(runtime.settings) as outbound:
            while True:
                async with runtime.database.reading() as connection:
                    fresh = await runtime.feeds.fresh(connection, "leads", runtime.settings.fresh_within)
                    audience = await queries.claim(connection, self._claim, CLAIM_FOR) if fresh else None
                    if audience is None:
                        return await queries.next_due(connection) if fresh else EVERY
                await self._tell(audience, outbound)

    async def fill(self) -> None:
        """Look for people in the segments of lists of whom nothing was heard: a database may be an earlier copy."""
        async with self._parts.runtime.database.reading() as connection:
            await queries.fill(connection)

    async def _tell(self, audience: Audience, outbound: Outbound) -> None:
        """Tell of a batch of changes."""
        database = self._parts.runtime.database
        async with database.transaction() as tx:
            first = await queries.candidates(tx.connection, audience, LOOK_AGAIN, AT_ONCE)
            changes = await self._decide(tx.connection, audience, list(first))
            looked_ago = [LOOK_AGAIN - SETTLED if is_new else timedelta() for is_new in first.values()]
            await queries.save(tx.connection, audience.audience_id, changes, looked_ago)
            open_ones = [each for each in changes if each.add or each.remove]
            ids = [each.entry.lead_id for each in open_ones]
            add = {one for each in open_ones for one in each.add}
            remove = {one for each in open_ones for one in each.remove} - {
                one for each in changes for one in each.entry.wanted
            }
            remove -= await queries.still_wanted(tx.connection, audience.audience_id, remove, ids)
        verdict = await self._post(audience, add, remove, outbound) if add or remove else None
        async with database.transaction() as tx:
            if verdict is None or verdict.is_success:
                if changes:
                    looked_at = [each.entry.lead_id for each in changes]
                    await queries.finish(tx.connection, audience, ids, looked_at)
                success = verdict is not None
                pause = EVERY if len(changes) < AT_ONCE else timedelta() if success else BREATH
                await queries.settle(tx.connection, audience, self._claim, 0, pause, success=success)
                return
            failed = verdict.said if verdict.state == "failed" else None
            await queries.settle(
                tx.connection, audience, self._claim, audience.attempts + 1, verdict.pause or EVERY, failed=failed
            )
        if failed:
            log.error("audience_suspended", audience_id=audience.audience_id, said=failed)

    async def _decide(self, connection: Connection, audience: Audience, ids: Sequence[LeadId]) -> list[Change]:
        parts = self._parts
        owners = dict(zip(ids, await resolve_many(connection, [(one, None) for one in ids]), strict=True))
        persons = await people.load_persons(connection, parts.addresses, parts.runtime.keys, set(owners.values()))
        inside = await queries.in_segment(connection, audience.segment_id, ids)
        known = await queries.entries(connection, audience.audience_id, ids)
        return [
            change(known.get(one, Entry(one)), wanted_of(audience, persons[owners[one]], in_segment=one in inside))
            for one in ids
        ]

    async def _post(self, audience: Audience, add: set[str], remove: set[str], outbound: Outbound) -> Verdict:
        runtime = self._parts.runtime
        async with runtime.database.reading() as connection:
            now = await self._parts.present(connection)
        data = told(audience, add, remove)
        # Never the same twice: who drops a webhook by its id would miss the second time that somebody leaves.
        delivery_id = new_id()
        body = envelope(EVENT, now, data)
        secret = str(runtime.keys.open_request(audience.secret, f"audience/{audience.audience_id}")["secret"])
        headers = signed_headers(delivery_id, body, [secret], now)
        verdict = await post(outbound, audience.url, headers, body, audience.attempts + 1, delivery_id)
        TOLD.labels(verdict.state).inc()
        return verdict
