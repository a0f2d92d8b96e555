"""Answers that stand through everything that is told and decided, in any order: none is ever another than a new one."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.attribution.standing import answers as standing
from services.attribution.worker import settle
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import NOW, Teller
from tests.service.attribution_late import Kind, Move, draw_move, told
from tests.service.test_attribution_standing import CODE, COLD, REPORTS

REPORTS_OF_DECISIONS = (
    *REPORTS,
    "attribution?model=own&currency=EUR",
    "attribution?model=last_non_direct&currency=EUR",
    "attribution?model=linear&convert_to=EUR",
    "roi?model=linear&dimension=campaign&convert_to=EUR",
    "compare?models=linear,own&convert_to=EUR",
    "pipeline?convert_to=EUR",
)
GROUPINGS: tuple[dict[str, Any], ...] = (
    {"rules": [{"channel": "Letters", "when": "true"}], "keep_given": False},
    {"rules": [{"channel": "News", "when": "touch.source == 'news'"}], "keep_given": False},
    {"rules": [{"channel": "Yours", "when": "touch.page.contains('you')"}]},
    {"rules": []},
)
BASES = ("first_touch", "last_touch", "linear")
FOREIGN = ("JPY", "KWD", "USD")
WEEKS = [(NOW - timedelta(days=days)).date().isoformat() for days in range(0, 200, 6)]
"""A rate counts for a week."""


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(CODE, settings) as service:
        yield service


async def both(service: Harness, report: str) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """What stands (a refusal too), and what is computed at an address that nobody asked at before."""

    def told_by(answer: httpx.Response) -> tuple[int, bytes]:
        return answer.status_code, answer.content

    stands = told_by(await service.client.get(f"/v1/reports/{report}"))
    address = {"host": f"cold{next(COLD)}.test"}
    return stands, told_by(await service.client.get(f"/v1/reports/{report}", headers=address))


class Office:
    """Those who decide: each call is one decision of theirs over the API, or a worker's next step."""

    def __init__(self, service: Harness, dice: random.Random) -> None:
        self._service = service
        self._dice = dice
        self.decisions: tuple[Callable[[], Awaitable[None]], ...] = (
            self.group,
            self.group_as_before,
            self.model,
            self.rate,
            self.no_rate,
            service.run_timers,
        )

    async def group(self) -> None:
        await self._done("PUT", "/v1/channel-groupings", self._dice.choice(GROUPINGS))

    async def group_as_before(self) -> None:
        versions = (await self._service.client.get("/v1/channel-groupings/versions")).json()["items"]
        version = self._dice.choice(versions)["version"]
        await self._done("POST", "/v1/channel-groupings:activate", {"version": version})

    async def model(self) -> None:
        await self._done("PUT", "/v1/models/own", {"base": self._dice.choice(BASES)})

    async def rate(self) -> None:
        value = self._dice.choice(["0.5", "0.007", "3"])
        rates = [{"date": day, "base": base, "quote": "EUR", "rate": value} for day in WEEKS for base in FOREIGN]
        await self._done("PUT", "/v1/rates", {"rates": rates})

    async def no_rate(self) -> None:
        answer = await self._service.client.delete(f"/v1/rates/JPY/EUR/{self._dice.choice(WEEKS)}")
        assert answer.status_code in (204, 404), answer.text

    async def _done(self, method: str, path: str, body: dict[str, Any]) -> None:
        answer = await self._service.client.request(method, path, json=body)
        assert answer.status_code == 200, answer.text


async def test_no_answer_that_stands_is_another_than_a_new_one_whatever_is_told_and_decided(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "SLOW_S", float("inf"))
    dice = random.Random(55)
    office = Office(attribution, dice)
    await office.model()
    await office.rate()
    facts = [fact for number in range(4) for fact in told(f"h{number}", [draw_move(dice) for _ in range(8)])]
    dice.shuffle(facts)
    steps: list[Callable[[], Awaitable[object]]] = [
        *office.decisions,
        *office.decisions,
        *(partial(attribution.deliver, *facts[n : n + 8]) for n in range(0, len(facts), 8)),
    ]
    dice.shuffle(steps)
    steps.append(partial(settle, attribution.consumer_runtime))
    for step in steps:
        await step()
        for report in REPORTS_OF_DECISIONS:
            stands, new = await both(attribution, report)
            assert stands == new, report


LATE: tuple[Kind, ...] = ("refund", "chargeback", "unmerge", "merge", "cost", "link", "profile")


@pytest.mark.parametrize("kind", LATE)
async def test_no_report_stands_past_what_comes_late(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    monkeypatch.setattr(standing, "SLOW_S", float("inf"))
    teller = Teller("h")
    await attribution.client.put("/v1/models/own", json={"base": "linear"})
    await attribution.deliver(
        *(teller.touch(who, 3, touch_id=f"t-{who}", channel="Email") for who in ("p0", "p1", "p2", "b0")),
        *(teller.conversion(who, 1, 900, external_id=f"c{n}") for n, who in enumerate(("p0", "p1", "p2"))),
        teller.merged("p1", "p0", 4),
    )
    await settle(attribution.consumer_runtime)
    before = [await both(attribution, report) for report in REPORTS_OF_DECISIONS]
    moves = [Move(kind, who, which, 0, 0, odd=False) for who in range(3) for which in range(2)]
    late = [fact.model_copy(update={"position": 100 + n}) for n, fact in enumerate(told("h", moves))]
    late = [fact.model_copy(update={"event_id": f"late:{n}"}) for n, fact in enumerate(late)]
    await attribution.deliver(*late)
    after = [await both(attribution, report) for report in REPORTS_OF_DECISIONS]
    assert [stands for stands, _ in after] == [new for _, new in after]
    assert after != before
