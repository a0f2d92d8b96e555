"""Credits follow from the set of facts: whatever the order, the batches and the repetitions they arrive in."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio

from services.attribution.credits.queries import COLUMNS, CreditRow
from services.attribution.domain import DIMENSIONS
from services.attribution.models.catalogue import Catalogue
from shared.db import TRANSIENT
from shared.events import Event
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller, World, random_history
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def stored_credits(service: Harness) -> list[CreditRow]:
    async with service.runtime.database.reading() as connection:
        rows = await connection.fetch(f"SELECT {COLUMNS} FROM credits ORDER BY 1, 2, 3")
    return [CreditRow(*row.values()) for row in rows]


async def stored_sums(service: Harness) -> dict[tuple[object, ...], tuple[int, int]]:
    async with service.runtime.database.reading() as connection:
        rows = await connection.fetch(
            "SELECT model, dimension, currency, day, key, units, value_minor FROM credit_days"
        )
    return {tuple(row.values())[:5]: (row["units"], row["value_minor"]) for row in rows}


def sums_of(rows: Sequence[CreditRow]) -> dict[tuple[object, ...], tuple[int, int]]:
    sums: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        for dimension in DIMENSIONS:
            cell = sums[row.model, dimension, row.currency, row.day, getattr(row, dimension)]
            cell[0] += row.units
            cell[1] += row.value_minor
    return {key: (units, value) for key, (units, value) in sums.items()}


async def expected_credits(service: Harness, facts: Sequence[Event]) -> list[CreditRow]:
    async with service.runtime.database.reading() as connection:
        models = (await Catalogue().models(connection)).values()
    return World(facts).credits(models)


def histories(seeds: range) -> list[Event]:
    return [fact for seed in seeds for fact in random_history(seed)]


def in_any_order(facts: Sequence[Event], dice: random.Random, largest: int = 150) -> Iterator[list[Event]]:
    """The facts shuffled, a third of them twice, in batches of very different sizes."""
    shuffled = [*facts, *dice.sample(facts, len(facts) // 3)]
    dice.shuffle(shuffled)
    while shuffled:
        size = dice.randrange(1, largest)
        yield shuffled[:size]
        del shuffled[:size]


async def test_any_order_with_repetitions_equals_plain_recomputation(attribution: Harness) -> None:
    facts = histories(range(10))
    for batch in in_any_order(facts, random.Random(1)):
        await attribution.deliver(*batch)
    assert await attribution.parked() == []
    expected = await expected_credits(attribution, facts)
    assert await stored_credits(attribution) == expected
    assert await stored_sums(attribution) == sums_of(expected)


async def test_consumers_at_once_miss_nothing_of_each_other(attribution: Harness) -> None:
    async def consume(batches: Iterator[list[Event]]) -> None:
        for batch in batches:
            while True:
                try:
                    await attribution.deliver(*batch)
                    break
                except TRANSIENT:  # of two that wait for each other the database ends one, and the consumer tries again
                    continue

    facts = histories(range(100, 104))
    batches = in_any_order(facts, random.Random(2), largest=12)
    await asyncio.gather(*(consume(batches) for _ in range(4)))
    expected = await expected_credits(attribution, facts)
    assert await stored_credits(attribution) == expected
    assert await stored_sums(attribution) == sums_of(expected)


def pairs(teller: Teller) -> dict[str, tuple[list[Event], Event, Event]]:
    """Facts that were taken in, and two that meet: what each alone would miss of the other."""
    hers, his = teller.conversion("nora", 1, 900), teller.conversion("otto", 1, 900)
    touch = teller.touch("third", 3)
    return {
        "touch and conversion": ([], teller.touch("nora", 3), hers),
        "conversion and touch": ([], hers, teller.touch("nora", 3)),
        "refund and conversion": (
            [],
            teller.refund("order", 5),
            teller.conversion("nora", 1, 900, external_id="order"),
        ),
        "conversion and link": ([touch], hers, teller.linked("third", "nora", 4)),
        "link and late touch": ([hers], teller.linked("third", "nora", 4), touch),
        "two merges of one": ([hers, his, touch], teller.merged("third", "nora", 2), teller.merged("third", "otto", 1)),
        "two links of one": ([hers, his, touch], teller.linked("third", "nora", 5), teller.linked("third", "otto", 4)),
        "merge and conversion": ([touch], teller.merged("third", "nora", 2), hers),
        "deal and conversion": (
            [teller.touch("nora", 5), teller.touch("nora", 3)],
            teller.deal("d", "nora", 4),
            teller.conversion("nora", 1, 900, deal_id="d"),
        ),
        "profile and conversion": (
            [teller.touch("nora", 5), teller.touch("nora", 3)],
            teller.captured("nora", 4),
            hers,
        ),
    }


@pytest.mark.parametrize("pair", pairs(Teller()))
async def test_of_two_transactions_at_once_the_second_sees_the_first(attribution: Harness, pair: str) -> None:
    before, first, second = pairs(Teller())[pair]
    await attribution.deliver(*before)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    async def is_waiting() -> bool:
        async with attribution.runtime.database.reading() as connection:
            return bool(await connection.fetchval(waiting))

    async with attribution.consumer_runtime.database.transaction() as tx:
        for route in attribution.code.routes(attribution.consumer_runtime):
            if route.event_type is type(first):
                await route.handle([first], tx)
        delivery = asyncio.create_task(attribution.deliver(second))
        await eventually(is_waiting)
    await delivery
    assert await stored_credits(attribution) == await expected_credits(attribution, [*before, first, second])


async def test_touches_of_a_lead_without_conversions_are_only_stored(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(*(teller.touch("nora", days) for days in range(50)))
    assert await stored_credits(attribution) == []
    assert len((await attribution.client.get(f"/v1/leads/{teller.lead('nora')}/journey")).json()["touches"]) == 50


async def test_projection_built_again_is_the_same(attribution: Harness) -> None:
    history = histories(range(200, 203))
    tables = ("leads", "touches", "conversions", "refunds", "deals", "credits", "credit_days")

    async def contents(service: Harness) -> dict[str, list[str]]:
        async with service.runtime.database.reading() as connection:
            return {
                table: [row[0] for row in await connection.fetch(f"SELECT {table}::text FROM {table} ORDER BY 1")]
                for table in tables
            }

    await attribution.deliver(*history)
    before = await contents(attribution)
    async with attribution.runtime.database.transaction() as tx:
        for table in (*tables, "identity_aliases", "identity_links", "inbox"):
            await tx.connection.execute(f"TRUNCATE {table}")
    for batch in in_any_order(history, random.Random(7)):
        await attribution.deliver(*batch)
    assert await contents(attribution) == before
