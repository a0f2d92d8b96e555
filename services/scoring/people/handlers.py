"""What every fact about a person has in common: find the person, lock it, change its row; or make it anew.

Whose fact it is can change while it is folded, since merges and links come from other topics. So a person is looked up,
locked, and looked up again; and whoever changes identities locks the persons concerned before they are made anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from services.scoring.engagement import queries as touch_queries
from services.scoring.engagement.domain import Day, DayKey, Engagement, EngagementRules, Touch
from services.scoring.parts import Parts
from services.scoring.people import queries
from services.scoring.people.beside import everywhere, rules_of_rows
from services.scoring.people.domain import Person, Profile, nobody, refitted, sales_of, touch_of
from services.scoring.people.histories import histories
from services.scoring.people.queries import PersonDay
from services.scoring.rules.document import RuleSet
from shared.db import Connection, Tx
from shared.events import LeadPersonal, TouchPersonal
from shared.identity import Fact, Member, hold_owners, members, owners_again, owners_seen, resolve_many
from shared.ids import EventId, LeadId


async def lock_owners(tx: Tx, parts: Parts, facts: Sequence[Fact]) -> tuple[list[LeadId], dict[LeadId, Person]]:
    """The person of each fact, and the rows of these persons, locked and made where there was none."""
    made: set[LeadId] = set()
    owners = await owners_seen(tx, facts)
    while True:
        people = await queries.lock_people(tx.connection, owners)
        absent = set(owners) - people.keys()
        if absent:
            rules = await rules_of_rows(tx.connection, parts)
            made |= await queries.make_people(tx.connection, absent, rules.version, rules.nobody)
            people |= await queries.lock_people(tx.connection, absent)
        again = await owners_again(tx, facts)
        if set(again) <= people.keys():
            break
        owners = again
    hold_owners(tx, facts)
    await queries.forget_people(tx.connection, made - set(again))
    return again, {owner: people[owner] for owner in set(again)}


async def opened_touches(
    connection: Connection, parts: Parts, rules: EngagementRules, facts: Sequence[Any]
) -> list[Touch]:
    """Touches, events or stored rows, as the rules may see them; what is personal is opened only for rules on it."""
    if not rules.reads_properties:
        return [touch_of(fact) for fact in facts]
    blocks = await parts.keys.open_many(connection, [(fact.lead_id, fact.personal) for fact in facts])
    return [
        touch_of(fact, TouchPersonal.model_validate_json(block).properties if block is not None else None)
        for fact, block in zip(facts, blocks, strict=True)
    ]


async def fold_touches(
    connection: Connection, parts: Parts, people: Mapping[LeadId, Person], owned: Mapping[LeadId, Sequence[Any]]
) -> dict[LeadId, Person]:
    """Add fresh touches to their persons' rows, each under the rules that the row was made with; answers the rows."""
    touches: dict[LeadId, list[Touch]] = {}
    rules: dict[LeadId, EngagementRules] = {}
    for person_id, facts in owned.items():
        rule_set = await parts.rules.at_version(connection, people[person_id].rules_version)
        rules[person_id] = rule_set.engagement
        if not rule_set.engagement.reads_properties:
            touches[person_id] = [touch_of(fact) for fact in facts]
        else:
            touches[person_id] = await opened_touches(connection, parts, rule_set.engagement, facts)
    wanted = [PersonDay(person_id, key) for person_id in owned for key in rules[person_id].days_of(touches[person_id])]
    days: dict[LeadId, dict[DayKey, Day]] = {}
    for place, day in (await queries.load_days(connection, wanted)).items():
        days.setdefault(place.person_id, {})[place.key] = day
    changed: dict[PersonDay, Day] = {}
    after: dict[LeadId, Person] = {}
    for person_id, fresh in touches.items():
        person = people[person_id]
        engagement, paid = rules[person_id].fold(person.engagement, days.get(person_id, {}), fresh)
        changed |= {PersonDay(person_id, key): day for key, day in paid.items()}
        after[person_id] = replace(person, engagement=engagement)
    await queries.save_engagement(connection, after.values())
    await queries.save_days(connection, changed)
    return after


async def refit(tx: Tx, parts: Parts, lead_ids: Iterable[LeadId]) -> None:
    """Make fit anew for the persons behind ids, since a profile or a consent changed."""
    concerned = sorted(set(lead_ids))
    await everywhere(tx, parts, lambda parts: _refit(tx, parts, concerned))


async def _refit(tx: Tx, parts: Parts, lead_ids: Sequence[LeadId]) -> None:
    connection = tx.connection
    _, people = await lock_owners(tx, parts, [(lead_id, None) for lead_id in lead_ids])
    versions = {person.rules_version for person in people.values()}
    rule_sets = {version: await parts.rules.at_version(connection, version) for version in versions}
    opening = any(rules.reads_personal for rules in rule_sets.values())
    profiles = await _profiles(connection, parts, sorted(people), opening=opening)
    consents = await queries.consents_of(connection, sorted(people))
    after = []
    for person_id, person in people.items():
        rules = rule_sets[person.rules_version]
        known = [profile for profile in profiles.get(person_id, []) if profile is not None]
        after.append(refitted(person, rules, known, consents.get(person_id, {})))
    await queries.save_fit(connection, after)


async def reconsider_sales(tx: Tx, parts: Parts, lead_ids: Iterable[LeadId]) -> None:
    """Sum up anew what sales made of the persons behind ids."""
    concerned = sorted(set(lead_ids))
    await everywhere(tx, parts, lambda parts: _reconsider_sales(tx, parts, concerned))


async def _reconsider_sales(tx: Tx, parts: Parts, lead_ids: Sequence[LeadId]) -> None:
    connection = tx.connection
    _, people = await lock_owners(tx, parts, [(lead_id, None) for lead_id in lead_ids])
    assignments = await queries.assignments_of(connection, sorted(people))
    deals = await queries.deals_of(connection, sorted(people))
    await queries.save_sales(
        connection,
        [
            replace(person, sales=sales_of(assignments.get(person_id, []), deals.get(person_id, [])))
            for person_id, person in people.items()
        ],
    )


async def make_anew_everywhere(tx: Tx, parts: Parts, person_ids: Iterable[LeadId]) -> None:
    """Make the rows of persons from all facts of their ids, each under its own rules."""
    concerned = sorted(set(person_ids))

    async def make(parts: Parts) -> None:
        await make_anew(tx.connection, parts, concerned, await rules_of_rows(tx.connection, parts))

    await everywhere(tx, parts, make)


async def make_anew(connection: Connection, parts: Parts, person_ids: Iterable[LeadId], rules: RuleSet) -> None:
    """Make the rows of persons from all facts of their ids, under `rules`; an id that is no person loses its row."""
    ids = sorted(set(person_ids))
    await queries.make_people(connection, ids, rules.version, rules.nobody)  # there must be a row to lock
    await queries.lock_people(connection, ids)
    await queries.forget_days(connection, ids)
    owners = await resolve_many(connection, [(lead_id, None) for lead_id in ids])
    made = await _made(connection, parts, rules, [id for id, owner in zip(ids, owners, strict=True) if id == owner])
    await queries.save_days(
        connection, {PersonDay(person.person_id, key): day for person, days in made for key, day in days.items()}
    )
    people = [person for person, _ in made]
    await queries.save_fit(connection, people)
    await queries.save_engagement(connection, people)
    await queries.save_sales(connection, people)
    await queries.forget_people(connection, set(ids) - {person.person_id for person in people})


async def _made(
    connection: Connection, parts: Parts, rules: RuleSet, person_ids: Sequence[LeadId]
) -> list[tuple[Person, dict[DayKey, Day]]]:
    """Persons out of their facts, and their limited days; those without any fact are left out."""
    profiles = await _profiles(connection, parts, person_ids, opening=rules.reads_personal)
    consents = await queries.consents_of(connection, person_ids)
    assignments = await queries.assignments_of(connection, person_ids)
    deals = await queries.deals_of(connection, person_ids)
    told = profiles.keys() | consents.keys() | assignments.keys() | deals.keys()
    folded = await _engagements(connection, parts, rules.engagement, person_ids)
    made = []
    for person_id in person_ids:
        engagement, days = folded.get(person_id, (Engagement(), {}))
        if engagement.newest is not None or person_id in told:
            sales = sales_of(assignments.get(person_id, []), deals.get(person_id, []))
            person = replace(nobody(person_id, rules), engagement=engagement, sales=sales)
            known = [profile for profile in profiles.get(person_id, []) if profile is not None]
            made.append((refitted(person, rules, known, consents.get(person_id, {})), days))
    return made


async def touches_of_person(
    connection: Connection, parts: Parts, rules: EngagementRules, person_id: LeadId, each: Callable[[list[Touch]], None]
) -> None:
    """Hand over all touches that belong to a person, in time order, page by page. Needs a transaction."""
    spans: dict[LeadId, list[Member]] = {}
    for member in await members(connection, person_id):
        spans.setdefault(member.lead_id, []).append(member)
    async for page in touch_queries.touches_of(connection, sorted(spans)):
        rows = [
            row for row in page if any(member.covers(row["occurred_at"]) for member in spans[LeadId(row["lead_id"])])
        ]
        each(await opened_touches(connection, parts, rules, [StoredTouch(row) for row in rows]))


async def person_profiles(
    connection: Connection, parts: Parts, person_ids: Sequence[LeadId]
) -> dict[LeadId, list[Profile]]:
    """The profiles of persons, opened."""
    found = await _profiles(connection, parts, person_ids, opening=True)
    return {person_id: [one for one in profiles if one is not None] for person_id, profiles in found.items()}


async def _engagements(
    connection: Connection, parts: Parts, rules: EngagementRules, person_ids: Sequence[LeadId]
) -> dict[LeadId, tuple[Engagement, dict[DayKey, Day]]]:
    """What all touches of persons come to; needs a transaction."""
    folded: dict[LeadId, tuple[Engagement, dict[DayKey, Day]]] = {}
    async for page in histories(connection, person_ids):
        touches = await opened_touches(connection, parts, rules, [StoredTouch(row) for row in page])
        of_person: dict[LeadId, list[Touch]] = {}
        for row, touch in zip(page, touches, strict=True):
            of_person.setdefault(person_ids[row["person"]], []).append(touch)
        for person_id, some in of_person.items():
            engagement, days = folded.get(person_id, (Engagement(), {}))
            engagement, changed = rules.fold(engagement, days, some)
            folded[person_id] = engagement, days | changed
    return folded


async def _profiles(
    connection: Connection, parts: Parts, person_ids: Sequence[LeadId], *, opening: bool
) -> dict[LeadId, list[Profile | None]]:
    """The profiles of persons' ids, if need be opened; None for one that was erased."""
    return await _opened(connection, parts, await queries.profile_rows(connection, person_ids), opening=opening)


async def past_profiles(
    connection: Connection, parts: Parts, person_id: LeadId, at: datetime, *, opening: bool
) -> list[Profile]:
    """The profiles of a person's ids as they were told by an instant."""
    rows = await queries.past_profile_rows(connection, person_id, at)
    found = await _opened(connection, parts, rows, opening=opening)
    return [one for one in found.get(person_id, []) if one is not None]


async def _opened(
    connection: Connection, parts: Parts, rows: Sequence[Any], *, opening: bool
) -> dict[LeadId, list[Profile | None]]:
    sealed = [(LeadId(row["lead_id"]), row["personal"] if opening else None) for row in rows]
    blocks = await parts.keys.open_many(connection, sealed)
    found: dict[LeadId, list[Profile | None]] = {}
    for row, block in zip(rows, blocks, strict=True):
        profile = Profile(
            LeadId(row["lead_id"]),
            EventId(row["event_id"]),
            row["revision"],
            row["occurred_at"],
            row["captured_at"],
            row["fields"],
            LeadPersonal.model_validate(orjson.loads(block)) if block is not None else None,
        )
        found.setdefault(LeadId(row["person_id"]), []).append(None if row["erased"] else profile)
    return found


class StoredTouch:
    """A stored touch, its columns as attributes."""

    __slots__ = ("_row",)

    def __init__(self, row: Any) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return self._row[name]
