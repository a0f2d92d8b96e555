"""Histories in which everything happens, and each table of facts as it plainly follows from the set of them.

A history is drawn as moves, small tuples that shrink well, and told by a teller of its own, so that many histories
stand beside each other in one delivery and cannot meet.
"""

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import urlsplit

from hypothesis import strategies as st

from services.attribution.channels.domain import group_touch
from shared.events import (
    ConversionRecorded,
    CostRecorded,
    DealChanged,
    Event,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    RefundRecorded,
    TouchRecorded,
)
from shared.ids import LeadId
from tests.service.attribution_facts import DAY, NOW, Teller

E = TypeVar("E", bound=Event)
Kind = Literal[
    "touch",
    "conversion",
    "refund",
    "chargeback",
    "link",
    "merge",
    "unmerge",
    "erasure",
    "profile",
    "deal",
    "rep",
    "cost",
]
KINDS: tuple[Kind, ...] = (
    *get_args(Kind),
    *("touch",) * 6,
    *("conversion",) * 3,
    *("link", "merge", "unmerge", "refund"),
)
PEOPLE, BROWSERS = ("p0", "p1", "p2"), ("b0", "b1")
SOMEBODY = (*PEOPLE, *BROWSERS)
DAYS = (0.5, 1, 1, 2, 20, 91, 100, 130)
"""Days before now: some the same, one exactly as old as counts from the conversion a day ago."""

SOLD = (1, 0, 1, 40)
CHANNELS = ("Email", "Paid Search", "Direct", None)
REFERRERS = (None, "www.google.de", "shop.example", "news.example", None)
VALUES = (100, 1, 0, 100_001)
CURRENCIES = ("EUR", "EUR", "JPY", "KWD")
COUNTRIES = ("AT", "DE", None, "CH")


class Move(NamedTuple):
    """One thing that happens: to whom, which of its kind, when, and how."""

    kind: Kind
    who: int
    which: int
    when: int
    how: int
    odd: bool


MOVES = st.builds(
    Move,
    st.sampled_from(KINDS),
    st.integers(0, 4),
    st.integers(0, 3),
    st.integers(0, 7),
    st.integers(0, 3),
    st.booleans(),
)
HISTORIES = st.lists(MOVES, min_size=2, max_size=7)


def draw_move(dice: random.Random) -> Move:
    """A move where nothing is to be shrunk."""
    return Move(
        dice.choice(KINDS),
        dice.randrange(5),
        dice.randrange(4),
        dice.randrange(8),
        dice.randrange(4),
        dice.random() < 0.5,
    )


def told(name: str, moves: Sequence[Move]) -> list[Event]:
    """The facts of a history in the order in which they were received."""
    teller = Teller(name)
    facts: list[Event] = []
    for number, move in enumerate(moves, 1):
        fact = _told(teller, number, move)
        if move.odd and move.how == 0:  # two logs may count alike
            fact = fact.model_copy(update={"position": max(1, fact.position - 1)})
        facts.append(fact)
    return facts


def _told(teller: Teller, number: int, move: Move) -> Event:  # noqa: C901  # one case for each kind
    who, day = SOMEBODY[move.who], DAYS[move.when]
    person, order = PEOPLE[move.who % 3], f"c{move.which % 2}"
    into, source = sorted([move.who % 3, (move.who % 3 + 1 + move.which % 2) % 3])
    match move.kind:
        case "touch":
            return teller.touch(
                who,
                day,
                touch_id=f"{teller.name}-{move.which}",
                channel=CHANNELS[move.how],
                source="news" if move.odd else None,
                content="for-you" if move.how % 2 else None,
                page="https://shop.example/you" if move.which % 2 else None,
                automated=move.odd and move.how == 1,
                referrer_host=REFERRERS[move.who],
                click_ids=("gclid",) if move.odd and move.who == 0 else (),
            )
        case "conversion":
            return teller.conversion(
                who,
                SOLD[move.when % 4],
                VALUES[move.how],
                external_id=order,
                currency=CURRENCIES[move.which],
                deal_id=f"{teller.name}-d0" if move.odd else None,
            )
        case "refund":
            amount = (1, 50, 5_000, 0)[move.how]
            return teller.refund(order, amount, refund_id=f"r{move.who % 2}", currency=CURRENCIES[move.when % 4])
        case "chargeback":
            return teller.refund(order, VALUES[move.how], refund_id="dispute", currency=CURRENCIES[move.when % 4])
        case "link":
            return teller.linked(BROWSERS[move.which % 2], person, day)
        case "merge":
            return teller.merged(PEOPLE[source], PEOPLE[into], day)
        case "unmerge":
            return teller.unmerged(PEOPLE[source], PEOPLE[into], day)
        case "erasure":
            forgotten = teller.erased(who)
            return forgotten.model_copy(update={"occurred_at": NOW + DAY}) if move.odd else forgotten
        case "profile":
            fact = teller.captured(person, day, revision=number)
            return fact.model_copy(update={"country": COUNTRIES[move.how], "account_id": "acme" if move.odd else None})
        case "deal":
            deal = teller.deal(f"{teller.name}-d{move.which % 2}", who, day, revision=number)
            return deal.model_copy(update={"rep_id": f"rep-{move.how}" if move.odd else None})
        case "rep":
            given = teller.assigned(person, day, f"rep-{move.how}")
            name = f"{teller.name}-a{move.which}"
            told_at = given.occurred_at  # a decision is received when it is taken
            return given.model_copy(update={"assignment_id": name, "revision": number, "received_at": told_at})
        case "cost":
            at = NOW - day * DAY
            return teller.cost(at.date(), CHANNELS[move.how] or "Other", VALUES[move.which], campaign=teller.name)


Rows = list[tuple[Any, ...]]


def tables_of(facts: Sequence[Event]) -> dict[str, Rows]:
    """The rows of each table that holds facts, as columns in the order of `COLUMNS`."""
    erased = {fact.lead_id for fact in _of(facts, LeadErased)}
    touches = _counting(_of(facts, TouchRecorded), lambda one: (one.origin, one.touch_id))
    conversions = _counting(_of(facts, ConversionRecorded), lambda one: one.conversion_id)
    refunds = _counting(_of(facts, RefundRecorded), lambda one: (one.conversion_id, one.refund_id))
    costs, _ = _counting(_of(facts, CostRecorded), lambda one: (one.date, one.channel, one.campaign, one.currency))
    known = {fact.conversion_id for fact in conversions[0]}
    only_refunded = {fact.conversion_id for fact in refunds[0]} - known
    found: dict[str, Rows] = {
        "touches": [_touch(fact, erased) for fact in touches[0]],
        "touch_versions": [_replaced(fact, erased) for fact in touches[1]],
        "conversions": [
            *(_conversion(fact) for fact in conversions[0]),
            *((of, -1, *[None] * 9) for of in only_refunded),
        ],
        "conversion_versions": [_conversion(fact) for fact in conversions[1]],
        "refunds": [_refund(fact) for fact in refunds[0]],
        "refund_versions": [_refund(fact) for fact in refunds[1]],
        "costs": [
            (one.date, one.channel, one.campaign, one.currency, one.position, one.received_at, one.amount_minor)
            for one in costs
        ],
        "deals": [
            (one.deal_id, one.revision, one.lead_id, one.opened_at, one.rep_id)
            for one in _newest(_of(facts, DealChanged), lambda one: one.deal_id)
        ],
        "deal_log": [
            (one.deal_id, one.revision, one.opened_at, one.rep_id, one.received_at) for one in _of(facts, DealChanged)
        ],
        "profile_log": [
            (one.lead_id, one.revision, one.captured_at, one.country, one.account_id, one.received_at)
            for one in _of(facts, LeadCaptured)
        ],
        "assignments": [
            (one.assignment_id, one.lead_id, one.rep_id, one.revision, one.occurred_at)
            for one in _newest(_of(facts, LeadAssigned), lambda one: one.assignment_id)
        ],
    }
    return found | _leads(facts, erased) | _identity(facts)


COLUMNS = {
    "touches": (
        "origin, touch_id, position, lead_id, occurred_at, received_at, type, channel, channel_rule, source, medium, "
        "campaign, content, page, automated, given_channel, referrer_host, click_ids, tagged"
    ),
    "conversions": (
        "conversion_id, position, origin, external_id, lead_id, type, value_minor, currency, occurred_at, received_at, "
        "deal_id"
    ),
    "refunds": "conversion_id, refund_id, position, amount_minor, currency, occurred_at, received_at",
    "costs": "day, channel, campaign, currency, position, received_at, amount_minor",
    "deals": "deal_id, revision, lead_id, opened_at, rep_id",
    "deal_log": "deal_id, revision, opened_at, rep_id, received_at",
    "profile_log": "lead_id, revision, captured_at, country, account_id, received_at",
    "assignments": "assignment_id, lead_id, rep_id, revision, assigned_at",
    "leads": "lead_id, revision, captured_at, country, account_id, erased",
    "identity_aliases": "lead_id, into_id, active, at, event_id",
    "identity_links": "anonymous_lead_id, at, lead_id",
    "identity_erased": "lead_id, at",
    "identity_log": "event_id, kind, lead_id, into_id, occurred_at, received_at",
}
COLUMNS |= {
    "touch_versions": COLUMNS["touches"],
    "conversion_versions": COLUMNS["conversions"],
    "refund_versions": COLUMNS["refunds"],
}


def _of(facts: Iterable[Event], kind: type[E]) -> list[E]:
    return [fact for fact in facts if isinstance(fact, kind)]


def _counting(facts: Iterable[E], name: Callable[[E], Hashable]) -> tuple[list[E], list[E]]:
    """Of each name the fact that counts, and those that do not."""
    named: dict[Hashable, list[E]] = {}
    for fact in sorted(facts, key=lambda fact: (fact.position, fact.received_at)):
        named.setdefault(name(fact), []).append(fact)
    return [theirs[-1] for theirs in named.values()], [fact for theirs in named.values() for fact in theirs[:-1]]


def _newest(facts: Iterable[Any], name: Callable[[Any], Hashable]) -> list[Any]:
    return list({name(fact): fact for fact in sorted(facts, key=lambda fact: fact.revision)}.values())


def _touch(fact: TouchRecorded, erased: set[LeadId]) -> tuple[Any, ...]:
    referrer = None if fact.page and fact.referrer_host == urlsplit(fact.page).hostname else fact.referrer_host
    grouping = group_touch(
        channel=fact.channel,
        source=fact.source,
        medium=fact.medium,
        campaign=fact.campaign,
        click_ids=fact.click_ids,
        referrer_host=fact.referrer_host,
        page=fact.page,
    )
    return (
        fact.origin,
        fact.touch_id,
        fact.position,
        fact.lead_id,
        fact.occurred_at,
        fact.received_at,
        fact.type,
        grouping.channel,
        grouping.rule,
        grouping.source,
        grouping.medium,
        fact.campaign,
        None if fact.lead_id in erased else fact.content,
        None if fact.lead_id in erased else fact.page,
        fact.automated,
        fact.channel,
        referrer,
        " ".join(fact.click_ids) or None,
        bool(fact.source or fact.medium),
    )


def _replaced(fact: TouchRecorded, erased: set[LeadId]) -> tuple[Any, ...]:
    """A touch that does not count any more: what it told, without what grouping makes of it."""
    row = _touch(fact, erased)
    return (*row[:7], "", "", fact.source, fact.medium, *row[11:])


def _conversion(fact: ConversionRecorded) -> tuple[Any, ...]:
    return tuple(getattr(fact, name) for name in COLUMNS["conversions"].split(", "))


def _refund(fact: RefundRecorded) -> tuple[Any, ...]:
    return tuple(getattr(fact, name) for name in COLUMNS["refunds"].split(", "))


def _leads(facts: Sequence[Event], erased: set[LeadId]) -> dict[str, Rows]:
    """Every id that any fact came with, and what is known of it."""
    named: set[LeadId] = set()
    for fact in facts:
        named.add(fact.lead_id)
        match fact:
            case LeadMerged() | LeadUnmerged():
                named.add(fact.from_lead_id)
            case IdentityLinked():
                named.add(fact.anonymous_lead_id)
    profiles = {one.lead_id: one for one in _newest(_of(facts, LeadCaptured), lambda one: one.lead_id)}
    nothing = (None, None, None, None)
    return {
        "leads": [
            (lead_id, one.revision, one.captured_at, one.country, one.account_id, lead_id in erased)
            if (one := profiles.get(lead_id))
            else (lead_id, *nothing, lead_id in erased)
            for lead_id in named - {LeadId("")}
        ]
    }


def _identity(facts: Sequence[Event]) -> dict[str, Rows]:
    joined: list[LeadMerged | LeadUnmerged] = [*_of(facts, LeadMerged), *_of(facts, LeadUnmerged)]
    newest = {one.from_lead_id: one for one in sorted(joined, key=lambda one: (one.occurred_at, one.event_id))}
    links, erasures = _of(facts, IdentityLinked), _of(facts, LeadErased)
    first_erased: dict[LeadId, datetime] = {}
    for fact in erasures:
        first_erased[fact.lead_id] = min(fact.occurred_at, first_erased.get(fact.lead_id, fact.occurred_at))
    log = [
        *(("linked", one.anonymous_lead_id, one.lead_id, one) for one in links),
        *(("merged", one.from_lead_id, one.lead_id, one) for one in _of(facts, LeadMerged)),
        *(("unmerged", one.from_lead_id, one.lead_id, one) for one in _of(facts, LeadUnmerged)),
        *(("erased", one.lead_id, None, one) for one in erasures),
    ]
    return {
        "identity_aliases": [
            (of, one.lead_id, isinstance(one, LeadMerged), one.occurred_at, one.event_id) for of, one in newest.items()
        ],
        "identity_links": list({(one.anonymous_lead_id, one.occurred_at, one.lead_id) for one in links}),
        "identity_erased": list(first_erased.items()),
        "identity_log": [
            (fact.event_id, kind, lead_id, into_id, fact.occurred_at, fact.received_at)
            for kind, lead_id, into_id, fact in log
        ],
    }
