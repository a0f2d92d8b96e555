"""A person with a great many touches and conversions: credited piece by piece, with nobody held up."""

import random
import signal
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.credits import crediting
from services.attribution.credits import queries as written
from services.attribution.credits.domain import Credited, credit
from services.attribution.debts import handlers, queries
from services.attribution.debts.handlers import PIECE, pay_debts
from services.attribution.models.catalogue import Catalogue
from shared.db import Connection
from shared.events import Event
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller
from tests.service.test_attribution_histories import (
    expected_credits,
    histories,
    in_any_order,
    stored_credits,
    stored_sums,
    sums_of,
)
from tests.service.test_attribution_runs import worker
from throughline.services import service_code

TOUCHES, CONVERSIONS = 60, 20


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


@pytest.fixture
def _little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crediting, "AT_ONCE", 200)
    monkeypatch.setattr(handlers, "PIECE", 200)


def a_great_many(teller: Teller, conversions: int = CONVERSIONS) -> tuple[list[Event], list[Event]]:
    """The touches and the conversions of one person; each conversion is in the window of every touch."""
    touches = [teller.touch("big", 80 - place / TOUCHES, channel=None) for place in range(TOUCHES)]
    return [*touches], [teller.conversion("big", 70 - place / conversions, 999 + place) for place in range(conversions)]


async def owed(service: Harness) -> int:
    async with service.runtime.database.reading() as connection:
        return len(await queries.owed(connection, 10_000))


async def settle(service: Harness) -> None:
    assert service.code.settle is not None
    await service.code.settle(service.consumer_runtime)


async def assert_follows(service: Harness, facts: list[Event]) -> None:
    expected = await expected_credits(service, facts)
    assert await stored_credits(service) == expected
    assert await stored_sums(service) == sums_of(expected)


@pytest.mark.usefixtures("_little_at_once")
async def test_what_is_too_much_for_a_batch_is_credited_in_pieces(attribution: Harness) -> None:
    teller = Teller()
    touches, conversions = a_great_many(teller)
    other = [teller.touch("ann", 3), teller.conversion("ann", 2, 500)]
    await attribution.deliver(*touches)
    await attribution.deliver(*conversions, *other)
    assert await stored_credits(attribution) == await expected_credits(attribution, other)
    database, catalogue = attribution.consumer_runtime.database, Catalogue()
    left = [await owed(attribution)]
    while await pay_debts(database, catalogue) is not None:
        left.append(await owed(attribution))
    a_piece = 200 // (TOUCHES + 1)
    assert left == [*range(CONVERSIONS, 0, -a_piece), 0]
    await assert_follows(attribution, [*touches, *conversions, *other])


@pytest.mark.usefixtures("_little_at_once")
async def test_many_changes_in_one_batch_are_bounded_together(attribution: Harness) -> None:
    teller = Teller()
    touches, _ = a_great_many(teller)
    sold = [teller.conversion("big", 70, 100), teller.conversion("big", 69, 100)]  # two at once are within the means
    links: list[Event] = [teller.linked(f"browser-{place}", "big", 90) for place in range(3)]
    await attribution.deliver(*touches, *sold)
    assert await owed(attribution) == 0
    await attribution.deliver(*links)
    assert await owed(attribution) == len(sold)
    await settle(attribution)
    assert await owed(attribution) == 0
    await assert_follows(attribution, [*touches, *sold, *links])


@pytest.mark.usefixtures("_little_at_once")
async def test_a_late_touch_owes_only_what_it_may_have_led_to(attribution: Harness) -> None:
    teller = Teller()
    touches, conversions = a_great_many(teller)
    await attribution.deliver(*touches, *conversions)
    await settle(attribution)
    between = teller.touch("big", 70 - 17.5 / CONVERSIONS)
    await attribution.deliver(between)
    assert await owed(attribution) == 0, "the last two conversions are within the means of a batch"
    after_all = teller.touch("big", 1)
    await attribution.deliver(after_all)
    early = teller.touch("big", 75)
    await attribution.deliver(early)
    assert await owed(attribution) == CONVERSIONS
    await settle(attribution)
    await assert_follows(attribution, [*touches, *conversions, between, after_all, early])


async def test_touches_of_machines_cost_nothing(attribution: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crediting, "AT_ONCE", 10)
    teller = Teller()
    robot = [teller.touch("big", 80 - place / TOUCHES, automated=True) for place in range(TOUCHES)]
    sold = teller.conversion("big", 70, 100)
    await attribution.deliver(*robot, sold)
    assert await owed(attribution) == 0
    await assert_follows(attribution, [*robot, sold])


@pytest.mark.usefixtures("_little_at_once")
async def test_who_asks_meanwhile_is_told_so(attribution: Harness) -> None:
    teller = Teller()
    touches, conversions = a_great_many(teller)
    await attribution.deliver(*touches, *conversions)
    explain = f"/v1/conversions/{teller.conversion_id('c' + str(TOUCHES + 1))}/explain"
    assert (await attribution.client.get(explain)).status_code == 503
    await settle(attribution)
    assert (await attribution.client.get(explain)).json()["counted"] == TOUCHES


@pytest.mark.usefixtures("_little_at_once")
@pytest.mark.parametrize("asked", ["attribution?model=linear", "attribution?model=markov", "paths", "cohorts"])
async def test_no_report_claims_to_hold_what_is_owed(attribution: Harness, asked: str) -> None:
    async def read_until(minute: int) -> str:
        at = datetime(2026, 7, 1, 12, minute, tzinfo=UTC)
        async with attribution.runtime.database.transaction() as tx:
            await tx.connection.execute("DELETE FROM feed_watermarks")
            await tx.connection.execute("INSERT INTO feed_watermarks VALUES ('touches', 0, 'capture', $1, 0)", at)
        return at.isoformat().replace("+00:00", "Z")

    async def as_of() -> str:
        answer = await attribution.client.get(f"/v1/reports/{asked}")
        return str(answer.raise_for_status().json()["as_of"])

    touches, conversions = a_great_many(Teller())
    before = await read_until(1)
    await attribution.deliver(*touches, *conversions)
    after = await read_until(2)
    assert await as_of() == before
    await settle(attribution)
    assert await as_of() == after


async def test_others_have_their_turn_and_the_transaction_is_used_while_long_paths_are_credited(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = threading.Event()

    async def stay_awake(connection: Connection) -> None:
        await awake(connection)
        used.set()

    def credited(*arguments: Any) -> Credited:
        assert used.wait(60)
        return credit(*arguments)

    awake = written.stay_awake
    monkeypatch.setattr(written, "stay_awake", stay_awake)
    monkeypatch.setattr(crediting, "AWAKE_S", 0.01)
    monkeypatch.setattr(crediting, "AT_A_STRETCH", TOUCHES)
    touches, conversions = a_great_many(Teller())
    await attribution.deliver(*touches)
    monkeypatch.setattr(crediting, "credit", credited)
    await attribution.deliver(*conversions)
    assert await attribution.parked() == []
    assert len(await stored_credits(attribution)) == CONVERSIONS


@pytest.mark.usefixtures("_little_at_once")
async def test_a_withdrawn_conversion_owes_nothing(attribution: Harness) -> None:
    teller = Teller()
    touches, conversions = a_great_many(teller)
    await attribution.deliver(*touches, *conversions)
    withdrawn = teller.conversion("big", 70, 0, external_id=f"c{TOUCHES + 1}").model_copy(update={"withdrawn": True})
    await attribution.deliver(withdrawn)
    assert await owed(attribution) == CONVERSIONS - 1
    await settle(attribution)
    await assert_follows(attribution, [*touches, *conversions[1:]])


@pytest.mark.usefixtures("_little_at_once")
async def test_a_version_of_a_model_serves_when_nothing_is_owed_to_it(attribution: Harness) -> None:
    teller = Teller()
    touches, conversions = a_great_many(teller)
    await attribution.deliver(*touches, *conversions)
    await settle(attribution)
    assert (await attribution.client.put("/v1/models/mine", json={"base": "linear"})).status_code == 200
    for timer in attribution.code.timers(attribution.consumer_runtime):
        if timer.name == "models":
            while await timer.run() is not None:
                pass
    assert await owed(attribution) == CONVERSIONS
    of_one = f"/v1/conversions/{teller.conversion_id('c' + str(TOUCHES + 1))}/credits?model=mine"
    assert (await attribution.client.get(of_one)).status_code == 503
    await settle(attribution)
    assert len((await attribution.client.get(of_one)).json()["credits"]) == TOUCHES


@pytest.mark.parametrize("seed", range(4))
async def test_histories_come_to_the_same_however_little_fits_in_a_batch(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(crediting, "AT_ONCE", 2 * seed)
    monkeypatch.setattr(handlers, "PIECE", 2 * seed)
    dice = random.Random(seed)
    facts = histories(range(300 + 5 * seed, 305 + 5 * seed))
    for batch in in_any_order(facts, dice):
        await attribution.deliver(*batch)
        if dice.random() < 0.2:
            await pay_debts(attribution.consumer_runtime.database, Catalogue())
    await settle(attribution)
    await assert_follows(attribution, facts)


@pytest.mark.slow
@pytest.mark.usefixtures("_little_at_once")
async def test_a_worker_killed_in_the_middle_of_a_piece_is_taken_over(attribution: Harness, settings: Settings) -> None:
    many = 2 * PIECE // (TOUCHES + 1) + 1  # of another process, which credits as much at once as it is meant to
    touches, conversions = a_great_many(Teller(), many)
    await attribution.deliver(*touches)
    await attribution.deliver(*conversions)
    assert await owed(attribution) == many
    async with worker(settings, failpoints="debts_before_commit:2") as killed:
        assert await killed.wait() == -signal.SIGKILL
    assert await owed(attribution) == many - PIECE // (TOUCHES + 1), "the first piece stays, the second never was"

    async def nothing_is_owed() -> bool:
        return await owed(attribution) == 0

    async with worker(settings):
        await eventually(nothing_is_owed, within=120)
    await assert_follows(attribution, [*touches, *conversions])
