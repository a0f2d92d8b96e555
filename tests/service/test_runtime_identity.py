"""Who is whom: the same answer whatever the order of facts, from ids to persons and back."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from shared.db import Tx
from shared.events import Event, IdentityLinked, LeadErased, LeadMerged, LeadUnmerged
from shared.identity import (
    Fact,
    LeadIds,
    find_by_email,
    hold_owners,
    identity_routes,
    members,
    owners_again,
    owners_seen,
    resolve,
    resolve_many,
)
from shared.ids import EventId, LeadId
from shared.secrets import Secrets
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.runtime_world import code, execute, fetch

START = datetime(2026, 11, 1, tzinfo=UTC)
PEOPLE = [LeadId(f"person-{name}") for name in "abcde"]
BROWSERS = [LeadId(f"browser-{name}") for name in "xyz"]
Change = IdentityLinked | LeadMerged | LeadUnmerged


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def merged(from_id: LeadId, into: LeadId, hours: float, kind: type[LeadMerged | LeadUnmerged] = LeadMerged) -> Change:
    event_id = EventId(f"{kind.__name__}-{from_id}-{into}-{hours}")
    times = {"occurred_at": at(hours), "received_at": at(hours)}
    return kind(event_id=event_id, lead_id=into, from_lead_id=from_id, **times)  # type: ignore[arg-type]  # by name


def linked(browser: LeadId, person: LeadId, hours: float) -> Change:
    event_id = EventId(f"linked-{browser}-{person}-{hours}")
    return IdentityLinked(
        event_id=event_id, lead_id=person, anonymous_lead_id=browser, occurred_at=at(hours), received_at=at(hours)
    )


async def forget_all(service: Harness) -> None:
    for table in ("identity_aliases", "identity_links", "inbox"):
        await execute(service.runtime.database, f"DELETE FROM {table}")


def person_of(history: Sequence[Change], lead_id: LeadId, moment: datetime) -> LeadId:
    """The definition, worked out from the whole history at once."""
    links = sorted(
        (change.occurred_at, change.lead_id)
        for change in history
        if isinstance(change, IdentityLinked) and change.anonymous_lead_id == lead_id
    )
    earlier = [person for when, person in links if when <= moment]
    here = earlier[-1] if earlier else links[0][1] if links else lead_id
    while True:
        said = [
            (change.occurred_at, change.event_id, change)
            for change in history
            if not isinstance(change, IdentityLinked) and change.from_lead_id == here
        ]
        newest = max(said)[2] if said else None
        if not isinstance(newest, LeadMerged):
            return here
        here = newest.lead_id


def some_history(seed: int) -> list[Change]:
    """Merges that never form a ring, as capture's rule of the survivor sees to, some undone; links of all kinds."""
    chance = random.Random(seed)
    history: list[Change] = []
    for hour in range(chance.randint(1, 12)):
        low, high = sorted(chance.sample(range(len(PEOPLE)), 2))
        if chance.random() < 0.5:
            history.append(linked(chance.choice(BROWSERS), chance.choice(PEOPLE), hour))
        else:
            kind = LeadMerged if chance.random() < 0.7 else LeadUnmerged
            history.append(merged(PEOPLE[high], PEOPLE[low], hour, kind))
    return history


async def test_the_same_persons_in_any_order_of_facts_and_back_to_the_same_ids(settings: Settings) -> None:
    moments = [at(hours - 0.5) for hours in range(14)]
    facts = [(lead_id, moment) for lead_id in PEOPLE + BROWSERS for moment in moments]
    async with harness(code(*identity_routes()), settings) as service:
        for seed in range(15):
            history = some_history(seed)
            expected = [person_of(history, *fact) for fact in facts]
            for order in range(2):
                await forget_all(service)
                told = history + history[:2]
                random.Random(order).shuffle(told)
                for cut in range(0, len(told), 3):
                    await service.deliver(*told[cut : cut + 3])
                async with service.runtime.database.reading() as connection:
                    assert await resolve_many(connection, facts) == expected, history
                    for person in {owner for owner in expected if owner in PEOPLE}:
                        spans = await members(connection, person)
                        theirs = [
                            (lead_id, moment)
                            for lead_id, moment in facts
                            if any(span.lead_id == lead_id and span.covers(moment) for span in spans)
                        ]
                        owned = zip(facts, expected, strict=True)
                        assert theirs == [fact for fact, owner in owned if owner == person], history


async def test_who_an_id_is_stays_as_seen_until_looked_at_again_and_as_held_until_the_transaction_changes_it(
    settings: Settings,
) -> None:
    ann, bob, browser = PEOPLE[0], PEOPLE[1], BROWSERS[0]
    facts: list[Fact] = [(bob, None), (browser, at(1))]
    alias = "INSERT INTO identity_aliases (lead_id, into_id, active, at, event_id) VALUES ($1, $2, true, $3, 'told')"
    link = "INSERT INTO identity_links (anonymous_lead_id, at, lead_id) VALUES ($1, $2, $3)"
    async with (
        harness(code(*identity_routes()), settings) as service,
        service.runtime.database.transaction() as tx,
    ):
        assert await owners_seen(tx, facts) == [bob, browser]
        await tx.connection.execute(link, browser, at(0), ann)  # as if another had committed it
        assert await owners_seen(tx, facts) == [bob, browser]
        assert await owners_again(tx, facts) == [bob, ann]
        hold_owners(tx, facts)
        await tx.connection.execute(link, browser, at(0.5), PEOPLE[2])
        await tx.connection.execute(alias, bob, ann, at(0))
        assert await owners_again(tx, facts) == [bob, PEOPLE[2]], "only who an id without links is can be held"
        for route in identity_routes():
            if route.event_type is LeadMerged:
                await route.handle([merged(bob, PEOPLE[3], 2)], tx)
        assert await owners_seen(tx, facts) == [PEOPLE[3], PEOPLE[2]]


async def test_a_shared_browser_melts_nobody(settings: Settings) -> None:
    ann, bob, browser = PEOPLE[0], PEOPLE[1], BROWSERS[0]
    async with harness(code(*identity_routes()), settings) as service:
        await service.deliver(linked(browser, bob, 20), linked(browser, ann, 10))
        async with service.runtime.database.reading() as connection:
            when = [(browser, at(hours)) for hours in (1, 10, 19.9, 20, 99)]
            assert await resolve_many(connection, when) == [ann, ann, ann, bob, bob]
            assert await resolve(connection, browser) == bob
            assert await resolve(connection, ann) == ann


async def test_who_comes_back_after_an_erasure_is_somebody_new(settings: Settings) -> None:
    ids = LeadIds(Secrets(settings.secret.get_secret_value()))
    ann = "ann@example.com"
    async with harness(code(*identity_routes()), settings) as service:
        for generation in range(3):
            known_as = ids.of_email(ann, generation)
            async with service.runtime.database.reading() as connection:
                assert await find_by_email(connection, ids, ann) == known_as
            gone = LeadErased(
                event_id=EventId(f"erased-{generation}"), lead_id=known_as, occurred_at=START, received_at=START
            )
            await service.deliver(gone)


@pytest.mark.parametrize("first_in", [0, 1])
async def test_two_changes_of_one_id_at_once_miss_nothing(settings: Settings, first_in: int) -> None:
    a, b, c = PEOPLE[2], PEOPLE[1], PEOPLE[0]
    changes: list[Event] = [merged(a, b, 1), merged(b, c, 2)]
    first, second = changes[first_in], changes[1 - first_in]
    holding, go_on = asyncio.Event(), asyncio.Event()
    affected: dict[str, set[LeadId]] = {}

    async def on_change(event: Change, _tx: Tx, persons: set[LeadId]) -> None:
        affected[event.event_id] = persons
        if event.event_id == first.event_id:
            holding.set()
            await go_on.wait()

    async with harness(code(*identity_routes(on_change)), settings) as service:

        async def waits() -> bool:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
            return bool(await fetch(service.runtime.database, waiting))

        one = asyncio.create_task(service.deliver(first))
        await holding.wait()
        other = asyncio.create_task(service.deliver(second))
        await eventually(waits)
        go_on.set()
        await asyncio.gather(one, other)
        async with service.runtime.database.reading() as connection:
            assert await resolve_many(connection, [(a, None), (b, None)]) == [c, c]
    assert c in affected[second.event_id]
