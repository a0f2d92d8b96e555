"""Answers that still stand: the same as one that is computed now, whatever moved and in whatever order."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest
import pytest_asyncio
from fastapi import Request, Response

from services.attribution.models.catalogue import Catalogue
from services.attribution.models.handlers import settle_models
from services.attribution.standing import answers as standing
from services.attribution.standing.answers import Answers, Reading, Told
from services.attribution.standing.domain import CREDITS
from services.attribution.standing.handlers import bring_together
from services.attribution.worker import settle
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import NOW, Teller
from tests.service.attribution_late import draw_move, told
from throughline.services import service_code

CODE = service_code("attribution")
COLD = count(1)
REPORTS = (
    "attribution?model=linear&currency=EUR",
    "attribution?model=linear&currency=EUR&format=csv",
    "attribution?model=linear&currency=USD",
    "attribution?model=markov&currency=EUR",
    "attribution?model=shapley&currency=EUR&conversion_type=purchase",
    "attribution?model=linear&dimension=country&interval=month&currency=EUR",
    "attribution?model=linear&filter=value_minor%20%3E%20500&currency=EUR",
    "compare?models=linear,last_touch,markov&currency=EUR",
    "roi?model=linear&currency=EUR",
    "assisted?currency=EUR",
    "participation?currency=EUR",
    "paths?currency=EUR&limit=3",
    "paths?currency=EUR&limit=3&collapse=true",
    "path-length?currency=EUR",
    "time-lag?currency=EUR",
    "cohorts?currency=EUR",
    "new-and-returning?currency=EUR",
    "attribution?model=linear&dimension=channel,country&interval=week&tz=Europe/Berlin&currency=EUR",
    "attribution?model=markov&from=2026-10-05&currency=EUR",
    "roi?model=linear&dimension=campaign&from=2026-10-05&currency=EUR",
    "paths?from=2026-10-05&tz=Europe/Berlin&currency=EUR",
    "cohorts?interval=week&tz=Europe/Berlin&currency=EUR",
    "funnel",
    "funnel?of=deals&dimension=channel&from=2026-10-05",
    "pipeline?currency=EUR",
)
# `as_of` alone follows from them, and is read each time.
MOMENTS = {"credit_debts", "feed_watermarks", "path_moves", "path_turns"}
TABLES = """
SELECT relname, EXISTS (SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = 'moved') AS counts
FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
    AND relnamespace::regnamespace::text IN ('attribution', 'attribution_projection')
"""
PUT_COST = """
INSERT INTO costs (day, channel, campaign, currency, origin, position, received_at, amount_minor)
VALUES ('2026-11-01', $1, '', 'EUR', 'test', 1, now(), 100)
"""


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(CODE, settings) as service:
        yield service


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing takes long, however busy the machine is."""
    monkeypatch.setattr(standing, "SLOW_S", math.inf)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything takes long, and may be old."""
    monkeypatch.setattr(standing, "SLOW_S", -1.0)
    monkeypatch.setattr(standing, "STANDS_S", math.inf)


async def ask(service: Harness, report: str, **headers: str) -> bytes:
    answer = await service.client.get(f"/v1/reports/{report}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.content


async def computed(service: Harness, report: str) -> bytes:
    """The answer at an address that nobody asked at before."""
    return await ask(service, report, host=f"cold{next(COLD)}.test")


async def assert_current(services: Sequence[Harness], reports: Sequence[str] = REPORTS) -> None:
    for report in reports:
        expected = await computed(services[0], report)
        for service in services:
            assert await ask(service, report) == expected, report


@pytest.mark.usefixtures("exact")
async def test_what_stands_equals_what_is_computed_now_in_every_process_whatever_came(
    settings: Settings, attribution: Harness
) -> None:
    dice = random.Random(52)
    async with harness(CODE, settings) as other:
        facts = [fact for number in range(8) for fact in told(f"s{number}", [draw_move(dice) for _ in range(9)])]
        dice.shuffle(facts)
        while facts:
            some, facts = facts[:7], facts[7:]
            waits = [attribution.deliver(*some), *(ask(dice.choice([other, attribution]), one) for one in REPORTS)]
            await asyncio.gather(*waits)
            await assert_current([attribution, other], dice.sample(REPORTS, 6))
        await settle(attribution.consumer_runtime)
        await assert_current([attribution, other])


@pytest.mark.usefixtures("slow")
async def test_what_is_decided_counts_at_once_even_where_an_answer_may_be_old(attribution: Harness) -> None:
    teller = Teller()
    own = "attribution?model=own&currency=EUR"
    assert (await attribution.client.put("/v1/models/own", json={"base": "first_touch"})).status_code == 200
    await attribution.deliver(
        teller.touch("nora", 3, channel="Email"),
        teller.touch("nora", 2, channel="Direct"),
        teller.conversion("nora", 1, 1_000),
        teller.conversion("otto", 1, 100, currency="USD"),
    )
    await settle_models(attribution.consumer_runtime.database, Catalogue())
    first = await ask(attribution, own)
    assert (await attribution.client.put("/v1/models/own", json={"base": "last_touch"})).status_code == 200
    await settle_models(attribution.consumer_runtime.database, Catalogue())
    assert await ask(attribution, own) == await computed(attribution, own) != first

    by_channel = ["attribution?model=own&currency=EUR", "cohorts?currency=EUR", "paths?currency=EUR"]
    before = [await ask(attribution, report) for report in by_channel]
    own_rule = {"rules": [{"channel": "Letters", "when": "true"}], "keep_given": False}
    assert (await attribution.client.put("/v1/channel-groupings", json=own_rule)).status_code == 200
    await settle(attribution.consumer_runtime)
    for report, old in zip(by_channel, before, strict=True):
        new = await ask(attribution, report)
        assert new == await computed(attribution, report) != old
        assert b"Letters" in new

    converted = "attribution?model=linear&convert_to=EUR"
    for value in ("0.5", "0.7"):
        rate = {"date": "2026-11-19", "base": "USD", "quote": "EUR", "rate": value}
        assert (await attribution.client.put("/v1/rates", json={"rates": [rate]})).status_code == 200
        assert await ask(attribution, converted) == await computed(attribution, converted)
    assert (await attribution.client.delete("/v1/rates/USD/EUR/2026-11-19")).status_code == 204
    answer = await attribution.client.get(f"/v1/reports/{converted}")
    assert answer.status_code == 422


@pytest.mark.usefixtures("slow")
async def test_nothing_old_is_told_once_somebody_was_erased(attribution: Harness) -> None:
    teller = Teller()
    report = "attribution?model=linear&dimension=account"
    await attribution.deliver(
        teller.captured("nora", 5, account="nora@example.org"),
        teller.touch("nora", 3),
        teller.conversion("nora", 1, 1_000),
    )
    named = await ask(attribution, report)
    await attribution.deliver(teller.touch("otto", 3), teller.conversion("otto", 1, 500))
    assert await ask(attribution, report) == named, "facts alone leave it for a while"
    await attribution.deliver(teller.erased("nora"))
    assert await ask(attribution, report) == await computed(attribution, report) != named


@pytest.mark.usefixtures("exact")
async def test_a_change_counts_from_its_commit_on_in_whatever_order_transactions_end(attribution: Harness) -> None:
    report = "attribution?model=linear"
    database = attribution.runtime.database
    async with database.transaction() as first:
        await first.connection.execute(PUT_COST, "Early")
        before = await ask(attribution, report)
        async with database.transaction() as second:
            await second.connection.execute(PUT_COST, "Late")
            assert await ask(attribution, report) == before == await computed(attribution, report)
        between = await ask(attribution, report)
        assert between == await computed(attribution, report)
        await bring_together(attribution.consumer_runtime.database)
        assert await ask(attribution, report) == between
    after = await ask(attribution, report)
    assert after == await computed(attribution, report)
    assert [name in after for name in (b"Early", b"Late")] == [True, True]
    assert [name in between for name in (b"Early", b"Late")] == [False, True]


@pytest.mark.usefixtures("exact")
async def test_what_a_savepoint_takes_back_is_no_change_and_what_follows_is(attribution: Harness) -> None:
    report = "attribution?model=linear"
    before = await ask(attribution, report)
    async with attribution.runtime.database.transaction() as tx:
        with pytest.raises(ZeroDivisionError):
            async with tx.connection.transaction():
                await tx.connection.execute(PUT_COST, "Never")
                raise ZeroDivisionError
        await tx.connection.execute(PUT_COST, "Ever")
    after = await ask(attribution, report)
    assert after == await computed(attribution, report) != before


@pytest.mark.usefixtures("slow")
async def test_of_another_projection_nothing_stands(kafka_settings: Settings) -> None:
    async with harness(CODE, kafka_settings, kafka=True) as service:
        teller = Teller()
        async with service.runtime.database.transaction() as tx:
            tx.emit(teller.touch("nora", 3), teller.conversion("nora", 1, 1_000))

        async def is_in() -> bool:
            return b'"value_minor":1000' in await computed(service, "attribution?model=linear")

        await eventually(is_in, within=60)
        async with service.runtime.database.transaction() as tx:
            await tx.connection.execute(PUT_COST, "Invented")  # nothing that the log tells
        with_it = await ask(service, "attribution?model=linear")
        equal = await rebuild(CODE, kafka_settings, lambda _line: None)
        assert not equal["costs"]
        without = await ask(service, "attribution?model=linear")
        assert [b"Invented" in one for one in (with_it, without)] == [True, False]


@pytest.mark.usefixtures("exact")
async def test_only_the_moment_of_an_answer_that_stands_is_new(attribution: Harness) -> None:
    for at in (NOW, NOW.replace(microsecond=17)):
        async with attribution.runtime.database.transaction() as tx:
            await tx.connection.execute("DELETE FROM feed_watermarks")
            await tx.connection.execute("INSERT INTO feed_watermarks VALUES ('touches', 0, 'capture', $1)", at)
        for report in ("attribution", "paths", "cohorts", "attribution?model=markov"):
            assert at.isoformat().replace("+00:00", "Z").encode() in await ask(attribution, report)
            assert await ask(attribution, report) == await computed(attribution, report)


async def test_format_follows_what_is_accepted(attribution: Harness) -> None:
    kinds = [
        (await attribution.client.get("/v1/reports/attribution", headers={"accept": accept})).headers["content-type"]
        for accept in ("application/json", "text/csv", "application/json")
    ]
    assert kinds == ["application/json", "text/csv; charset=utf-8", "application/json"]


async def test_no_report_that_is_kept_reads_what_moves_unnoticed(attribution: Harness) -> None:
    await attribution.deliver(*told("all", [draw_move(random.Random(53)) for _ in range(20)]))
    await settle(attribution.consumer_runtime)
    async with attribution.consumer_runtime.database.transaction() as tx:
        rows = await tx.connection.fetch(TABLES)
        silent = {row["relname"] for row in rows if not row["counts"]} - MOMENTS - {"report_moves"}
        assert {"touches", "leads", "conversions"} < silent
        for table in sorted(silent):
            await tx.connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        for report in REPORTS:
            await computed(attribution, report)


class Costs:
    """Adds costs up, as slowly as it is told to, and counts how often."""

    def __init__(self, database: Any) -> None:
        self.answers = Answers(database)
        self.times = 0
        self.going = asyncio.Event()
        self.going.set()

    async def ask(self, path: str = "/costs") -> bytes:
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        return bytes((await self.answers.of(Request(scope), self._told)).body)

    async def _told(self, reading: Reading) -> Told:
        self.times += 1
        async with reading() as connection:
            number = await connection.fetchval("SELECT count(*) FROM costs")
            await self.going.wait()
        return Told(Response(b'{"as_of":null,"n":%d}' % number), CREDITS)


def counting(number: int) -> bytes:
    return b'{"as_of":null,"n":%d}' % number


async def put_cost(service: Harness, name: str) -> None:
    async with service.runtime.database.transaction() as tx:
        await tx.connection.execute(PUT_COST, name)


@pytest.mark.usefixtures("exact")
async def test_all_who_ask_at_once_have_one_computation_that_sees_what_they_know_of(attribution: Harness) -> None:
    costs = Costs(attribution.runtime.database)
    costs.going.clear()
    early = [asyncio.create_task(costs.ask()) for _ in range(5)]
    await eventually(lambda: _is(costs, 1))
    await put_cost(attribution, "One")
    late = [asyncio.create_task(costs.ask()) for _ in range(3)]
    await eventually(lambda: _is(costs, 2))
    costs.going.set()
    assert set(await asyncio.gather(*late)) == {counting(1)}
    assert counting(0) in await asyncio.gather(*early)
    assert await costs.ask() == counting(1)
    assert costs.times == 2


async def _is(costs: Costs, times: int) -> bool:
    return costs.times == times


@pytest.mark.usefixtures("slow")
async def test_what_takes_long_is_told_as_it_was_while_one_computation_makes_the_next(attribution: Harness) -> None:
    costs = Costs(attribution.runtime.database)
    assert await costs.ask() == counting(0)
    costs.going.clear()
    await put_cost(attribution, "One")
    assert await asyncio.gather(*(costs.ask() for _ in range(5))) == [counting(0)] * 5
    costs.going.set()

    async def is_new() -> bool:
        return await costs.ask() == counting(1)

    await eventually(is_new)
    assert costs.times == 2


async def test_what_took_long_once_is_not_yet_what_takes_long(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "SLOW_S", 0.0)
    monkeypatch.setattr(standing, "STANDS_S", math.inf)
    costs, told_after = Costs(attribution.runtime.database), []
    for name in ("One", "Two", "Three"):
        told_after.append(await costs.ask())
        await put_cost(attribution, name)
    assert told_after == [counting(0), counting(1), counting(1)]


async def test_an_answer_is_no_older_than_it_may_be(attribution: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "SLOW_S", -1.0)
    monkeypatch.setattr(standing, "STANDS_S", -1.0)
    costs = Costs(attribution.runtime.database)
    assert await costs.ask() == counting(0)
    await put_cost(attribution, "One")
    assert await costs.ask() == counting(1)


async def test_who_goes_away_takes_the_answer_from_nobody(attribution: Harness) -> None:
    costs = Costs(attribution.runtime.database)
    costs.going.clear()
    gone, stays = (asyncio.create_task(costs.ask()) for _ in range(2))
    await eventually(lambda: _is(costs, 1))
    gone.cancel()
    costs.going.set()
    assert await stays == counting(0)
    assert costs.times == 1


async def test_what_is_kept_takes_no_more_memory_than_it_may(attribution: Harness) -> None:
    costs = Costs(attribution.runtime.database)
    costs.answers = Answers(attribution.runtime.database, most_bytes=3 * (standing.OVERHEAD + 100))
    for number in (1, 2, 3, 1, 4):
        await costs.ask(f"/{number}")
    assert costs.times == 4
    await costs.ask("/1")
    assert costs.times == 4
    await costs.ask("/2")  # unused the longest
    assert costs.times == 5


async def test_a_refusal_is_not_kept(attribution: Harness) -> None:
    for _ in range(2):
        answer = await attribution.client.get("/v1/reports/attribution", params={"model": "own"})
        assert answer.status_code == 422
    assert (await attribution.client.put("/v1/models/own", json={"base": "first_touch"})).status_code == 200
    await settle_models(attribution.consumer_runtime.database, Catalogue())
    assert (await attribution.client.get("/v1/reports/attribution", params={"model": "own"})).status_code == 200


async def test_workers_with_nothing_to_do_move_nothing(attribution: Harness) -> None:
    costs = Costs(attribution.runtime.database)
    await attribution.deliver(Teller().touch("nora", 2))
    for _ in range(3):
        await attribution.run_timers()
    await costs.ask()
    await attribution.run_timers()
    await costs.ask()
    assert costs.times == 1
