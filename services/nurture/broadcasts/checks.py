"""What may hold or end a message of a broadcast: a stop, its audience, its rate, and who shares an address."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.nurture.broadcasts.document import OTHER_DOMAINS, condition
from services.nurture.broadcasts.domain import (
    CANCELLED,
    LEFT,
    RATE,
    SAME_ADDRESS,
    STOP_LASTS,
    STOPPED,
    TURN_LASTS,
)
from services.nurture.broadcasts.turns import queries
from services.nurture.channels import limits
from services.nurture.channels.queries import take_number
from services.nurture.people.domain import Person
from services.nurture.sending.domain import Hold, Suppress
from services.nurture.sequences.catalogue import BROADCAST
from shared.emails import domain_of
from shared.events import ConsentChannel
from shared.ids import LeadId

if TYPE_CHECKING:  # it has these checks in its list
    from services.nurture.sending.checks import Question


async def still_wanted(question: "Question") -> Hold | Suppress | None:
    """Whether the broadcast runs and means this person still. What is claimed holds a stop up until it is committed."""
    broadcast_id, connection = question.run.sequence_id, question.connection
    if not broadcast_id.startswith(BROADCAST):
        return None
    if question.claiming:
        await question.looked.once(f"word/{broadcast_id}", lambda: queries.hold_word(connection, broadcast_id))
    standing = await _standing(question)
    if standing is None or standing.state == "stopped":
        return Hold(question.step, STOPPED, question.now + STOP_LASTS)
    if standing.state == "cancelled":
        return Suppress(question.step, CANCELLED)
    return None if _means(standing, question.person) else Suppress(question.step, LEFT)


async def _standing(question: "Question") -> queries.Standing | None:
    connection, broadcast_id = question.connection, question.run.sequence_id
    return await question.looked.once(f"broadcast/{broadcast_id}", lambda: queries.standing(connection, broadcast_id))


def _means(standing: queries.Standing, person: Person) -> bool:
    if standing.segment is not None:
        return standing.segment in person.segments
    return standing.condition is None or condition(standing.condition).holds(person.values())[0]


async def domain_share(question: "Question") -> Hold | None:
    """Hold an email whose domain has had what the broadcast gives it in a minute.

    Only what is about to leave counts: it is written, so its run stands before it.
    """
    broadcast_id, email = question.run.sequence_id, question.person.email
    about_to_leave = question.claiming and question.run.step_id == question.step.step_id
    if not broadcast_id.startswith(BROADCAST) or not about_to_leave or question.step.channel != "email":
        return None
    standing = await _standing(question)
    if standing is None or not standing.domains or email is None:
        return None
    domain = domain_of(email)
    limit = standing.domains.get(domain, standing.domains.get(OTHER_DOMAINS))
    if limit is None:
        return None
    minute, number = await take_number(question.connection, f"{broadcast_id}/{domain}")
    until = limits.turn(minute, number, limit)
    return Hold(question.step, f"{domain} gets {limit} emails of this broadcast a minute", until) if until else None


async def in_turn(question: "Question") -> Hold | Suppress | None:
    """Whether it is this message's turn by the rate; and, when it is claimed, whether nobody else has the address.

    Turns are given anew before a message is written, not under the person's lock, where each would wait for the last.
    """
    connection, run, looked = question.connection, question.run, question.looked
    if not run.sequence_id.startswith(BROADCAST):
        return None
    turns = await looked.once(f"turns/{run.sequence_id}", lambda: _turns(question))
    turn = turns.get(run.lead_id)
    if turn is not None:
        over = turn.turn_at is None or turn.turn_at < turn.now - TURN_LASTS  # it was held up meanwhile
        if over and not question.claiming:
            turn = await queries.next_turn(connection, run.sequence_id, run.lead_id, turn.interval)
        if turn.turn_at is not None and turn.turn_at > turn.now:
            return Hold(question.step, RATE, turn.turn_at)
    if not question.claiming:
        return None
    owners = await looked.once(f"addresses/{run.sequence_id}", lambda: _owners(question, turns))
    owner = owners.get(run.lead_id)
    return None if owner is None or owner in question.person.ids else Suppress(question.step, SAME_ADDRESS)


async def _turns(question: "Question") -> dict[LeadId, queries.GivenTurn]:
    ids = [each.run.lead_id for each in _of_broadcast(question)]
    return await queries.turns_of(question.connection, question.run.sequence_id, ids)


async def _owners(question: "Question", turns: Mapping[LeadId, queries.GivenTurn]) -> dict[LeadId, LeadId]:
    """Who gets it instead of whom, of those whose turn it is: the first with an address has it for themselves."""
    wanted: dict[LeadId, str] = {}
    for each in _of_broadcast(question):
        turn, address = turns.get(each.run.lead_id), address_of(each.person, each.step.channel)
        if address is not None and (turn is None or turn.turn_at is None or turn.turn_at <= turn.now):
            wanted[each.run.lead_id] = question.parts.addresses.hash_of(address)
    return await queries.reserve(question.connection, question.run.sequence_id, wanted)


def _of_broadcast(question: "Question") -> list["Question"]:
    """The messages of the same broadcast that are looked at together."""
    return [each for each in question.together if each.run.sequence_id == question.run.sequence_id]


def address_of(person: Person, channel: ConsentChannel) -> str | None:
    """Where a message reaches somebody, so that those who share that are found."""
    return person.email if channel == "email" else person.phone
