"""Test sends: a broadcast's message to given addresses, marked as a test, in no ledger and counted nowhere."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.nurture.broadcasts.document import STEP
from services.nurture.broadcasts.queries import Broadcast
from services.nurture.channels.channel import CannotWrite, Channel, Order
from services.nurture.errors import NoProvider, NoSuchLead
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import UNSUBSCRIBED, Person
from services.nurture.sequences.domain import Plan, SendStep, compile_plan
from shared.db import Connection
from shared.events import ConsentChannel
from shared.identity import resolve
from shared.ids import LeadId, MessageId, new_id
from shared.smtp import Outcome


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a test at one address."""

    to: str
    state: str
    reason: str | None


async def person_to_fill_in(
    connection: Connection, parts: Parts, lead_id: str | None, imagined: Mapping[str, Any]
) -> Person:
    """Whose fields the message is filled with: a real lead, or one that is imagined. Raises NoSuchLead."""
    if lead_id is None:
        return Person(LeadId("imagined"), (), dict(imagined), {}, None)
    person_id = await resolve(connection, LeadId(lead_id))
    person = await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id)
    if not person.known or person.erased:
        raise NoSuchLead(f"nothing is known of a lead {lead_id}")
    return person


async def try_out(
    parts: Parts, channels: Mapping[ConsentChannel, Channel], broadcast: Broadcast, person: Person, to: Sequence[str]
) -> list[Tried]:
    """Send the message to each address, all at once. Raises NoProvider."""
    plan = compile_plan(broadcast.broadcast_id, 1, broadcast.document.as_sequence())
    step = plan.steps[STEP]
    assert isinstance(step, SendStep)
    channel = channels.get(step.channel)
    if channel is None:
        raise NoProvider(f"set up a provider for {step.channel}: set SMTP_URL for email")
    return list(await asyncio.gather(*(_try(parts, channel, plan, step, person, address) for address in to)))


async def _try(  # noqa: PLR0913  # what a message is made of
    parts: Parts, channel: Channel, plan: Plan, step: SendStep, person: Person, address: str
) -> Tried:
    if ("@" in address) != (step.channel == "email"):
        return Tried(address, "failed", f"this is no address that {step.channel} goes to")
    async with parts.runtime.database.reading() as connection:
        email, phone = (address, None) if "@" in address else (None, address)
        listed = await people.suppressions_of(connection, parts.addresses.hashes_of(email, phone))
    if barred := next((one.reason for one in listed if one.reason != UNSUBSCRIBED), None):
        return Tried(address, "suppressed", f"suppressed: {barred}")
    reader = replace(person, fields={**person.fields, "email" if "@" in address else "phone": address})
    try:
        draft = await channel.write(Order(MessageId(new_id()), plan, step, reader, trial=True))
    except CannotWrite as exc:
        return Tried(address, "failed", str(exc))
    outcome: Outcome = await channel.deliver(draft, lambda: True)
    return Tried(address, "failed" if outcome.state == "planned" else outcome.state, outcome.reason)
