"""A human takes over: marketing to the person waits, keeps its place, and goes on by the stated rule."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest_asyncio

from shared.events import (
    AccountChanged,
    AssignmentAccepted,
    AssignmentRejected,
    DealChanged,
    DealStakeholder,
    Event,
    LeadAssigned,
    PauseAsked,
    PauseEnded,
    TouchRecorded,
)
from shared.ids import AccountId, AssignmentId, DealId, EventId, LeadId, RepId, new_id
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import HELLO, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN, BEN, CAT = "ann@example.com", "ben@example.com", "cat@example.com"
NOW = datetime.now(UTC)
DRIP: dict[str, Any] = {
    "name": "Drip",
    "trigger": "event.type == 'content_downloaded'",
    "active": True,
    "steps": [{"id": "one", "send": HELLO}, {"id": "rest", "wait": {"days": 1}}, {"id": "two", "send": HELLO}],
}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        for email in (ANN, BEN, CAT):
            await made.tell(await made.facts.captured(email), made.facts.consent(email))
        yield made


def made(world: World, kind: type[Event], email: str, at: datetime = NOW, **fields: Any) -> Any:
    """What routing tells about a lead."""
    head: dict[str, Any] = {
        "event_id": EventId(new_id()),
        "lead_id": world.facts.lead_id(email),
        "occurred_at": at,
        "received_at": at,
    }
    return kind(**head, **fields)


def assigned(world: World, email: str, name: str = "a1", revision: int = 1, at: datetime = NOW) -> LeadAssigned:
    fields = {"assignment_id": AssignmentId(name), "revision": revision, "rep_id": RepId("rep")}
    told: LeadAssigned = made(
        world, LeadAssigned, email, at, **fields, queue="all", strategy="round_robin", rules_version=1
    )
    return told


def deal(
    world: World, status: str, revision: int, *also: str, email: str = ANN, opened_at: datetime = NOW
) -> DealChanged:
    told: DealChanged = made(
        world,
        DealChanged,
        email,
        deal_id=DealId("deal"),
        revision=revision,
        name="",
        status=status,
        stage="negotiation",
        probability=70,
        value_minor=1_000,
        currency="EUR",
        opened_at=opened_at,
        closed_at=None if status == "open" else NOW,
        stakeholders=tuple(DealStakeholder(lead_id=world.facts.lead_id(one), role="buyer") for one in also),
    )
    return told


async def meeting(world: World, email: str, kind: str, starts_at: datetime) -> TouchRecorded:
    """What a scheduler tells: when the meeting is, is personal."""
    lead_id = world.facts.lead_id(email)
    runtime = world.nurture.runtime
    async with runtime.database.transaction() as tx:
        ciphers, _ = await runtime.keys.ciphers(tx.connection, [lead_id], NOW)
    said = orjson.dumps({"properties": {"starts_at": starts_at.isoformat()}})
    sealed = runtime.keys.seal(lead_id, ciphers[lead_id], said).decode()
    return world.facts.touch(lead_id, f"meeting_{kind}", personal=sealed)


async def downloads(world: World, *people: str) -> None:
    """They do what the drip begins with, and what is due is carried out."""
    await world.tell(*(world.facts.form(email, kind="content_downloaded") for email in people))
    await world.send()


async def why(world: World, email: str) -> str | None:
    """Why the person's last message has not left; None when it has."""
    last = (await world.messages(email))[-1]
    assert last["state"] in ("planned", "sent"), last
    return last["reason"] if last["state"] == "planned" else None


async def pauses(world: World, email: str) -> list[dict[str, Any]]:
    answer = await world.nurture.client.get("/v1/pauses", params={"email": email})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def policy(world: World, **changes: dict[str, Any]) -> None:
    """Another policy counts from now on, and the timer has seen it."""
    document = (await world.nurture.client.get("/v1/takeover")).json()["document"]
    for name, change in changes.items():
        document[name] = {**document[name], **change}
    answer = await world.nurture.client.put("/v1/takeover", json=document)
    assert answer.status_code == 200, answer.text
    timers = {timer.name: timer for timer in world.nurture.code.timers(world.nurture.consumer_runtime)}
    await timers["takeover"].run()


async def test_an_assignment_holds_what_is_unasked_until_the_rep_gives_the_lead_back(world: World) -> None:
    await world.saves(DRIP)
    await world.saves({**DRIP, "name": "Notices"}, purpose="transactional")
    await world.tell(assigned(world, ANN))
    await downloads(world, ANN)
    states = {message["sequence"]: (message["state"], message["reason"]) for message in await world.messages(ANN)}
    assert states["Notices"][0] == "sent"
    assert states["Drip"][0] == "planned"
    assert str(states["Drip"][1]).startswith("takeover/assignment: a rep was given the lead")
    (pause,) = await pauses(world, ANN)
    assert (pause["cause"], pause["pauses"], pause["lead_id"]) == ("assignment", "person", world.facts.lead_id(ANN))
    assert datetime.fromisoformat(pause["until"]) == NOW + timedelta(days=30)
    await world.tell(made(world, AssignmentAccepted, ANN, assignment_id=AssignmentId("a1"), rep_id=RepId("rep")))
    assert "took the lead" in (await pauses(world, ANN))[0]["why"]
    later = NOW + timedelta(minutes=1)
    rejected = made(world, AssignmentRejected, ANN, later, assignment_id="a1", rep_id="rep", reason="no budget")
    await world.tell(rejected, assigned(world, ANN))  # the assignment told again changes nothing
    assert await pauses(world, ANN) == []
    await world.send()
    assert world.inbox.subjects(ANN) == ["Hello you", "Hello you"]
    await world.tell(assigned(world, ANN, "a2", 2, later))  # another rep is tried
    assert [one["pause_id"] for one in await pauses(world, ANN)] == ["assignment:a2"]


async def test_what_answers_the_person_at_once_leaves_though_a_rep_was_offered_the_lead(world: World) -> None:
    """They download, scoring and routing are quick, and the answer is not held; what comes days later is."""
    await world.saves(DRIP)
    await world.tell(world.facts.form(ANN, kind="content_downloaded", at=NOW - timedelta(seconds=5)))
    await world.tell(assigned(world, ANN))
    await world.send()
    assert world.inbox.subjects(ANN) == ["Hello you"]
    await world.time_passes(timedelta(days=1))
    await world.send()
    assert str(await why(world, ANN)).startswith("takeover/assignment")


async def test_a_meeting_that_was_held_pauses_what_began_before_it_and_not_what_follows_it_up(world: World) -> None:
    await world.saves(DRIP)
    await world.saves(DRIP, name="Follow-up", trigger="event.type == 'meeting_held'")
    await world.tell(world.facts.form(ANN, kind="meeting_held"))
    await world.send()
    assert await why(world, ANN) is None
    early = NOW - timedelta(hours=1)
    await world.tell(world.facts.form(ANN, kind="content_downloaded", at=early))
    await world.send()
    assert str(await why(world, ANN)).startswith("takeover/meeting")
    assert [one["cause"] for one in await pauses(world, ANN)] == ["meeting"]


async def test_what_a_held_meeting_set_going_is_held_only_by_what_a_human_does_after_it(world: World) -> None:
    """Whoever holds a meeting has the lead, has called before, and has a deal open: all that holds no follow-up."""
    await world.saves(DRIP, name="Follow-up", trigger="event.type == 'meeting_held'")
    before = NOW - timedelta(days=1)
    await world.tell(assigned(world, ANN, at=before), world.facts.form(ANN, kind="call_connected", at=before))
    await world.tell(deal(world, "open", 1, opened_at=before))
    await world.tell(world.facts.form(ANN, kind="meeting_held"))
    await world.send()
    assert await why(world, ANN) is None
    await world.tell(world.facts.form(ANN, kind="rep_emailed"))
    await world.time_passes(timedelta(days=1))
    await world.send()
    assert str(await why(world, ANN)).startswith("takeover/contact")


async def test_a_sequence_says_what_pauses_it_and_a_pause_by_hand_does_always(world: World) -> None:
    """The shipped follow-up of a demo goes on though the demo made somebody a rep's."""
    follow_up = (await world.nurture.client.get("/v1/sequences/demo_follow_up")).json()["document"]
    assert "assignment" not in follow_up["pause_on"]
    wrong = await world.nurture.client.post("/v1/sequences", json={**DRIP, "pause_on": ["rain"]})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "/pause_on/0")
    sequence_id = await world.saves(DRIP, pause_on=["reply"])
    await world.tell(assigned(world, ANN), assigned(world, BEN, "b1"))
    await world.tell(world.facts.form(BEN, kind="email_replied"))
    await downloads(world, ANN, BEN)
    assert await why(world, ANN) is None
    assert str(await why(world, BEN)).startswith("takeover/reply")
    explained = await world.nurture.client.get(f"/v1/leads/{world.facts.lead_id(ANN)}/sequences/{sequence_id}/explain")
    assert explained.json()["pauses"] == []
    body = {"reason": "Ann asked for quiet"}
    await world.nurture.client.post(f"/v1/leads/{world.facts.lead_id(ANN)}/pauses", json=body)
    await world.time_passes(timedelta(days=1))
    await world.send()
    assert str(await why(world, ANN)).startswith("takeover/hand")


async def test_a_reply_pauses_from_silence_and_a_meeting_until_days_after_it(world: World) -> None:
    await world.saves(DRIP)
    await world.tell(world.facts.form(ANN, kind="email_replied", at=NOW - timedelta(days=3)))
    await world.tell(world.facts.form(ANN, kind="email_replied", automated=True))  # a machine's answer
    soon = NOW + timedelta(days=10)
    await world.tell(await meeting(world, BEN, "booked", soon))
    await downloads(world, ANN, BEN, CAT)
    assert str(await why(world, ANN)).startswith("takeover/reply")
    assert str(await why(world, BEN)).startswith("takeover/meeting")
    assert await why(world, CAT) is None
    assert [datetime.fromisoformat(one["until"]) for one in await pauses(world, BEN)] == [soon + timedelta(days=7)]
    assert [datetime.fromisoformat(one["until"]) for one in await pauses(world, ANN)] == [NOW + timedelta(days=11)]
    await world.tell(await meeting(world, BEN, "canceled", soon))
    await world.send()
    assert await why(world, BEN) is None
    await policy(world, reply={"resume_after_days": 2})
    await world.send()
    assert await why(world, ANN) is None


async def test_an_open_deal_pauses_the_buying_group_where_that_is_chosen_until_it_is_lost(world: World) -> None:
    """In every order of arrival; a deal that is reopened pauses again, one that is won does not."""
    await world.saves(DRIP)
    await world.tell(deal(world, "open", 2, BEN), deal(world, "lost", 1))
    assert [one["cause"] for one in await pauses(world, ANN)] == ["deal"]
    assert await pauses(world, BEN) == []
    await policy(world, deal={"pauses": "deal"})
    await downloads(world, ANN, BEN, CAT)
    assert [(await world.states(one))[-1] for one in (ANN, BEN, CAT)] == ["planned", "planned", "sent"]
    await world.tell(deal(world, "lost", 3, BEN))
    await world.send()
    assert [await why(world, one) for one in (ANN, BEN)] == [None, None]
    await world.tell(deal(world, "open", 4, BEN))
    assert [one["lead_id"] for one in await pauses(world, BEN)] == [world.facts.lead_id(ANN)]
    await world.tell(deal(world, "won", 5, BEN))
    assert await pauses(world, ANN) == []


async def test_a_company_pauses_together_where_that_is_chosen(world: World) -> None:
    """Also when one of two companies turns out to be the other, and by hand without any such policy."""
    acme = AccountId("acme")
    told = [await world.facts.captured(ANN, 2, account_id=acme), await world.facts.captured(BEN, 2, account_id="acme2")]
    kept = made(world, AccountChanged, ANN, revision=2, account_id="acme2", merged_into="acme")
    await world.tell(*told, kept, world.facts.form(ANN, kind="call_connected"))
    assert await pauses(world, BEN) == []
    await policy(world, contact={"pauses": "account"})
    (theirs,) = await pauses(world, BEN)
    assert (theirs["cause"], theirs["lead_id"]) == ("contact", world.facts.lead_id(ANN))
    assert await pauses(world, CAT) == []
    ben = f"/v1/leads/{world.facts.lead_id(BEN)}/pauses"
    assert (await world.nurture.client.delete(f"{ben}/{theirs['pause_id']}")).status_code == 204
    assert await pauses(world, BEN) == []
    assert len(await pauses(world, ANN)) == 1
    await policy(world, contact={"pauses": "nobody"})
    body = {"reason": "The boss of Ben called", "pauses": "account"}
    assert (await world.nurture.client.post(ben, json=body)).status_code == 201
    assert [one["cause"] for one in await pauses(world, ANN)] == ["hand"]


async def test_a_pause_by_hand_holds_until_its_time_or_until_it_is_ended(world: World) -> None:
    await world.saves(DRIP)
    path = f"/v1/leads/{world.facts.lead_id(ANN)}/pauses"
    for body, place in (
        ({}, "/reason"),
        ({"reason": ""}, "/reason"),
        ({"reason": "a\x00"}, "/reason"),
        ({"reason": "x", "until": (NOW - timedelta(days=1)).isoformat()}, "/until"),
        ({"reason": "x", "until": "2026-01-01T00:00:00"}, "/until"),
        ({"reason": "x", "pauses": "world"}, "/pauses"),
    ):
        refused = await world.nurture.client.post(path, json=body)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, place), refused.text
    assert (await world.nurture.client.post("/v1/leads/nobody/pauses", json={"reason": "x"})).status_code == 404
    until = (NOW + timedelta(days=9)).isoformat()
    same = {"idempotency-key": new_id()}
    first, again = [
        await world.nurture.client.post(path, json={"reason": "Ann is ill", "until": until}, headers=same) for _ in "12"
    ]
    assert (first.status_code, first.json()) == (201, again.json())
    await downloads(world, ANN)
    assert str(await why(world, ANN)).startswith("takeover/hand")
    (pause,) = await pauses(world, ANN)
    assert (pause["reason"], pause["pause_id"]) == ("Ann is ill", first.json()["pause_id"])
    assert (await world.nurture.client.delete(f"{path}/{pause['pause_id']}")).status_code == 204
    assert (await world.nurture.client.delete(f"{path}/{pause['pause_id']}")).status_code == 404
    await world.send()
    assert await why(world, ANN) is None


async def test_pauses_by_hand_and_their_ends_are_read_back_by_an_earlier_copy(world: World) -> None:
    """In which they are missing, also where the person is another one by now."""
    path = f"/v1/leads/{world.facts.lead_id(ANN)}/pauses"
    asked = [
        (await world.nurture.client.post(path, json={"reason": f"pause {n}", "pauses": "account"})).json()["pause_id"]
        for n in range(2)
    ]
    await world.tell(world.facts.merged(ANN, BEN))
    assert (await world.nurture.client.delete(f"{path}/{asked[0]}")).status_code == 204
    told = [*await world.nurture.told(PauseAsked), *await world.nurture.told(PauseEnded)]
    assert "pause 1" not in "".join(fact.model_dump_json() for fact in told)
    before = await pauses(world, ANN)
    assert [(one["pause_id"], one["reason"]) for one in before] == [(asked[1], "pause 1")]
    await world.tell(*(fact.model_copy(update={"event_id": EventId(new_id())}) for fact in told))
    assert await pauses(world, ANN) == before
    await world.execute("DELETE FROM pauses")
    await world.tell(*told)
    assert await pauses(world, ANN) == before


async def test_two_people_who_turn_out_to_be_one_are_paused_together_and_apart_again(world: World) -> None:
    await world.saves(DRIP)
    await world.tell(deal(world, "open", 1, email=BEN), world.facts.merged(BEN, into=ANN))
    await downloads(world, ANN)
    assert str(await why(world, ANN)).startswith("takeover/deal")
    await world.tell(world.facts.unmerged(BEN, into=ANN))
    await world.send()
    assert await why(world, ANN) is None
    assert len(await pauses(world, BEN)) == 1


async def test_a_run_that_was_held_for_longer_than_the_policy_allows_ends_with_the_reason(world: World) -> None:
    await world.saves(DRIP)
    await world.tell(deal(world, "open", 1))
    await downloads(world, ANN)
    await world.execute(
        "UPDATE messages SET decision = jsonb_set(decision, '{holds,0,since}', to_jsonb(now() - interval '91 days'))"
    )
    await world.time_passes(timedelta(hours=12))
    await world.send()
    (run,) = await world.runs(ANN)
    assert run["reason"].startswith("held for 90 days: takeover/deal")
    assert await world.states(ANN) == ["suppressed"]
    assert world.inbox.accepted == []


async def test_an_erased_person_leaves_nothing_that_tells_of_them(world: World) -> None:
    lead_id = LeadId(world.facts.lead_id(ANN))
    await world.nurture.client.post(f"/v1/leads/{lead_id}/pauses", json={"reason": "Ann is ill"})
    replied = world.facts.form(ANN, kind="email_replied")
    await world.tell(replied, world.facts.erased(ANN), world.facts.form(ANN, kind="sms_replied"))
    async with world.nurture.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM takeover_touches") == 0
        assert await connection.fetchval("SELECT count(*) FROM consent_words WHERE lead_id = $1", lead_id) == 0
        assert await connection.fetchval("SELECT num_nonnulls(reason, sealed) FROM pauses") == 0
