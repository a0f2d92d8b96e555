"""What other services tell about people, folded; and a person as a decision needs it."""

from collections.abc import Sequence
from datetime import datetime

from services.routing.people import queries
from services.routing.people.domain import Person, Profile
from shared.consents import says_about_marketing
from shared.db import Connection, Tx
from shared.events import (
    ConsentChanged,
    LeadCaptured,
    LeadErased,
    LeadPersonal,
    SegmentEntered,
    SegmentLeft,
    StageChanged,
)
from shared.identity import resolve_many
from shared.ids import LeadId
from shared.personal import PersonKeys


async def on_leads_captured(events: Sequence[LeadCaptured], tx: Tx, *, keys: PersonKeys) -> None:
    """Keep profiles, sealed. A block that will not open when it is needed is refused here."""
    newest = {event.lead_id: event for event in sorted(events, key=lambda event: event.revision)}
    for text in await keys.open_many(tx.connection, [(event.lead_id, event.personal) for event in newest.values()]):
        LeadPersonal.model_validate_json(text or b"{}")
    profiles = [
        Profile(event.lead_id, event.revision, event.captured_at, queries.profile_fields(event), event.personal)
        for event in newest.values()
    ]
    await queries.fold_profiles(tx.connection, profiles)


async def on_consents_changed(events: Sequence[ConsentChanged], tx: Tx) -> None:
    """Keep what each person says about marketing: that is what rules see."""
    about_marketing = [event for event in events if says_about_marketing(event.purpose)]
    ordered = sorted(about_marketing, key=lambda event: (event.occurred_at, event.state == "denied"))
    await queries.fold_consents(
        tx.connection, list({(event.lead_id, event.channel): event for event in ordered}.values())
    )


async def on_stages_changed(events: Sequence[StageChanged], tx: Tx) -> None:
    """Keep each lead's newest stage and scores, and the segments it moved between at that moment."""
    newest = {event.lead_id: event for event in sorted(events, key=lambda event: event.revision)}
    await queries.fold_standings(tx.connection, list(newest.values()))
    words = [(event.lead_id, one.segment_id, one.revision, one.member) for event in events for one in event.segments]
    if words:
        await queries.fold_segments(tx.connection, words)


async def on_segments_changed(events: Sequence[SegmentEntered | SegmentLeft], tx: Tx) -> None:
    """Keep who is in which segment."""
    words = [(one.lead_id, one.segment_id, one.revision, isinstance(one, SegmentEntered)) for one in events]
    await queries.fold_segments(tx.connection, words)


async def on_lead_erased(event: LeadErased, tx: Tx) -> None:
    """Forget what is personal."""
    await queries.strip_profile(tx.connection, event.lead_id)


async def person(
    connection: Connection, lead_id: LeadId, at: datetime | None = None, *, keys: PersonKeys | None = None
) -> Person:
    """The person behind a lead id; a decision about them needs `keys`, as by `people`."""
    return (await people(connection, [(lead_id, at)], keys))[0]


async def people(
    connection: Connection, leads: Sequence[tuple[LeadId, datetime | None]], keys: PersonKeys | None
) -> list[Person]:
    """The persons behind lead ids at moments, in the same order; without `keys` what is personal stays sealed.

    Raises KeysAwaited while a key is still on its way.
    """
    person_ids = await resolve_many(connection, leads)
    known = await queries.people_of(connection, list(dict.fromkeys(person_ids)), keys)
    return [known[person_id] for person_id in person_ids]
