"""Why credits are what they are, and how they came to be: told over HTTP, whatever the order of processing was."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from services.attribution.channels.domain import UNATTRIBUTED
from services.attribution.channels.groupings import active_grouping
from services.attribution.conversions import explaining, queries
from services.attribution.credits.domain import Credited
from services.attribution.domain import SHARE_UNITS, CreditingRun, TotalsModel
from services.attribution.models.catalogue import Catalogue
from shared.events import ConversionRecorded, Event, LeadErased
from shared.ids import ConversionId
from shared.settings import Settings
from shared.testing import Harness, harness
from tests.service.attribution_facts import Teller, World
from tests.service.attribution_late import draw_move, told
from tests.service.test_attribution_histories import crediting_runs, in_any_order
from throughline.services import service_code

RECREDITED = "throughline_attribution_recredited_total"


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


@pytest.fixture
def teller() -> Teller:
    return Teller()


async def explained(service: Harness, conversion_id: str, model: str = "linear") -> Any:
    answer = await service.client.get(f"/v1/conversions/{conversion_id}/explain", params={"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def history_of(service: Harness, teller: Teller, model: str = "linear") -> list[Any]:
    """What came late to the order, without its time."""
    found = await explained(service, teller.conversion_id("order"), model)
    assert found["history"]["complete"]
    return [item for item in found["history"]["items"] if item.pop("received_at")]


def whats(items: Sequence[Any]) -> list[tuple[list[str], list[str]]]:
    return [([came["what"] for came in item["came"]], item["moved"]) for item in items]


async def test_weights_are_fractions_and_milestones_carry_them(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 9, touch_id="a"),
        teller.touch("nora", 6, touch_id="b", channel="Direct"),
        teller.captured("nora", 5),
        teller.touch("nora", 3, touch_id="c"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    )
    found = await explained(attribution, teller.conversion_id("order"))
    weights = {
        touch["touch_id"]: {model: earned["weight"] for model, earned in touch["earned"].items()}
        for touch in found["touches"]
    }
    assert {touch: models["linear"] for touch, models in weights.items()} == {"a": "1/3", "b": "1/3", "c": "1/3"}
    assert {touch: models.get("last_touch") for touch, models in weights.items()} == {"a": None, "b": None, "c": "1"}
    assert {touch: models["w_shaped"] for touch, models in weights.items()} == {"a": "3/7", "b": "3/7", "c": "1/7"}
    decays = [weights[touch]["time_decay"] for touch in ("a", "b", "c")]
    assert [len(digits.lstrip("0.")) for digits in decays] == [28, 28, 28]
    assert [touch["milestones"] for touch in found["touches"]] == [["first"], ["lead"], ["close"]]
    assert found["models"]["linear"] == {
        "version": 0,
        "title": "Linear",
        "lookback_days": 90,
        "reset_after_conversion": False,
        "touches": 3,
    }
    assert found["unattributed"] == {}


async def test_a_model_that_looks_less_far_has_milestones_of_its_own(attribution: Harness, teller: Teller) -> None:
    put = await attribution.client.put("/v1/models/far", json={"base": "u_shaped_lead", "lookback_days": None})
    assert put.status_code == 200, put.text
    await attribution.run_timers()
    await attribution.run_timers()
    await attribution.deliver(
        teller.touch("nora", 120, touch_id="a"),
        teller.captured("nora", 110),
        teller.touch("nora", 6, touch_id="b"),
        teller.touch("nora", 3, touch_id="c"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    )
    found = await explained(attribution, teller.conversion_id("order"))
    assert [touch["milestones"] for touch in found["touches"]] == [["first", "lead"], [], ["close"]]
    for model, expected in (
        ("far", [("4/5", ["first", "lead"]), ("1/10", []), ("1/10", ["close"])]),
        ("u_shaped_lead", [None, ("2/3", ["first"]), ("1/3", ["close"])]),
    ):
        earned = [touch["earned"].get(model) for touch in found["touches"]]
        assert [one and (one["weight"], one["milestones"]) for one in earned] == expected


async def test_touches_that_do_not_count_say_why(attribution: Harness, teller: Teller) -> None:
    await attribution.deliver(
        teller.touch("nora", 200, touch_id="long-ago"),
        teller.touch("nora", 4, touch_id="scanned", automated=True),
        teller.touch("nora", 4, touch_id="colleague", automated=True, automated_reason="internal"),
        teller.touch("nora", 5, touch_id="moved"),
        teller.touch("otto", 5, touch_id="moved"),
        teller.touch("kiosk", 9, touch_id="hers-at-the-kiosk"),
        teller.touch("kiosk", 3, touch_id="his-at-the-kiosk"),
        teller.linked("kiosk", "nora", 10),
        teller.linked("kiosk", "otto", 4),
        teller.touch("n.smith", 2, touch_id="not-her-after-all"),
        teller.merged("n.smith", "nora", 2),
        teller.unmerged("n.smith", "nora", 1),
        teller.conversion("nora", 1, 1_000, external_id="order"),
        teller.touch("nora", 0.5, touch_id="too-late"),
    )
    found = await explained(attribution, teller.conversion_id("order"))
    assert [touch["touch_id"] for touch in found["touches"]] == ["hers-at-the-kiosk"]
    assert {(other["touch_id"], other["reason"], other["lead_id"]) for other in found["others"]} == {
        ("too-late", "after_conversion", None),
        ("scanned", "automated", None),
        ("colleague", "internal", None),
        ("long-ago", "too_old", None),
        ("moved", "corrected", None),
        ("his-at-the-kiosk", "other_person", teller.lead("otto")),
        ("not-her-after-all", "other_person", teller.lead("n.smith")),
    }
    assert found["not_counted"] == 7


async def test_of_a_robots_touches_only_those_are_read_that_are_told(
    attribution: Harness, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "MOST_TOUCHES", 3)
    robot = [teller.touch("nora", 3 + place / 20, touch_id=f"r{place}", automated=True) for place in range(20)]
    human = [teller.touch("nora", 3 + place / 2, touch_id=f"h{place}") for place in range(2)]
    sold = teller.conversion("nora", 1, 1_000, external_id="order")
    await attribution.deliver(*robot, *human, teller.touch("nora", 200, touch_id="long-ago"), sold)
    async with attribution.runtime.database.reading() as connection:
        found = await queries.conversion(connection, sold.conversion_id)
        assert found is not None
        grouping = await active_grouping().current(connection)
        material = await explaining.material_of(connection, Catalogue(), grouping, found)
    assert (len(material.touches), len(material.against)) == (2, 3)
    told = await explained(attribution, sold.conversion_id)
    assert [touch["touch_id"] for touch in told["touches"]] == ["h1", "h0"]
    assert [touch["touch_id"] for touch in told["others"]] == ["r0", "r1", "r2"]
    assert (told["counted"], told["not_counted"]) == (2, 21)


async def test_models_that_look_less_far_say_what_they_leave_out(attribution: Harness, teller: Teller) -> None:
    week = {"title": "A week", "base": "linear", "lookback_days": 7}
    assert (await attribution.client.put("/v1/models/week", json=week)).status_code == 200
    await attribution.run_timers()
    await attribution.run_timers()
    await attribution.deliver(
        teller.touch("nora", 20, touch_id="old"),
        teller.touch("nora", 2, touch_id="new"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    )
    old, new = (await explained(attribution, teller.conversion_id("order")))["touches"]
    assert (old["left_out"], new["left_out"]) == ({"week": "too_old"}, {})
    assert "week" not in old["earned"]
    assert new["earned"]["week"]["weight"] == "1"


async def test_a_model_that_looks_further_and_is_being_built_does_not_show_yet(
    attribution: Harness, teller: Teller
) -> None:
    before = [
        teller.touch("nora", 200, touch_id="long-ago"),
        teller.touch("nora", 2, touch_id="new"),
        teller.conversion("nora", 1, 1_000, external_id="order"),
    ]
    await attribution.deliver(*before)
    ever = {"title": "Ever", "base": "linear", "lookback_days": None}
    assert (await attribution.client.put("/v1/models/ever", json=ever)).status_code == 200

    async def shown() -> tuple[list[str], list[tuple[str, str]], bool]:
        found = await explained(attribution, teller.conversion_id("order"))
        touches = [touch["touch_id"] for touch in found["touches"]]
        return touches, [(one["touch_id"], one["reason"]) for one in found["others"]], "ever" in found["models"]

    not_yet = (["new"], [("long-ago", "too_old")], False)
    assert await shown() == not_yet
    await attribution.deliver(teller.touch("nora", 3, touch_id="late"), teller.conversion("nora", 1, 5))
    assert await shown() == (["late", "new"], [("long-ago", "too_old")], False)
    assert attribution.code.settle is not None
    await attribution.code.settle(attribution.consumer_runtime)
    assert await shown() == (["long-ago", "late", "new"], [], True)


async def test_history_tells_what_each_late_fact_moved(attribution: Harness, teller: Teller) -> None:
    first = teller.touch("nora", 9, touch_id="first", channel="Email")
    sold = teller.conversion("nora", 1, 1_000, external_id="order", deal_id="d1")
    late = [
        teller.touch("nora", 5, touch_id="late", channel="Direct"),
        teller.touch("nora", 5, touch_id="late", channel="Referral"),
        teller.conversion("nora", 1, 2_000, external_id="order", deal_id="d1"),
        teller.refund("order", 500, refund_id="r1"),
        teller.refund("order", 300, refund_id="r1"),
        teller.touch("kiosk", 4, touch_id="kiosk", channel="Display"),
        teller.linked("kiosk", "nora", 5),
        teller.touch("n.smith", 3, touch_id="other", channel="Video"),
        teller.merged("n.smith", "nora", 2),
        teller.unmerged("n.smith", "nora", 1),
        teller.captured("nora", 4),
        teller.deal("d1", "nora", 3),
        teller.assigned("nora", 3, "rosa"),
        teller.erased("nora"),
        teller.touch("nora", 0.5, touch_id="too-late"),
    ]
    facts = [first, sold, *late]
    random.Random(3).shuffle(facts)
    for fact in facts:
        await attribution.deliver(fact)
    items = await history_of(attribution, teller)
    assert (
        whats(items)
        == [
            (["assigned"], ["credited_to"]),
            (["touch"], ["shares", "touches"]),
            (["touch_corrected"], ["touches"]),
            (["conversion_corrected"], ["value"]),
            (["refund"], ["value"]),
            (["refund_corrected"], ["value"]),
            (["linked"], ["shares", "touches"]),
            (["merged"], ["shares", "touches"]),
            (["unmerged"], ["shares", "touches"]),
            (["profile"], ["milestones"]),
            (["deal"], ["milestones"]),
            (["erased"], ["details"]),
        ][1:2]
        + whats(items)[1:]
    )
    assert items[0]["credits"] == [
        {
            "model": "linear",
            "channel": "Direct",
            "before": {"share": 0, "value_minor": 0},
            "after": {"share": 0.5, "value_minor": 500},
        },
        {
            "model": "linear",
            "channel": "Email",
            "before": {"share": 1.0, "value_minor": 1_000},
            "after": {"share": 0.5, "value_minor": 500},
        },
    ]
    assert [(item["value_minor_before"], item["value_minor_after"]) for item in items[2:5]] == [
        (1_000, 2_000),
        (2_000, 1_500),
        (1_500, 1_700),
    ]
    assert items[5]["came"][0] | {"occurred_at": None} == items[5]["came"][0] | {
        "lead_id": teller.lead("kiosk"),
        "into_lead_id": teller.lead("nora"),
        "occurred_at": None,
    }
    by_w_shaped = await history_of(attribution, teller, "w_shaped")
    assert [bool(item["credits"]) for item in by_w_shaped[-3:]] == [True, True, False]


def plain_history(
    facts: Sequence[Event], conversion_id: ConversionId, runs: Sequence[CreditingRun]
) -> list[dict[str, Any]]:
    """What each moment moved after the conversion was known, by recomputing the whole world as of then.

    What an erasure takes away is gone from every moment.
    """
    erasures = [fact for fact in facts if isinstance(fact, LeadErased)]
    versions = [one for one in facts if isinstance(one, ConversionRecorded) and one.conversion_id == conversion_id]
    since = min(one.received_at for one in versions)
    found: list[dict[str, Any]] = []
    before: Credited | None = None
    for moment in sorted({fact.received_at for fact in facts if fact.received_at >= since}):
        known = [fact for fact in facts if fact.received_at <= moment or fact in erasures]
        after = World(known).credited(runs)[conversion_id]
        if before is not None and before != after:
            found.append(
                {
                    "received_at": moment,
                    "value_minor": (before.path.value_minor, after.path.value_minor),
                    "credits": moved_credits(before, after, runs),
                }
            )
        before = after
    return found


def moved_credits(before: Credited, after: Credited, runs: Sequence[CreditingRun]) -> dict[tuple[str, str], Any]:
    """Channels that have other shares or values by a model than before."""
    sums = [
        {(run.model.model_id, channel): part for run in runs for channel, part in by_channel(one, run.run).items()}
        for one in (before, after)
    ]
    return {
        key: tuple(of.get(key, (0, 0)) for of in sums)
        for key in {*sums[0], *sums[1]}
        if sums[0].get(key, (0, 0)) != sums[1].get(key, (0, 0))
    }


def by_channel(credited: Credited, run: int) -> dict[str, tuple[float, int]]:
    units: dict[str, int] = defaultdict(int)
    minor: dict[str, int] = defaultdict(int)
    division = credited.divisions[run]
    for place, channel in enumerate((UNATTRIBUTED, *credited.path.channels)):
        units[channel] += division.units[place]
        minor[channel] += division.value_minor[place]
    return {channel: (units[channel] / SHARE_UNITS, minor[channel]) for channel in units}


async def test_history_is_what_the_world_looked_like_when_each_fact_was_received(attribution: Harness) -> None:
    dice = random.Random(5)
    histories = [told(f"e{number}", [draw_move(dice) for _ in range(dice.randrange(4, 14))]) for number in range(60)]
    facts = [fact for history in histories for fact in history]
    for batch in in_any_order(facts, dice):
        await attribution.deliver(*batch)
    runs = [run for run in await crediting_runs(attribution) if not isinstance(run.model, TotalsModel)]
    entries = 0
    for history in histories:
        for conversion_id in {fact.conversion_id for fact in history if isinstance(fact, ConversionRecorded)}:
            found = (await explained(attribution, conversion_id, "all"))["history"]
            items = [item for item in found["items"] if item["moved"] != ["details"]]
            assert [
                {
                    "received_at": datetime.fromisoformat(item["received_at"]),
                    "value_minor": (item["value_minor_before"], item["value_minor_after"]),
                    "credits": {
                        (one["model"], one["channel"]): tuple(
                            (one[when]["share"], one[when]["value_minor"]) for when in ("before", "after")
                        )
                        for one in item["credits"]
                    },
                }
                for item in items
            ] == plain_history(history, conversion_id, runs), history
            entries += len(items)
    assert entries > 50


async def test_late_touch_rewrites_the_credits_of_its_own_leads_conversions_alone(
    attribution: Harness, teller: Teller
) -> None:
    for number in range(60):
        await attribution.deliver(
            teller.touch(f"lead{number}", 5), teller.conversion(f"lead{number}", 1, 100, external_id=f"c{number}")
        )
    await attribution.deliver(teller.conversion("lead7", 95, 100, external_id="too-early"))

    async def writers() -> dict[str, set[tuple[str, int]]]:
        """Which transaction wrote each row of paths and credits last."""
        async with attribution.runtime.database.reading() as connection:
            return {
                table: {
                    (row["conversion_id"], row["xmin"])
                    for row in await connection.fetch(f"SELECT conversion_id, xmin::text::bigint FROM {table}")
                }
                for table in ("paths", "credits")
            }

    before, counted = await writers(), REGISTRY.get_sample_value(RECREDITED)
    await attribution.deliver(teller.touch("lead7", 3), *(teller.touch(f"visitor{number}", 3) for number in range(20)))
    after = await writers()
    for table, rows in after.items():
        assert {conversion_id for conversion_id, _ in rows ^ before[table]} == {teller.conversion_id("c7")}, table
    assert REGISTRY.get_sample_value(RECREDITED) == (counted or 0) + 1


async def test_erasing_a_shared_browser_moves_what_each_of_its_people_is_counted_under(
    attribution: Harness, teller: Teller
) -> None:
    await attribution.deliver(
        teller.touch("kiosk", 9, touch_id="hers", content="for-nora"),
        teller.touch("kiosk", 4, touch_id="his", content="for-otto"),
        teller.linked("kiosk", "nora", 10),
        teller.linked("kiosk", "otto", 5),
        teller.conversion("nora", 1, 1_000, external_id="order"),
        teller.conversion("otto", 1, 500, external_id="other"),
        teller.erased("kiosk"),
    )
    query = {"model": "linear", "dimension": "content", "from": "2026-11-01", "to": "2026-12-01"}
    found = (await attribution.client.get("/v1/reports/attribution", params=query)).json()
    assert [(row["key"], row["value_minor"]) for row in found["rows"]] == [("(not set)", 1_500)]
