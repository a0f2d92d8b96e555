"""Taking a touch back over the API: told once, on record, and refused with what is wrong."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from shared.events import TouchRecorded, TouchWithdrawn
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture
from throughline.services import service_code

ANN = "ann@example.com"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def test_a_withdrawal_names_the_touch_and_is_on_record(capture: Capture) -> None:
    for _ in range(2):
        answer = await capture.post("touches/demo 1/a:withdraw".replace(" ", "%20"), {"reason": " a scanner "})
        assert (answer.status_code, answer.json()) == (
            202,
            {"touch_id": "demo 1/a", "source": "api", "reason": "a scanner"},
        )
    first, again = await capture.harness.told(TouchWithdrawn)
    assert (first.origin, first.touch_id, first.reason, first.event_id) == (
        "api",
        "demo 1/a",
        "a scanner",
        again.event_id,
    )
    await capture.post("touches/x:withdraw", {"source": "nurture", "reason": "r"})
    assert (await capture.harness.told(TouchWithdrawn))[-1].origin == "nurture"
    async with capture.harness.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT action, target, detail FROM audit_entries ORDER BY id")
    assert [(row["action"], row["target"], row["detail"]) for row in rows][1:] == [
        ("touch.withdrawn", "api/demo 1/a", {"reason": "a scanner"}),
        ("touch.withdrawn", "nurture/x", {"reason": "r"}),
    ]


@pytest.mark.parametrize(
    ("touch_id", "body", "pointer"),
    [
        ("x", {}, "/reason"),
        ("x", {"reason": "  "}, "/reason"),
        ("x", {"reason": "r" * 256}, "/reason"),
        ("x", {"reason": "r", "source": ""}, "/source"),
        ("x", {"reason": "r", "why": 1}, "/why"),
        ("x" * 256, {"reason": "r"}, "path:touch_id"),
    ],
)
async def test_a_withdrawal_that_cannot_be_is_refused(
    capture: Capture, touch_id: str, body: dict[str, Any], pointer: str
) -> None:
    answer = await capture.post(f"touches/{quote(touch_id, safe='')}:withdraw", body)
    assert (answer.status_code, [error["pointer"] for error in answer.json()["errors"]]) == (422, [pointer])
    assert await capture.harness.told(TouchWithdrawn) == []


async def test_a_touch_may_be_told_or_corrected_as_a_machines(capture: Capture) -> None:
    touch = {"email": ANN, "touch_id": "t1", "type": "demo_requested"}
    robot = {**touch, "automated": True, "automated_reason": "a scanner"}
    for body in (touch, robot, robot):
        assert (await capture.post("touches", body)).status_code == 202
    first, second, again = await capture.harness.told(TouchRecorded)
    assert [(one.automated, one.automated_reason) for one in (first, second)] == [(False, None), (True, "a scanner")]
    assert first.event_id != second.event_id == again.event_id
    answer = await capture.post("touches", {**touch, "automated_reason": "a scanner"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/automated_reason")
    answer = await capture.post("touches", {**touch, "automated": "yes"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/automated")
