"""The reports of the pipeline beside those of another period: what has come to nothing is a change too."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import reduce
from typing import Any

import pytest
import pytest_asyncio

from shared.ids import RepId
from shared.settings import Settings
from shared.testing import FrozenClock, Harness, harness
from tests.service.attribution_facts import NOW
from tests.service.pipeline_facts import PipelineTeller
from throughline.services import service_code


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings, clock=FrozenClock(NOW)) as service:
        yield service


@pytest.mark.parametrize(
    ("name", "figure"),
    [("funnel", ("entered",)), ("pipeline", ("won", "number")), ("speed-to-lead", ("started",))],
)
@pytest.mark.parametrize("interval", [{}, {"interval": "week"}])
async def test_a_key_that_is_only_in_the_period_before_has_a_row(
    attribution: Harness, name: str, figure: tuple[str, ...], interval: dict[str, str]
) -> None:
    def of(figures: Any) -> Any:
        return reduce(lambda inner, part: inner and inner[part], figure, figures)

    teller = PipelineTeller()
    for who, days, rep in (("nora", 10, "rosa"), ("otto", 3, "rolf")):
        await attribution.deliver(
            teller.captured(who, days, 1),
            teller.offered(who, days, f"a-{who}", rep),
            teller.deal_step(who, days, f"d-{who}", "first", 1, rep_id=RepId(rep)),
            teller.deal_step(who, days, f"d-{who}", "won", 2, rep_id=RepId(rep)),
        )
    today = NOW.date()
    first = today - timedelta(days=7)
    asked: dict[str, Any] = {"from": str(first), "to": str(today), "compare_to": "previous_period", "dimension": "rep"}
    answer = await attribution.client.get(f"/v1/reports/{name}", params=asked | interval)
    assert answer.status_code == 200, answer.text
    rows = [row for row in answer.json()["rows"] if row.get("stage", "subscriber") == "subscriber"]
    told = {(row["key"], of(row), of(row["previous"]), of(row["change"])) for row in rows}
    assert {("rolf", 1, None, None), ("rosa", 0, 1, -1)} <= told
