"""Experiments, holdouts and what messages came to, on real PostgreSQL and a real mail server."""

import csv
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest_asyncio

from shared.events import (
    ConversionRecorded,
    CreditsChanged,
    EnrolmentStarted,
    ExperimentRuled,
    MessageClaimed,
    RefundRecorded,
    TouchCredit,
    TouchRecorded,
    TouchWithdrawn,
    VariantAssigned,
)
from shared.ids import ConversionId, EventId, TouchId
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import SEQUENCE, Facts, World, make_sender, open_inbox
from tests.service.test_nurture_scanners import BROWSER, addresses, follow, later
from throughline.services import service_code

PEOPLE = [f"lead{number}@example.com" for number in range(20)]  # enough that chance gives each variant some
LONG, SHORT = ({"subject": subject, "html": '<a href="https://a.example/">a</a>'} for subject in ("Long", "Short"))
HALVES = [{"id": "long", "weight": 50}, {"id": "short", "weight": 50}]
MESSAGE = {
    "id": "first",
    "send": {"channel": "email", "template": LONG},
    "experiment": {"id": "subject", "variants": [HALVES[0], HALVES[1] | {"template": SHORT}], "at_least": 1},
}
TRIGGER = {"trigger": "event.type == 'form_submitted'", "goal": None, "exit": None}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        await made.execute("DELETE FROM rule_activations WHERE kind = 'sequence'")
        yield made


async def saves(world: World, steps: list[dict[str, Any]], **more: Any) -> str:
    document = {name: value for name, value in (SEQUENCE | TRIGGER).items() if value is not None}
    return await world.saves(document, steps=steps, **more)


async def arrive(world: World, *emails: str) -> None:
    facts = [await world.facts.captured(email) for email in emails]
    await world.tell(*facts, *(world.facts.consent(email) for email in emails))
    await world.tell(*(world.facts.form(email) for email in emails))


async def get(world: World, path: str, **query: Any) -> dict[str, Any]:
    answer = await world.nurture.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def experiment(world: World, sequence_id: str, name: str = "subject") -> dict[str, dict[str, Any]]:
    """The experiment itself under `it`, and its variants."""
    found = await get(world, f"/v1/sequences/{sequence_id}/experiments/{name}")
    return {"it": found} | {variant["variant_id"]: variant for variant in found["variants"]}


def bought(world: World, email: str, minor: int = 100, **more: Any) -> ConversionRecorded:
    return world.facts.conversion(email).model_copy(update={"value_minor": minor, **more})


async def test_each_person_gets_one_variant_and_the_report_says_what_it_came_to(world: World) -> None:
    sequence_id = await saves(world, [MESSAGE, {"id": "pause", "wait": {"days": 1}, "next": "first"}])
    await arrive(world, *PEOPLE)
    await world.send()
    had = {email: world.inbox.subjects(email) for email in PEOPLE}
    variants = {email: (await world.messages(email))[0]["variant"] for email in PEOPLE}
    assert {(tuple(had[email]), variants[email]) for email in PEOPLE} == {(("Long",), "long"), (("Short",), "short")}
    told = {fact.lead_id: fact.variant for fact in await world.nurture.told(VariantAssigned)}
    assert told == {world.facts.lead_id(email): variants[email] for email in PEOPLE}
    claimed = await world.nurture.told(MessageClaimed)
    assert {(fact.lead_id, fact.variant) for fact in claimed} == set(told.items())

    longs = [email for email in PEOPLE if variants[email] == "long"]
    shorts = [email for email in PEOPLE if variants[email] == "short"]
    refund: dict[str, Any] = {"refund_id": "r", "amount_minor": 30, "currency": "EUR", "position": 1}
    kept, gone = bought(world, longs[0], 100), bought(world, longs[1], 500)
    refunded = RefundRecorded(
        event_id=EventId("refund"), occurred_at=kept.occurred_at, received_at=kept.occurred_at,
        conversion_id=kept.conversion_id, external_id=kept.external_id, **refund,
    )  # fmt: skip
    withdrawn = gone.model_copy(
        update={"event_id": EventId("gone"), "position": gone.position + 1, "withdrawn": True, "value_minor": 0}
    )
    early = bought(world, shorts[0], occurred_at=datetime.now(UTC) - timedelta(days=1))
    await world.tell(refunded, kept, gone, early, bought(world, longs[0], 7), withdrawn)
    found = await experiment(world, sequence_id)
    assert (found["long"]["people"], found["short"]["people"]) == (len(longs), len(shorts))
    assert (found["long"]["conversions"], found["short"]["conversions"]) == (1, 0), "a person counts once"
    assert found["long"]["revenue"] == [{"currency": "EUR", "value_minor": 77}]
    assert found["long"]["sent"] == len(longs)
    assert found["it"]["state"] == "running" and found["it"]["sentence"].startswith("Nothing is beyond doubt")

    await world.tell(world.facts.merged(longs[0], shorts[1]))  # the variant given first counts, for all of the person
    await world.time_passes(timedelta(days=1))
    await world.send()
    for email in PEOPLE:
        assert set(world.inbox.subjects(email)) <= {"Long", "Short"}
        if email not in (longs[0], shorts[1]):
            assert world.inbox.subjects(email) == had[email] * 2
    merged = await experiment(world, sequence_id)
    assert merged["long"]["people"] + merged["short"]["people"] == len(PEOPLE) - 1
    assert merged["long"]["conversions"] + merged["short"]["conversions"] == 1
    assert len(await world.nurture.told(VariantAssigned)) == len(PEOPLE)


async def test_a_winner_that_is_chosen_goes_to_everybody_new(world: World) -> None:
    sequence_id = await saves(world, [MESSAGE])
    place = f"/v1/sequences/{sequence_id}/experiments/subject:decide"
    assert (await world.nurture.client.post(place, json={"variant": "other"})).json()["errors"][0][
        "pointer"
    ] == "/variant"
    answer = await world.nurture.client.post(place, json={"variant": "short", "reason": "we like it"})
    assert answer.json()["state"] == "decided" and answer.json()["winner"] == "short"
    assert answer.json()["sentence"] == "short is given to everybody: we like it."
    await world.nurture.client.post(place, json={"variant": "short"})
    (fact,) = await world.nurture.told(ExperimentRuled)
    assert (fact.variant, fact.ruling, fact.reason) == ("short", "winner", "we like it")
    await arrive(world, *PEOPLE)
    await world.send()
    assert {subject for email in PEOPLE for subject in world.inbox.subjects(email)} == {"Short"}
    assert [variant["people"] for variant in answer.json()["variants"]] == [0, 0]
    unknown = await world.nurture.client.get(f"/v1/sequences/{sequence_id}/experiments/other")
    assert unknown.status_code == 404


async def test_what_is_beyond_doubt_is_ruled_by_itself_and_told_once(world: World) -> None:
    chosen = MESSAGE["experiment"] | {"decide": "automatically"}  # type: ignore[operator]  # a dict
    sequence_id = await saves(world, [MESSAGE | {"experiment": chosen}])
    emails = [f"many{number}@example.com" for number in range(120)]
    ids = [world.facts.lead_id(email) for email in emails]
    await world.execute(
        "INSERT INTO trials SELECT $1, 'subject', lead_id, 'long:50 short:50', CASE WHEN n % 2 = 0 THEN 'long' ELSE"
        " 'short' END, 'run' || n, now() - interval '1 hour' FROM unnest($2::text[]) WITH ORDINALITY AS a (lead_id, n)",
        sequence_id,
        ids,
    )
    await world.tell(*(bought(world, email) for email in emails[::2][:45]))  # every odd place: short
    await world.nurture.run_timers()
    await world.nurture.run_timers()
    (fact,) = await world.nurture.told(ExperimentRuled)
    assert (fact.variant, fact.decided_by) == ("short", "throughline")
    found = await experiment(world, sequence_id)
    assert (found["it"]["state"], found["short"]["conversions"], found["short"]["rate"]) == ("decided", 45, 0.75)
    assert found["short"]["against"][0]["p"] < 0.001 and found["short"]["against"][0]["ratio"]["low"] > 1
    await arrive(world, *PEOPLE[:4])
    await world.send()
    assert {subject for email in PEOPLE[:4] for subject in world.inbox.subjects(email)} == {"Short"}


async def test_waits_and_ways_have_variants_and_facts_read_back_restore_them(world: World) -> None:
    wait = {"id": "pause", "wait": {"days": 1}, "experiment": {"id": "when", "variants": [
        HALVES[0] | {"wait": {"days": 9}}, HALVES[1]]}}  # fmt: skip
    fork = {"id": "fork", "experiment": {"id": "way", "variants": [
        HALVES[0] | {"to": "pause"}, HALVES[1] | {"to": "end"}]}}  # fmt: skip
    sequence_id = await saves(world, [fork, wait, {"id": "first", "send": MESSAGE["send"]}])
    await arrive(world, *PEOPLE)
    await world.send()
    stands: Counter[tuple[str | None, int | None]] = Counter()
    for email in PEOPLE:
        (run,) = await world.runs(email)
        days = None if run["due_at"] is None else (datetime.fromisoformat(run["due_at"]) - datetime.now(UTC)).days + 1
        stands[run["reason"], days] += 1
    assert set(stands) <= {("completed", None), (None, 9), (None, 1)}  # chance may leave one of them out
    ways, waits = await experiment(world, sequence_id, "way"), await experiment(world, sequence_id, "when")
    assert ways["short"]["people"] == stands["completed", None]
    assert [waits[name]["people"] for name in ("long", "short")] == [stands[None, 9], stands[None, 1]]
    told = await world.nurture.told(VariantAssigned)
    await world.execute("DELETE FROM trials")
    await world.tell(*told)
    assert await experiment(world, sequence_id, "when") == waits
    assert [one["varies"] for one in (await get(world, f"/v1/sequences/{sequence_id}/experiments"))["items"]] == [
        "path",
        "time",
    ]


async def test_people_held_out_get_nothing_and_show_what_the_sequence_does(world: World) -> None:
    sequence_id = await saves(world, [MESSAGE], holdout={"percent": 50}, reentry="after_exit")
    await arrive(world, *PEOPLE)
    await world.send()
    await world.tell(*(world.facts.form(email) for email in PEOPLE))
    await world.send()
    had = {email for email in PEOPLE if world.inbox.subjects(email)}
    held = set(PEOPLE) - had
    assert had and held
    started = [fact for fact in await world.nurture.told(EnrolmentStarted) if fact.held_out]
    assert sorted(fact.lead_id for fact in started) == sorted(world.facts.lead_id(email) for email in held)
    (run,) = await world.runs(min(held))
    assert (run["state"], run["reason"].partition(":")[0]) == ("ended", "held out")
    await world.tell(bought(world, min(had), 900), bought(world, min(held), 100))
    lift = await get(world, f"/v1/sequences/{sequence_id}/lift", currency="EUR")
    assert (lift["treated"]["people"], lift["held_out"]["people"]) == (len(had), len(held))
    assert (lift["treated"]["conversions"], lift["held_out"]["conversions"]) == (1, 1)
    assert lift["treated"]["revenue"] == [{"currency": "EUR", "value_minor": 900}]
    assert lift["p"] > 0.05 and lift["sentence"].startswith("Nothing is beyond doubt")
    await world.execute("DELETE FROM enrolments WHERE held_out")
    await world.tell(*started)
    assert await get(world, f"/v1/sequences/{sequence_id}/lift", currency="EUR") == lift


async def test_a_report_counts_people_and_machines_and_money_by_step(world: World) -> None:
    """Right after corrections, withdrawals, refunds and merges."""
    linked = "".join(f'<a href="https://acme.example/{page}">{page}</a>' for page in ("one", "two", "three"))
    step = {"id": "first", "send": {"channel": "email", "template": {"subject": "Hello", "html": linked}}}
    sequence_id = await saves(world, [step])
    ann, late = PEOPLE[0], "other@example.com"
    await arrive(world, ann)
    await world.send()
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 hour'")
    await follow(world, addresses(world, "c")[0])
    await world.nurture.client.get(addresses(world, "o")[0], headers={**BROWSER, "authorization": ""})

    async def first() -> dict[str, Any]:
        (row,) = (await get(world, f"/v1/sequences/{sequence_id}/report", by="step"))["rows"]
        return dict(row)

    counts = await first()
    assert [counts[name] for name in ("sent", "opened", "opened_raw", "clicked", "clicked_raw")] == [1] * 5
    (click,) = [touch for touch in await world.nurture.told(TouchRecorded) if touch.type == "email_clicked"]
    now = datetime.now(UTC)
    head: dict[str, Any] = {"occurred_at": now, "received_at": now}
    credit = TouchCredit(
        touch_id=click.touch_id, origin="nurture", channel="Email", source="nurture", medium="email", campaign="Test",
        units=10, value_minor=60,
    )  # fmt: skip
    credits_told = CreditsChanged(
        event_id=EventId("credits-2"), lead_id=click.lead_id, conversion_id=ConversionId("c"), conversion_type="deal",
        converted_at=now, model="linear", model_version=1, revision=2, currency="EUR", value_minor=100,
        credits=(credit,), **head,
    )  # fmt: skip
    older = credits_told.model_copy(update={"event_id": EventId("credits-1"), "revision": 1, "credits": ()})
    reply = world.facts.touch(world.facts.lead_id(late), "email_replied", at=now)
    await world.tell(credits_told, older, reply, bought(world, late, 100, occurred_at=now))
    assert (await first())["conversions"] == 0, "nobody knows yet who that is"
    await world.tell(world.facts.merged(late, ann))
    counts = await first()
    assert (counts["conversions"], counts["replied"]) == (1, 1)
    assert counts["revenue"] == [{"currency": "EUR", "value_minor": 100}]
    assert counts["attributed_revenue"] == [{"model": "linear", "currency": "EUR", "value_minor": 60}]

    await world.tell(
        TouchWithdrawn(event_id=EventId("w1"), origin="nurture", touch_id=click.touch_id, reason="staff", **head),
        TouchWithdrawn(event_id=EventId("w2"), origin="api", touch_id=TouchId(reply.touch_id), reason="robot", **head),
    )
    counts = await first()
    assert [counts[name] for name in ("clicked", "clicked_raw", "replied")] == [0, 1, 0]
    await later(world, "1 minute")
    assert await follow(world, addresses(world, "h")[0]) == 204
    assert [(await first())[name] for name in ("opened", "opened_raw")] == [0, 1]
    address = addresses(world, "u")[0]
    assert (await world.nurture.client.post(address, data={"List-Unsubscribe": "One-Click"})).status_code == 200
    sheet = await world.nurture.client.get(
        f"/v1/sequences/{sequence_id}/report", headers={"accept": "text/csv"}, params={"by": "step"}
    )
    (line,) = csv.DictReader(StringIO(sheet.text))
    assert [line[name] for name in ("step_id", "unsubscribed", "revenue_EUR_minor", "attributed_linear_EUR_minor")] == [
        "first", "1", "100", "60"
    ]  # fmt: skip
    for query in ({"tz": "Mars/One"}, {"from": "2026-02-02", "to": "2026-02-01"}, {"from": "yesterday"}):
        answer = await world.nurture.client.get(f"/v1/sequences/{sequence_id}/report", params=query)
        assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"].startswith("query:")
    assert (await world.nurture.client.get("/v1/sequences/nothing/report")).status_code == 404
    for kind, token in (
        ("c", "AAAA"),
        ("c", addresses(world, "c")[0][3:-2] + "AA"),
        ("c", addresses(world, "u")[0][3:]),
    ):
        answer = await world.nurture.client.get(f"/{kind}/{token}", params={"url": "https://evil.example"})
        assert (answer.status_code, answer.headers.get("location")) == (404, None), "no way to anywhere else"


async def test_a_live_edit_leaves_everybody_the_wait_of_their_variant(world: World) -> None:
    def pause(long: int, short: int) -> dict[str, Any]:
        waits = zip(HALVES, (long, short), strict=True)
        variants = [variant | {"wait": {"days": days}} for variant, days in waits]
        return {"id": "pause", "wait": {"days": 1}, "experiment": {"id": "pace", "variants": variants}}

    last = {"id": "last", "send": MESSAGE["send"]}
    sequence_id = await saves(world, [pause(9, 5), last])
    await arrive(world, *PEOPLE)
    await world.send()
    before = {email: (await world.runs(email))[0]["due_at"] for email in PEOPLE}
    words = {"subject": "Other words", "text": "Hello"}
    for number, (steps, less) in enumerate(
        (([pause(9, 5), last | {"send": {"channel": "email", "template": words}}], 0), ([pause(8, 4), last], 1))
    ):
        document = {**SEQUENCE, "trigger": TRIGGER["trigger"], "steps": steps}
        answer = await world.nurture.client.put(
            f"/v1/sequences/{sequence_id}", json=document, params={"in_flight": "migrate"}
        )
        assert answer.status_code == 200, answer.text
        await world.nurture.run_timers()
        await world.send()
        for email in PEOPLE:
            (run,) = await world.runs(email)
            assert (run["sequence_version"], run["next_step_id"]) == (number + 2, "last")
            then = datetime.fromisoformat(before[email]) - timedelta(days=less)
            assert datetime.fromisoformat(run["due_at"]) == then
    assert world.inbox.accepted == []
