"""What steps do beside sending: they wait for moments, split, act, skip forward; and a live edit moves runs along."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio

from services.nurture.privacy.queries import HELD
from shared.events import (
    AssignmentRequested,
    LeadUpdateRequested,
    NoticePersonal,
    RepNoticeRequested,
    StepPerformed,
    UpdatePersonal,
    WebhookPersonal,
    WebhookRequested,
)
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import HELLO, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
BEN = "ben@example.com"


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        senders = [make_sender(nurture.consumer_runtime, inbox.url) for _ in range(2)]
        made = World(nurture, inbox, Facts(nurture.runtime), senders)
        await made.feeds_are_fresh()
        answer = await nurture.client.get("/v1/sequences/welcome")
        await nurture.client.put("/v1/sequences/welcome", json={**answer.json()["document"], "active": False})
        yield made


async def personal(world: World, event: Any) -> bytes:
    """What a fact says of its person, opened with their key."""
    runtime = world.nurture.runtime
    async with runtime.database.reading() as connection:
        (text,) = await runtime.keys.open_many(connection, [(event.lead_id, event.personal)])
    assert text is not None
    return text


def document(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A sequence that a form starts."""
    trigger = "event.type == 'form_submitted' && lead.consent.email == 'granted'"
    return {"name": "Steps", "trigger": trigger, "active": True, "steps": list(steps), **more}


async def settle(world: World) -> None:
    """Carry out what is due until nothing is."""
    for _ in range(3):
        await world.send()


async def run_of(world: World, email: str, sequence_id: str) -> dict[str, Any]:
    return next(run for run in await world.runs(email) if run["sequence_id"] == sequence_id)


async def test_each_act_is_told_once_by_whichever_of_two_senders(world: World) -> None:
    other = await world.saves(
        document({"id": "stay", "wait": {"days": 9}}, {"id": "bye", "send": HELLO}, trigger="event.type == 'never'")
    )
    sequence_id = await world.saves(
        document(
            {"id": "half", "split": [{"id": "a", "weight": 50, "to": "mark"}, {"id": "b", "weight": 50, "to": "mark"}]},
            {"id": "mark", "update": {"use_case": "trial", "attributes.plan": "pro"}},
            {"id": "say", "notify": {"to": "owner", "subject": "Call", "text": "Call {{ lead.first_name }} now"}},
            {"id": "hook", "webhook": {"endpoint": "billing", "fields": ["email", "attributes.size", "title"]}},
            {"id": "rep", "assign": {"reason": "asked"}},
            {"id": "over", "enrol": {"sequence": other}},
            {"id": "rest", "wait": {"days": 1}},
            {"id": "out", "remove": {"sequence": other}},
            {"id": "won", "goal": {}},
        )
    )  # fmt: skip
    await world.arrives(ANN, first_name="Ann", attributes={"size": 7})
    await settle(world)
    told = world.nurture.told
    (update,), (notice,) = await told(LeadUpdateRequested), await told(RepNoticeRequested)
    (hook,), (rep,) = await told(WebhookRequested), await told(AssignmentRequested)
    assert UpdatePersonal.model_validate_json(await personal(world, update)).fields == {
        "use_case": "trial",
        "attributes.plan": "pro",
    }
    said = NoticePersonal.model_validate_json(await personal(world, notice))
    assert (said.to, said.subject, said.text) == ("owner", "Call", "Call Ann now")
    assert WebhookPersonal.model_validate_json(await personal(world, hook)).lead == {
        "email": ANN,
        "attributes.size": 7,
    }
    assert (hook.endpoint_id, hook.step_id, hook.visit, rep.reason) == ("billing", "hook", 1, "asked")
    assert (await run_of(world, ANN, other))["state"] == "active"
    run = await run_of(world, ANN, sequence_id)
    assert run["variants"]["half"] in ("a", "b")
    await world.time_passes(timedelta(days=1))
    await settle(world)
    assert (await run_of(world, ANN, other))["reason"].startswith("exit: removed by the sequence")
    assert (await run_of(world, ANN, sequence_id))["reason"] == "goal: won"
    acts = (await world.nurture.client.get(f"/v1/leads/{world.facts.lead_id(ANN)}/acts")).json()["items"]
    assert [(act["kind"], act["came_to"]) for act in acts[::-1]] == [
        ("update", "told"),
        ("notify", "told"),
        ("webhook", "told"),
        ("assign", "told"),
        ("enrol", "entered"),
        ("remove", "left"),
    ]
    assert len(await world.nurture.told(WebhookRequested)) == 1


async def test_an_earlier_copy_neither_enrols_nor_removes_anybody_again(world: World) -> None:
    """Whether what the step did, or only the run that it began, was read back before the step is due again."""
    other = await world.saves(
        document(
            {"id": "stay", "wait": {"days": 9}},
            {"id": "bye", "send": HELLO},
            trigger="event.type == 'page_view'",
            reentry="after_exit",
        )
    )
    steps = [{"id": "over", "enrol": {"sequence": other}}, {"id": "out", "remove": {"sequence": other}}]
    sequence_id = await world.saves(document(*steps, {"id": "rest", "wait": {"days": 1}}, {"id": "won", "goal": {}}))
    await world.arrives(ANN)
    await settle(world)
    told = await world.nurture.told(StepPerformed)
    assert [(fact.kind, fact.came_to) for fact in told] == [("enrol", "entered"), ("remove", "left")]

    async def acts() -> list[Any]:
        answer = await world.nurture.client.get(f"/v1/leads/{world.facts.lead_id(ANN)}/acts")
        return [(act["act_id"], act["kind"], act["at"], act["came_to"]) for act in answer.json()["items"]]

    before = await acts()
    await world.tell(world.facts.form(ANN, kind="page_view"))  # they come again of themselves, since they were removed
    for facts in (told, []):
        await world.execute("DELETE FROM acts")
        await world.tell(*facts)
        assert await acts() == (before if facts else [])
        await world.execute(
            "UPDATE enrolments SET step_id = 'over', visits = '{}', due_at = now(), waits_at = NULL"
            " WHERE sequence_id = $1",
            sequence_id,
        )
        await settle(world)
        runs = [(run["run"], run["state"]) for run in await world.runs(ANN) if run["sequence_id"] == other]
        assert [number for number, _ in runs] == [1, 2], "nobody enters again for what was done"
        assert not facts or runs[1] == (2, "active"), "nor leaves"
    assert [kind for _, kind, *_ in await acts()] == ["remove", "enrol"]


async def test_somebody_who_turns_out_to_have_had_a_step_does_not_have_it_again(world: World) -> None:
    """Under their other id, whose run goes on; it stands under both, also in what is exported."""
    await world.saves(
        document(
            {"id": "mark", "update": {"use_case": "trial"}},
            {"id": "rest", "wait": {"days": 1}},
            {"id": "x", "goal": {}},
        )
    )
    await world.arrives(BEN)
    await world.execute("UPDATE enrolments SET due_at = now() + interval '1 hour'")
    await world.arrives(ANN)
    await settle(world)
    await world.tell(world.facts.merged(BEN, ANN))
    await world.execute("UPDATE enrolments SET due_at = now() WHERE active AND step_id = 'mark'")
    await settle(world)
    assert [run["state"] for run in await world.runs(ANN)] == ["active", "ended"], (
        "that of Ben, which is the earlier one"
    )
    (told,) = await world.nurture.told(LeadUpdateRequested)
    assert told.lead_id == world.facts.lead_id(ANN)
    for email in (ANN, BEN):
        acts = await world.nurture.client.get(f"/v1/leads/{world.facts.lead_id(email)}/acts")
        assert [act["act_id"] for act in acts.json()["items"]] == [told.event_id]
    async with world.nurture.runtime.database.reading() as connection:
        (exported,) = await connection.fetch(HELD["acts"], [world.facts.lead_id(BEN), world.facts.lead_id(ANN)])
    assert exported["act_id"] == told.event_id


async def test_an_event_ends_a_wait_at_once_and_its_absence_leads_elsewhere(world: World) -> None:
    clicks = {"event": "event.type == 'email_clicked'", "timeout": {"days": 3}, "else": "nudge"}
    sequence_id = await world.saves(
        document(
            {"id": "hello", "send": HELLO},
            {"id": "clicks", "wait_until": clicks},
            {"id": "good", "exit": {"reason": "clicked"}},
            {"id": "nudge", "send": HELLO},
        )
    )
    await world.arrives(ANN)
    await world.arrives(BEN)
    await settle(world)
    run = await run_of(world, ANN, sequence_id)
    assert (run["next_step_id"], run["waits_at"]) == ("clicks", "clicks")
    await world.tell(world.facts.touch(world.facts.lead_id(ANN), "email_clicked"))
    await settle(world)
    assert (await run_of(world, ANN, sequence_id))["reason"] == "exit: clicked"
    assert (await run_of(world, BEN, sequence_id))["state"] == "active"
    await world.time_passes(timedelta(days=3))
    await settle(world)
    assert (await run_of(world, BEN, sequence_id))["reason"] == "completed"
    assert len(world.inbox.subjects(ANN)) == 1
    assert len(world.inbox.subjects(BEN)) == 2


async def test_a_date_that_moves_is_followed_and_a_goal_is_skipped_forward_to(world: World) -> None:
    soon = (datetime.now(UTC) + timedelta(days=40)).date().isoformat()
    past = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    until = {"date": "attributes.renewal_date", "offset_days": -30, "else": "none"}
    dated = await world.saves(
        document(
            {"id": "until", "wait_until": until},
            {"id": "due", "exit": {"reason": "due"}},
            {"id": "none", "exit": {"reason": "no date"}},
        )
    )
    jumping = await world.saves(
        document(
            {"id": "rest", "wait": {"days": 9}},
            {"id": "late", "send": HELLO},
            {"id": "paid", "goal": {"when": "event.type == 'conversion_recorded'", "jump": True, "unmet": "wait"}},
            {"id": "thanks", "exit": {"reason": "paid"}},
        )
    )
    await world.arrives(ANN, attributes={"renewal_date": soon})
    await world.arrives(BEN)
    await settle(world)
    assert (await run_of(world, BEN, dated))["reason"] == "exit: no date"
    assert (await run_of(world, ANN, dated))["state"] == "active"
    await world.tell(await world.facts.captured(ANN, revision=2, attributes={"renewal_date": past}))
    await world.tell(world.facts.conversion(ANN))
    await settle(world)
    assert (await run_of(world, ANN, dated))["reason"] == "exit: due"
    assert (await run_of(world, ANN, jumping))["reason"] == "exit: paid"
    assert world.inbox.accepted == []


async def test_runs_under_way_migrate_with_the_time_they_have_waited(world: World) -> None:
    client = world.nurture.client
    first = document({"id": "rest", "wait": {"days": 9}}, {"id": "gone", "send": HELLO}, {"id": "last", "send": HELLO})
    sequence_id = await world.saves(first)
    await world.arrives(ANN)
    await settle(world)
    await world.time_passes(timedelta(days=2))
    shorter = document({"id": "rest", "wait": {"days": 5}}, {"id": "new", "send": HELLO}, {"id": "last", "send": HELLO})
    saved = await client.put(f"/v1/sequences/{sequence_id}", json=shorter, params={"draft": True})
    assert saved.json()["version"] == 2
    preview = await client.post(f"/v1/sequences/{sequence_id}:preview-migration", json={"version": 2})
    assert (preview.json()["runs"], preview.json()["groups"][0]["to_step_id"]) == (1, "new")
    wrong = {"version": 2, "in_flight": "migrate", "steps": {"gone": "nowhere"}}
    assert (await client.post(f"/v1/sequences/{sequence_id}:activate", json=wrong)).status_code == 422
    stale = {"If-Match": '"2"'}
    body = {"version": 2, "in_flight": "migrate"}
    assert (await client.post(f"/v1/sequences/{sequence_id}:activate", json=body, headers=stale)).status_code == 409
    answer = await client.post(f"/v1/sequences/{sequence_id}:activate", json=body, headers={"If-Match": '"1"'})
    assert answer.json()["in_flight"] == {"choice": "migrate", "runs": 1}
    await world.nurture.run_timers()
    run = await run_of(world, ANN, sequence_id)
    left = datetime.fromisoformat(run["due_at"]) - datetime.now(UTC)
    assert (run["sequence_version"], run["next_step_id"]) == (2, "new")
    assert timedelta(days=2, hours=23) < left < timedelta(days=3, hours=1)
    back = await client.post(f"/v1/sequences/{sequence_id}:rollback")
    assert (back.json()["version"], back.json()["sequence_id"]) == (1, sequence_id)
    history = (await client.get(f"/v1/sequences/{sequence_id}/activations")).json()["items"]
    assert [item["version"] for item in history] == [1, 2, 1]
    diff = (await client.get(f"/v1/sequences/{sequence_id}:diff", params={"from": 1, "to": 2})).json()
    assert not diff["same"]
    for path in ("none:rollback", "none:diff"):
        assert (await client.post(f"/v1/sequences/{path}", json={})).status_code == 404
    await world.time_passes(timedelta(days=3))
    await settle(world)
    assert [message["step_id"] for message in await world.messages(ANN)] == ["new", "last"]


async def test_one_enrolment_per_policy_by_four_at_once(world: World) -> None:
    steps = ({"id": "in", "wait": {"days": 1}}, {"id": "out", "send": HELLO})
    always = await world.saves(document(*steps, reentry="always", most_entries=2))
    await world.tell(await world.facts.captured(ANN), world.facts.consent(ANN))
    for _ in range(3):
        await asyncio.gather(*(world.tell(world.facts.form(ANN)) for _ in range(4)))
        await settle(world)
        await world.time_passes(timedelta(days=1))
        await settle(world)
    runs = [run for run in await world.runs(ANN) if run["sequence_id"] == always]
    assert [(run["run"], run["state"]) for run in runs] == [(1, "ended"), (2, "ended")]


async def test_a_simulation_of_one_person_says_what_would_happen_and_does_nothing(world: World) -> None:
    steps = [
        {"id": "hello", "send": HELLO},
        {"id": "clicks", "wait_until": {"event": "event.type == 'email_clicked'", "timeout": {"days": 3}}},
        {"id": "say", "notify": {"subject": "Look", "text": "Look"}},
    ]
    draft = document(*steps)
    body: dict[str, Any] = {
        "document": draft,
        "now": "2026-11-26T09:00:00Z",
        "person": {"lead": {"email": ANN, "country": "DE"}, "consent": {"email": "granted"}},
        "facts": [{"type": "form_submitted"}, {"type": "email_clicked", "after_minutes": 90}],
    }
    url = "/v1/sequences/welcome:simulate"
    answer = await world.nurture.client.post(url, json=body)
    assert answer.status_code == 200, answer.text
    told = [(one["at"], one["what"], one["step_id"]) for one in answer.json()["happenings"]]
    assert told == [
        ("2026-11-26T09:00:00Z", "sends email", "hello"),
        ("2026-11-26T09:00:00Z", "waits", "clicks"),
        ("2026-11-26T10:30:00Z", "notify", "say"),
        ("2026-11-26T10:30:00Z", "ends", None),
    ]
    body["person"]["consent"] = {}
    assert (await world.nurture.client.post(url, json=body)).json()["enters"] is False
    for wrong in (
        {"person": {"lead": {"colour": "red"}}},
        {"facts": [{"type": "x", "fields": {"nix": 1}}]},
        {"days": 3},
    ):
        assert (await world.nurture.client.post(url, json={**body, **wrong})).status_code == 422
    valid = await world.nurture.client.post("/v1/sequences:validate", json=draft | {"exit": "event.typ == 'x'"})
    assert [(fault["pointer"], fault["column"]) for fault in valid.json()["errors"]] == [("/exit", 7)]
