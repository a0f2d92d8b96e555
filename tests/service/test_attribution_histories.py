"""Credits follow from the set of facts: whatever the order, the batches and the repetitions they arrive in."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import astuple
from datetime import date
from importlib import import_module

import pytest
import pytest_asyncio

from services.attribution.credits.domain import Credited
from services.attribution.credits.queries import stored
from services.attribution.domain import NOBODY, CreditingRun
from services.attribution.models.catalogue import Catalogue
from shared.db import TRANSIENT
from shared.events import Event
from shared.ids import ConversionId
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller, World
from tests.service.attribution_random import random_history
from tests.service.runtime_world import anybody_waits
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


async def crediting_runs(service: Harness) -> list[CreditingRun]:
    async with service.runtime.database.transaction() as tx:
        return await Catalogue().crediting(tx.connection)


async def stored_credits(service: Harness) -> dict[ConversionId, Credited]:
    runs = [run.run for run in await crediting_runs(service)]
    async with service.runtime.database.reading() as connection:
        ids = [row["conversion_id"] for row in await connection.fetch("SELECT conversion_id FROM paths")]
        return await stored(connection, ids, runs, {})


async def expected_credits(service: Harness, facts: Sequence[Event]) -> dict[ConversionId, Credited]:
    return World(facts).credited(await crediting_runs(service))


WITHOUT_HASH = """
run, basis, level, day, currency, conversion_type, channel, source, medium, campaign, units, value_minor
"""


async def stored_sums(service: Harness) -> dict[str, dict[tuple[object, ...], tuple[int, ...]]]:
    """The rows of the tables of sums: what the last columns come to under the others."""
    tables = {
        "combos": 1,
        "credit_sums": 2,
        "campaign_sums": 2,
        "channel_sums": 2,
        "conversion_sums": 2,
        "owner_sums": 2,
    }
    async with service.runtime.database.reading() as connection:
        rows = {
            table: await connection.fetch(f"SELECT {WITHOUT_HASH if table == 'campaign_sums' else '*'} FROM {table}")
            for table in tables
        }
    return {
        table: {tuple(row.values())[:-width]: tuple(row.values())[-width:] for row in rows[table]}
        for table, width in tables.items()
    }


def sums_of(credited: dict[ConversionId, Credited]) -> dict[str, dict[tuple[object, ...], tuple[int, ...]]]:
    """The same, computed plainly out of what every conversion comes to."""
    combos: Counter[tuple[object, ...]] = Counter({astuple(NOBODY): 0})
    units: Counter[tuple[object, ...]] = Counter()
    minor: Counter[tuple[object, ...]] = Counter()
    campaign_units: Counter[tuple[object, ...]] = Counter()
    campaign_minor: Counter[tuple[object, ...]] = Counter()
    channel_units: Counter[tuple[object, ...]] = Counter()
    channel_minor: Counter[tuple[object, ...]] = Counter()
    owners: Counter[tuple[object, ...]] = Counter()
    owner_values: Counter[tuple[object, ...]] = Counter()
    conversions: Counter[tuple[object, ...]] = Counter()
    values: Counter[tuple[object, ...]] = Counter()
    for one in credited.values():
        path = one.path
        places = [(NOBODY, path.occurred_at), *((touch.combo, touch.occurred_at) for touch in path.touches)]
        combos.update(astuple(touch.combo) for touch in path.touches)
        for level in ("day", "month"):
            owner = (path.country, path.account, path.rep)
            cell = (level, _first(path.day, level), path.currency, path.conversion_type, *owner)
            conversions[cell] += 1
            values[cell] += path.value_minor
            for name in ("country", "rep"):
                key = (name, level, _first(path.day, level), path.currency, path.conversion_type, getattr(path, name))
                owners[key] += 1
                owner_values[key] += path.value_minor
            for run, division in one.divisions.items():
                for (combo, at), part, value in zip(places, division.units, division.value_minor, strict=True):
                    for basis, day in (("c", path.day), ("t", at.date())):
                        if part or value:
                            place = (run, basis, level, _first(day, level), path.currency, path.conversion_type)
                            units[*place, combo.combo_id] += part
                            minor[*place, combo.combo_id] += value
                            told = (combo.channel, combo.source, combo.medium, combo.campaign)
                            campaign_units[*place, *told] += part
                            campaign_minor[*place, *told] += value
                            channel_units[*place, combo.channel] += part
                            channel_minor[*place, combo.channel] += value
    return {
        "combos": {key: (uses,) for key, uses in combos.items()},
        "credit_sums": {cell: (part, minor[cell]) for cell, part in units.items()},
        "campaign_sums": {cell: (part, campaign_minor[cell]) for cell, part in campaign_units.items()},
        "channel_sums": {cell: (part, channel_minor[cell]) for cell, part in channel_units.items()},
        "owner_sums": {cell: (number, owner_values[cell]) for cell, number in owners.items()},
        "conversion_sums": {cell: (number, values[cell]) for cell, number in conversions.items()},
    }


def _first(day: date, level: str) -> date:
    return day if level == "day" else day.replace(day=1)


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


OWN_MODELS = {
    "anew": {"base": "position_based", "weights": [50, 30, 20], "reset_after_conversion": True},
    "ever": {"base": "time_decay", "half_life_days": 2, "lookback_days": None},
    "week": {"base": "full_path", "lookback_days": 7, "rules": [{"when": "touch.content == 'banner'", "multiply": 3}]},
    "chain": {"base": "markov", "order": 2},
}


async def own_models(service: Harness) -> None:
    """Models with every setting that credit depends on, serving."""
    for name, document in OWN_MODELS.items():
        answer = await service.client.put(f"/v1/models/{name}", json=document)
        assert answer.status_code == 200, answer.text
    for _ in range(3):
        await service.run_timers()
    listed = (await service.client.get("/v1/models")).json()["items"]
    assert [one["model_id"] for one in listed if one["building"] or not one["serving"]] == []


async def test_any_order_with_repetitions_equals_plain_recomputation(attribution: Harness) -> None:
    await own_models(attribution)
    facts = histories(range(7))
    for batch in in_any_order(facts, random.Random(1)):
        await attribution.deliver(*batch)
    assert await attribution.parked() == []
    expected = await expected_credits(attribution, facts)
    assert await stored_credits(attribution) == expected
    kept = await stored_sums(attribution)
    assert kept == sums_of(expected)
    fill = import_module("services.attribution.migrations.versions.0014_sums_of_campaigns").FILL
    async with attribution.runtime.database.transaction() as tx:
        before = await tx.connection.fetch("DELETE FROM campaign_sums RETURNING *")
        await tx.connection.execute(fill)
        filled = await tx.connection.fetch("TABLE campaign_sums")
    assert {tuple(row) for row in filled} == {tuple(row) for row in before}


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
        "assignment and conversion": ([touch], teller.assigned("nora", 4, "rosa"), hers),
        "erasure and merge of accounts": (
            [teller.captured("nora", 4, account="acme"), hers],
            teller.erased("nora"),
            teller.account("acme", 2, merged_into="globex"),
        ),
        "merge of accounts and erasure": (
            [teller.captured("nora", 4, account="acme"), hers],
            teller.account("acme", 2, merged_into="globex"),
            teller.erased("nora"),
        ),
        "merge of accounts and profile": (
            [teller.erased("nora"), hers],
            teller.account("acme", 2, merged_into="globex"),
            teller.captured("nora", 4, account="acme"),
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
    async with attribution.consumer_runtime.database.transaction() as tx:
        for route in attribution.code.routes(attribution.consumer_runtime):
            if route.event_type is type(first):
                await route.handle([first], tx)
        delivery = asyncio.create_task(attribution.deliver(second))
        await eventually(lambda: anybody_waits(attribution.runtime.database))
    await delivery
    assert await stored_credits(attribution) == await expected_credits(attribution, [*before, first, second])


async def test_touches_of_a_lead_without_conversions_are_only_stored(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(*(teller.touch("nora", days) for days in range(50)))
    assert await stored_credits(attribution) == {}
    assert len((await attribution.client.get(f"/v1/leads/{teller.lead('nora')}/journey")).json()["touches"]) == 50


async def test_projection_built_again_is_the_same(attribution: Harness) -> None:
    history = histories(range(200, 203))
    tables = (
        *("leads", "touches", "conversions", "refunds", "deals", "assignments"),
        *("paths", "credits", "credit_sums", "campaign_sums", "channel_sums", "conversion_sums", "combos"),
    )

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
        await tx.connection.execute("INSERT INTO combos VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0)", *astuple(NOBODY))
    for batch in in_any_order(history, random.Random(7)):
        await attribution.deliver(*batch)
    assert await contents(attribution) == before


async def test_f31_what_is_parked_of_a_lead_that_is_merged_counts_for_the_survivor_once_it_is_carried_out(
    attribution: Harness,
) -> None:
    teller = Teller()
    broken = teller.conversion("otto", 5, 2**70)
    waiting: list[Event] = [teller.touch("otto", 6), teller.conversion("otto", 2, 500)]
    rest: list[Event] = [teller.touch("nora", 4), teller.conversion("nora", 1, 900), teller.merged("otto", "nora", 3)]
    chain: list[Event] = [teller.merged("nora", "mia", 2)]
    late: list[Event] = [teller.touch("otto", 1.5), teller.touch("nora", 1.2)]
    await attribution.deliver(broken)
    await attribution.deliver(*waiting)
    await asyncio.gather(attribution.deliver(*rest), attribution.deliver(*chain))
    await attribution.deliver(*late)
    assert [row["event_id"] for row in await attribution.parked()] == [
        each.event_id for each in (broken, *waiting, late[0])
    ]
    seen = [*rest, *chain, late[1]]
    assert await stored_credits(attribution) == await expected_credits(attribution, seen)
    assert await attribution.discard_parked(broken)
    assert await attribution.parked() == []
    expected = await expected_credits(attribution, [*seen, *waiting, late[0]])
    assert await stored_credits(attribution) == expected
    assert await stored_sums(attribution) == sums_of(expected)
