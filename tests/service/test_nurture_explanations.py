"""Why: of messages, runs, people who did not enter; and all that happened to a person, in order."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest_asyncio

from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import HELLO, NOW, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"}
LINKED = {"channel": "email", "template": {"subject": "Hello", "html": '<a href="https://example.com/a">A</a>'}}
DOCUMENT: dict[str, Any] = {
    "name": "By title",
    "trigger": "event.type == 'form_submitted' && lead.consent.email == 'granted' && lead.country == 'DE'",
    "active": True,
    "steps": [
        {"id": "one", "send": LINKED},
        {"id": "rest", "wait": {"days": 1}},
        {
            "id": "choose",
            "branch": [
                {"when": "stage == 'customer'", "to": "end"},
                {"when": "lead.first_name == 'Ann' && lead.country == 'DE'", "to": "german"},
            ],
            "else": "english",
        },
        {"id": "english", "send": HELLO, "next": "end"},
        {"id": "german", "send": HELLO},
    ],
}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        await made.nurture.client.put("/v1/sequences/welcome", json={**DOCUMENT, "name": "Off", "active": False})
        yield made


async def get(world: World, path: str, **params: Any) -> Any:
    answer = await world.nurture.client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def timeline(world: World, order: str, limit: int) -> list[dict[str, Any]]:
    """All of it, page by page."""
    entries: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = await get(world, "/v1/timeline", email=ANN, order=order, limit=limit, **more)
        assert len(page["items"]) <= limit
        entries += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return entries


async def test_a_message_a_run_and_a_past_explain_themselves(world: World) -> None:
    sequence_id = await world.saves(DOCUMENT)
    await world.feeds_are_fresh(fresh=False)
    await world.arrives(ANN, first_name="Ann", country="DE")
    await world.send()
    await world.send()
    (message,) = await world.messages(ANN)
    held = await get(world, f"/v1/messages/{message['message_id']}/explain")
    assert held["summary"] == "waits: what people consent to is not known to be fresh"
    assert [(one["reason"], one["looks"] > 0) for one in held["holds"]] == [(message["reason"], True)]
    await world.feeds_are_fresh()
    world.inbox.mode = "busy"
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    world.inbox.mode = "ok"
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    links = [part for part in world.inbox.accepted[0][1].walk() if part.get_content_type() == "text/html"]
    path = "/c/" + links[0].get_content().split("/nurture/c/")[1].split('"')[0]
    await world.nurture.client.get(path, headers={"user-agent": "python-httpx"})
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 hour'")
    await world.nurture.client.get(path, headers=BROWSER)
    lead_id = world.facts.lead_id(ANN)
    sent = await get(world, f"/v1/leads/{lead_id}/messages/{message['message_id']}/explain")
    assert (sent["state"], sent["sequence_id"], sent["sequence_version"], sent["attempts"]) == (
        "sent",
        sequence_id,
        1,
        2,
    )
    assert sent["summary"] == "sent: nothing spoke against it when it was claimed; consent for email is granted"
    assert (sent["consent"]["state"], sent["consent"]["origin"]) == ("granted", "api")
    assert sent["trigger"]["fact"] == {"type": "form_submitted", "origin": "api"}
    assert sent["trigger"]["values"]["lead.country"] == "DE"
    assert {"check": "takeover/unless_taken_over", "says": "allowed"} in sent["checks"]
    assert [answer["attempt"] for answer in sent["answers"]] == [1]
    assert "451" in sent["answers"][0]["answered"]
    assert len(sent["holds"]) == 1
    assert (sent["raw"], sent["filtered"]) == ({"opens": 0, "clicks": 1}, {"opens": 0, "clicks": 1})
    assert len(sent["responses"]) == 2
    await world.time_passes(timedelta(days=1))
    await world.send()
    run = await get(world, f"/v1/enrolments/{message['enrolment_id']}/explain")
    assert [(one["kind"], one["step_id"], one["next_step_id"]) for one in run["path"]] == [
        ("entered", None, "one"),
        ("message", "one", None),
        ("branch", "choose", "german"),
        ("message", "german", None),
    ]
    tried = run["path"][2]["because"]["tried"]
    assert [(one["holds"], one["why"]) for one in tried] == [(False, "stage is missing"), (True, "true")]
    assert tried[1]["values"] == {"lead.first_name": "known", "lead.country": "DE"}
    assert (run["state"], run["reason"]) == ("ended", "completed")
    await world.tell(world.facts.stage(ANN, "mql"), world.facts.consent(ANN, "denied", at=NOW + timedelta(hours=1)))
    kinds = [entry["kind"] for entry in await timeline(world, "oldest", 200)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "consent_granted": 1,
        "consent_denied": 1,
        "run_started": 1,
        "run_turned": 1,
        "run_ended": 1,
        "message_planned": 2,
        "message_held": 1,
        "message_sent": 2,
        "email_clicked": 2,
        "stage_changed": 1,
    }
    assert kinds.index("run_started") < kinds.index("message_planned") <= kinds.index("message_held")
    paged = [await timeline(world, order, 3) for order in ("oldest", "newest")]
    assert paged[0] == paged[1][::-1] == await timeline(world, "oldest", 200)


async def test_why_somebody_did_not_enter(world: World) -> None:
    sequence_id = await world.saves(DOCUMENT)
    path = f"/v1/leads/{world.facts.lead_id(ANN)}/sequences/{sequence_id}/explain"
    await world.tell(await world.facts.captured(ANN, country="FR"), world.facts.form(ANN))
    found = await get(world, path, event="form_submitted")
    assert found["would_enter"] == "no"
    assert [(one["source"], one["holds"]) for one in found["conditions"]] == [
        ("event.type == 'form_submitted'", True),
        ("lead.consent.email == 'granted'", False),
        ("lead.country == 'DE'", False),
    ]
    assert "lead.consent is missing" in found["obstacles"][0]
    assert [fact["type"] for fact in found["waiting_facts"]] == ["form_submitted"]
    assert [(one["channel"], one["allowed"]) for one in found["permissions"]] == [("email", False)]
    await world.tell(await world.facts.captured(ANN, 2, country="DE"))
    await world.tell(world.facts.consent(ANN))
    found = await get(world, path)
    assert (found["would_enter"], found["obstacles"]) == ("no", ["the person is in the sequence already"])
    assert found["conditions"][0]["holds"] is None


async def test_what_is_not_there_is_not_explained(world: World) -> None:
    for path, status in (
        ("/v1/messages/nothing/explain", 404),
        ("/v1/enrolments/nothing/explain", 404),
        ("/v1/leads/nobody/timeline", 404),
        ("/v1/timeline?email=ann", 422),
        ("/v1/timeline?email=ann%40example.com&order=sideways", 422),
        ("/v1/timeline?email=ann%40example.com&limit=0", 422),
    ):
        assert (await world.nurture.client.get(path)).status_code == status, path
