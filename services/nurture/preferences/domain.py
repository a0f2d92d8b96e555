"""What a person wants, as the page shows it, and the words of consent that follow from what they change. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from services.nurture.people.domain import UNSUBSCRIBED, Person
from services.nurture.preferences.document import PreferencePage
from shared.consents import MARKETING, permission
from shared.events import ConsentChannel, ConsentState

_AFTER = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Row:
    """A choice on one channel. `name` is what it is sent back under."""

    purpose: str
    channel: ConsentChannel
    title: str
    on: bool

    @property
    def name(self) -> str:
        """The purpose and the channel."""
        return f"{self.purpose}.{self.channel}"


@dataclass(frozen=True, slots=True)
class Word:
    """What a person said by changing a choice; `about` is what they read."""

    purpose: str
    channel: ConsentChannel
    state: ConsentState
    at: datetime
    about: str


def reachable(person: Person) -> list[ConsentChannel]:
    """The channels by which there is a way to the person."""
    ways = {"email": person.email, "sms": person.phone, "whatsapp": person.phone}
    return [channel for channel in get_args(ConsentChannel) if ways[channel]]


def is_on(person: Person, purpose: str, channel: ConsentChannel) -> bool:
    """Whether a message of this purpose may go over this channel, as far as the person has a say in it."""
    found = permission(person.consents, channel, purpose)
    left = (each.since for each in person.suppressions if each.reason == UNSUBSCRIBED and each.concerns(channel))
    return found.allowed and all(found.since is not None and found.since > since for since in left)


def rows_of(page: PreferencePage, person: Person, language: str) -> list[Row]:
    """The choices, in the order of the page."""
    ways = reachable(person)
    return [
        Row(choice.purpose, channel, page.said(choice.titles, language), is_on(person, choice.purpose, channel))
        for choice in page.document.purposes
        for channel in choice.channels
        if channel in ways
    ]


def words_of(rows: Sequence[Row], shown_on: Collection[str], ticked: Collection[str], at: datetime) -> list[Word]:
    """What a sent page says: a word for each choice that is not as it was shown.

    Marketing decides about the other purposes of its channel as well, so where that changes each of these is said too,
    a moment later: then it counts for itself.
    """
    changed = {row.name for row in rows if (row.name in shown_on) != (row.name in ticked)}
    general = {row.channel for row in rows if row.name in changed and row.purpose == MARKETING}
    words = []
    for row in rows:
        if row.name in changed or row.channel in general:
            state: ConsentState = "granted" if row.name in ticked else "denied"
            later = row.channel in general and row.purpose != MARKETING
            words.append(Word(row.purpose, row.channel, state, at + _AFTER if later else at, row.title))
    return words
