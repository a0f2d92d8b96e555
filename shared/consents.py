"""What a person allows by channel and purpose: which word counts, and whether something may be sent. One place for all.

A word is what somebody said about one purpose on one channel. `marketing` is the purpose of everything that is sent
unasked; of the purposes in `KINDS_OF_MARKETING` somebody who allowed marketing on a channel without an explicit rule
has allowed each. Refusing `marketing` refuses every purpose but `transactional`, and refusing `all` also that one. A
later word about a purpose itself counts again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from shared.events import ConsentChannel

Standing = Literal["granted", "denied", "pending"]

MARKETING = "marketing"
TRANSACTIONAL = "transactional"
ALL = "all"
KINDS_OF_MARKETING = frozenset({"newsletter", "product_updates", "events", "surveys"})
WELL_KNOWN = (MARKETING, *sorted(KINDS_OF_MARKETING), "sales", "profiling", TRANSACTIONAL)
CHANNELS: tuple[ConsentChannel, ...] = get_args(ConsentChannel)


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """What a channel asks for. `explicit`: a purpose needs a grant of its own, marketing in general is not enough."""

    explicit: bool


RULES: Mapping[ConsentChannel, ChannelRule] = {
    "email": ChannelRule(explicit=False),
    "sms": ChannelRule(explicit=True),
    "whatsapp": ChannelRule(explicit=True),
}


@dataclass(frozen=True, slots=True)
class Consent:
    """What was said about a purpose on a channel, and since when. `pending`: asked for, and not confirmed yet."""

    channel: ConsentChannel
    state: Standing
    at: datetime
    purpose: str = MARKETING


Consents = Mapping[tuple[ConsentChannel, str], Consent]


@dataclass(frozen=True, slots=True)
class Permission:
    """Whether something may be sent, and the word that decides it."""

    allowed: bool
    state: Standing | None
    since: datetime | None
    why: str


def latest_consents(words: Iterable[Consent]) -> dict[tuple[ConsentChannel, str], Consent]:
    """The word that counts on each channel for each purpose, in whatever order they come.

    The latest counts, of two at once the refusal. That somebody was asked takes no grant back.
    """
    latest: dict[tuple[ConsentChannel, str], Consent] = {}
    asked: dict[tuple[ConsentChannel, str], Consent] = {}
    for word in words:
        known_by_kind = asked if word.state == "pending" else latest
        known = known_by_kind.get((word.channel, word.purpose))
        if known is None or _rank(known) < _rank(word):
            known_by_kind[word.channel, word.purpose] = word
    for key, word in asked.items():
        known = latest.get(key)
        if known is None or (known.state == "denied" and known.at < word.at):
            latest[key] = word
    return latest


def _rank(word: Consent) -> tuple[datetime, bool]:
    return word.at, word.state == "denied"


def permission(consents: Consents, channel: ConsentChannel, purpose: str) -> Permission:
    """Whether a message of this purpose may go over this channel, by the rules above."""
    own = consents.get((channel, purpose))
    refusal = _wider_refusal(consents, channel, purpose)
    if refusal is not None and (own is None or own.at <= refusal.at):
        about = "everything" if refusal.purpose == ALL else refusal.purpose
        return Permission(False, "denied", refusal.at, f"consent for {channel} is denied ({about})")
    if own is not None:
        return _by_word(own)
    if purpose == TRANSACTIONAL:
        return Permission(True, None, None, "transactional needs no consent, and none was refused")
    general = consents.get((channel, MARKETING))
    if general is not None and purpose in KINDS_OF_MARKETING:
        if not RULES[channel].explicit:
            return _by_word(general)
        return Permission(False, None, None, f"{channel} needs a grant for {purpose} itself")
    return Permission(False, None, None, _nobody_said(channel, purpose))


def _wider_refusal(consents: Consents, channel: ConsentChannel, purpose: str) -> Consent | None:
    """The latest refusal of more than this purpose that covers it."""
    wider = [ALL] if purpose in (MARKETING, TRANSACTIONAL) else [ALL, MARKETING]
    refusals = [
        word for each in wider if (word := consents.get((channel, each))) is not None and word.state == "denied"
    ]
    return max(refusals, key=lambda word: word.at, default=None)


def _by_word(word: Consent) -> Permission:
    about = f"for {word.channel}" if word.purpose == MARKETING else f"for {word.channel} ({word.purpose})"
    match word.state:
        case "granted":
            return Permission(True, "granted", word.at, f"consent {about} is granted")
        case "denied":
            return Permission(False, "denied", word.at, f"consent {about} is denied")
        case "pending":
            return Permission(False, "pending", word.at, f"consent {about} was asked for and is not confirmed")


def _nobody_said(channel: ConsentChannel, purpose: str) -> str:
    return f"no consent for {channel}" if purpose == MARKETING else f"no consent for {channel} ({purpose})"


def needs_consent(purpose: str) -> bool:
    """Whether messages of this purpose are sent unasked: then they also say how to be rid of them."""
    return purpose != TRANSACTIONAL


def says_about_marketing(purpose: str) -> bool:
    """Whether a word about this purpose decides about marketing, all that most rules look at."""
    return purpose in (MARKETING, ALL)


def marketing_words(consents: Consents) -> dict[ConsentChannel, Standing]:
    """What stands about marketing, by channel, where anything does: `lead.consent` of expressions and of the API."""
    said = {channel: permission(consents, channel, MARKETING).state for channel in CHANNELS}
    return {channel: state for channel, state in said.items() if state is not None}
