"""What follows from a bad report: an address that nothing is sent to, a person who wants nothing, a paused sequence."""

from datetime import datetime, timedelta

from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import EVERY_CHANNEL, Person
from services.nurture.permission import queries
from services.nurture.permission.document import POLICIES, SendingPolicy
from services.nurture.permission.domain import QUIET, UNDER_PRESSURE, Had, too_many, trouble_of, why_pause
from services.nurture.sending import turns
from shared.consents import needs_consent
from shared.db import Connection, Tx
from shared.events import MessageReported
from shared.ids import SequenceId
from shared.rules import NoSuchVersion
from shared.telemetry import counter, log

PAUSED = counter("throughline_nurture_guard_pauses_total", "Sequences paused for complaints or bounces", ["sequence"])
SUPPRESSED = counter("throughline_nurture_suppressed_total", "Addresses put on the list by reports", ["reason"])


async def on_reported(event: MessageReported, tx: Tx, parts: Parts) -> None:
    """Put on the list whom a provider says that nothing should be sent to, each report once."""
    trouble = trouble_of(event)
    if trouble is None:
        return
    connection, policy = tx.connection, await parts.policy.current(tx.connection)
    about = await queries.reported_message(connection, event.message_id) if event.message_id else None
    await people.lock_person(connection, event.lead_id)
    address = await _address_hash(connection, parts, event)
    recipient = address or event.lead_id
    if not await queries.save_trouble(connection, event, recipient, trouble, about):
        return
    match trouble:
        case "complaint":
            await _suppress(tx, event, address, "complained", EVERY_CHANNEL)
        case "hard_bounce":
            await _suppress(tx, event, address, people.BOUNCED, event.channel)
        case "soft_bounce":
            times = await queries.soft_bounces(connection, recipient, event.channel)
            if too_many(times, policy.soft_bounces.count, timedelta(days=policy.soft_bounces.days)):
                await _suppress(tx, event, address, people.BOUNCED, event.channel)
    if about is not None:
        await look_at(connection, parts, policy, about[1])


async def _suppress(tx: Tx, event: MessageReported, address: str | None, reason: str, channel: str) -> None:
    SUPPRESSED.labels(reason).inc()
    await people.suppress(tx.connection, event.lead_id, address, reason, event.occurred_at, event.origin, channel)


async def _address_hash(connection: Connection, parts: Parts, event: MessageReported) -> str | None:
    """The hash of the address that a report is about: its lead's id was made from it."""
    profile = (await people.profiles_of(connection, parts.runtime.keys, [event.lead_id])).get(event.lead_id)
    where = profile.fields.get("email" if event.channel == "email" else "phone") if profile else None
    ids = parts.runtime.ids
    made = (
        {"email": ids.of_email, "sms": ids.of_phone, "whatsapp": ids.of_phone}[event.channel](where) if where else None
    )
    return parts.addresses.hash_of(where) if where and made == event.lead_id else None


async def look_at(connection: Connection, parts: Parts, policy: SendingPolicy, sequence_id: SequenceId) -> bool:
    """Pause a sequence of unasked messages that brings too many complaints or bounces; whether it was."""
    now = await parts.present(connection)
    try:
        plan = await parts.catalogue.plan(connection, sequence_id, await queries.last_version(connection, sequence_id))
    except NoSuchVersion:
        return False
    if not needs_consent(plan.purpose):
        return False
    known = await queries.guarded(connection, sequence_id)
    since = now - timedelta(days=policy.guard.days)
    standing = await queries.standing_of(connection, sequence_id, since, known["resumed_at"] if known else None)
    reason = why_pause(policy.guard, standing)
    if reason is None or not await queries.pause(connection, sequence_id, standing, reason, now):
        return False
    PAUSED.labels(sequence_id).inc()
    log.warning("sequence_paused", sequence_id=sequence_id, complained=standing.complained, bounced=standing.bounced)
    return True


async def look_at_all(parts: Parts) -> None:
    """The same for every sequence that anything bad was heard of lately: servers refuse addresses without a report."""
    async with parts.runtime.database.transaction() as tx:
        policy = await parts.policy.current(tx.connection)
        since = await parts.present(tx.connection) - timedelta(days=policy.guard.days)
        for sequence_id in await queries.troubled_sequences(tx.connection, since):
            await look_at(tx.connection, parts, policy, sequence_id)


async def had_lately(
    connection: Connection, parts: Parts, policy: SendingPolicy, person: Person, now: datetime
) -> list[Had]:
    """What a person had unasked, under any of their ids, for as long as any limit counts it."""
    longest = max([limit.span for limit in policy.pressure.limits], default=timedelta())
    since = now - max(longest, timedelta(minutes=policy.pressure.gap_minutes))
    found = []
    (had,) = await queries.had_since(connection, [person.ids], since)
    for row in had:
        try:
            plan = await parts.catalogue.plan(connection, row.sequence_id, row.version)
        except NoSuchVersion:
            continue
        if needs_consent(plan.purpose) and row.at <= now:
            found.append(Had(row.at, row.channel, plan.name, row.step_id))
    return found


async def resume(tx: Tx, sequence_id: SequenceId, by: str, because: str, at: datetime) -> dict[str, object] | None:
    """Let a sequence go on; what happened before counts no more. None when it is not paused."""
    row = await queries.resume(tx.connection, sequence_id, at, by, because)
    if row is None:
        return None
    await turns.release_held(tx.connection, row["reason"])
    return dict(row)


async def follow_policy(parts: Parts) -> None:
    """When another policy counts, what the one before held up is looked at again."""
    async with parts.runtime.database.transaction() as tx:
        version = await POLICIES.active_version(tx.connection) or 0
        if await queries.policy_is_new(tx.connection, version):
            await queries.wake(tx.connection, QUIET, UNDER_PRESSURE)
