"""Due steps by turns, the ledger under kills and merges, and messages of which nobody knew whether they had left."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest_asyncio

from services.nurture.channels.email import EmailChannel
from services.nurture.parts import make_parts
from services.nurture.sending import turns
from services.nurture.sending.handlers import Sender
from services.nurture.sending.reconciling import RULE, Reconciler
from services.nurture.sending.resending import Resender
from services.nurture.sending.turns import CLAIM_DUE, NEXT_DUE
from shared.events import MessageReported, MessageSettled
from shared.ids import EventId, MessageId
from shared.settings import Settings
from shared.smtp import Mailer, Outcome, parse_server
from shared.testing import eventually
from tests.service.nurture_world import HELLO, SEQUENCE, World, make_sender, open_world
from tests.service.test_nurture_sending import KILLED, process_environment

ANN = "ann@example.com"
BEN = "ben@example.com"
HOUR = timedelta(hours=1)
WAITING = """
INSERT INTO enrolments (enrolment_id, sequence_id, version, lead_id, run, cause_event_id, triggered_at, started_at,
    step_id, due_at)
SELECT $1::text || place, $1, 1, $1::text || place, 1, $1::text || place, now(), now(), 'hello',
    now() + $3::interval + make_interval(secs => place)
FROM generate_series(1, $2::integer) AS place
"""
_NUMBER = count(1)


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_world(settings) as made:
        yield made


def email_channel(world: World, connections: int = 1) -> EmailChannel:
    mailer = Mailer(parse_server(world.inbox.url), 60, connections)
    parts = make_parts(world.nurture.consumer_runtime)
    return EmailChannel(parts, parts.renderer, mailer)


def report(world: World, email: str, event: str, message_id: str) -> MessageReported:
    now = datetime.now(UTC)
    return MessageReported(
        event_id=EventId(f"report-{next(_NUMBER)}"),
        lead_id=world.facts.lead_id(email),
        occurred_at=now,
        received_at=now,
        origin="source",
        channel="email",
        event=event,
        message_id=message_id,
    )


async def becomes_unknown(world: World, *emails: str) -> None:
    """A message each whose server hangs up once it has it."""
    world.inbox.mode = "accepts_and_hangs_up"
    for email in emails:
        await world.arrives(email)
    await world.send()
    world.inbox.mode = "ok"


async def test_a_sequence_with_many_due_runs_leaves_room_for_one_with_few_and_no_table_is_read_through(
    world: World,
) -> None:
    for name, number, due in (("many", 3_000, -HOUR), ("few", 10, -HOUR / 2), ("later", 20_000, HOUR)):
        await world.execute(WAITING, name, number, due)
    await world.execute("ANALYZE enrolments")
    async with world.nurture.runtime.database.reading() as connection:
        first = await turns.claim_due(connection, "one", timedelta(minutes=1), 100)
        second = await turns.claim_due(connection, "two", timedelta(minutes=1), 100)
        plans = [await connection.fetch(f"EXPLAIN {NEXT_DUE}")]
        plans.append(await connection.fetch(f"EXPLAIN {CLAIM_DUE}", "claim", timedelta(minutes=1), 100))
    assert Counter(due.run.sequence_id for due in first) == {"many": 50, "few": 10}
    assert Counter(due.run.sequence_id for due in second) == {"many": 100}
    assert not {due.run.enrolment_id for due in first} & {due.run.enrolment_id for due in second}
    for plan in plans:
        text = "\n".join(row["QUERY PLAN"] for row in plan)
        assert "Seq Scan on enrolments" not in text, text
        assert "enrolments_turns" in text, text


async def test_what_is_found_too_late_is_skipped_with_the_reason_and_the_run_goes_on(world: World) -> None:
    steps = [
        {"id": "first", "send": HELLO, "overdue": {"skip_after": {"hours": 2}}},
        {"id": "second", "send": HELLO},
    ]
    saved = {**SEQUENCE, "steps": steps, "overdue": {"skip_after": {"days": 2}}}
    await world.nurture.client.put("/v1/sequences/welcome", json=saved)
    await world.feeds_are_fresh(fresh=False)
    await world.arrives(ANN)
    await world.send()
    await world.time_passes(timedelta(hours=3))  # held all the while
    await world.feeds_are_fresh()
    await world.send()
    first, second = await world.messages(ANN)
    assert (first["state"], first["reason"].startswith("overdue: it was meant for")) == ("suppressed", True)
    assert second["state"] == "sent"
    for bad, pointer in (
        ({**steps[0], "overdue": {"skip_after": {}}}, "/steps/0/overdue"),
        ({"id": "rest", "wait": {"days": 1}, "overdue": "send"}, "/steps/0"),
    ):
        answer = await world.nurture.client.put("/v1/sequences/welcome", json={**saved, "steps": [bad]})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"].startswith(pointer)) == (422, True)


async def test_a_slow_call_stops_neither_other_people_nor_steps_that_send_nothing(world: World) -> None:
    parts = make_parts(world.nurture.consumer_runtime)
    world.senders = [Sender(parts, {"email": email_channel(world, connections=4)})]
    steps = [{"id": "rest", "wait": {"days": 1}}, {"id": "last", "send": HELLO}]
    waiting = await world.saves(trigger="event.type == 'demo_requested'", steps=steps)
    world.inbox.go_on.clear()
    await world.arrives(ANN)
    sending = asyncio.create_task(world.send())
    await eventually(lambda: len(world.inbox.accepted) == 1)
    await world.arrives(BEN)
    await world.tell(world.facts.touch(world.facts.lead_id(BEN), "demo_requested"))
    await eventually(lambda: len(world.inbox.accepted) == 2)

    async def moved_on() -> bool:
        return [run["next_step_id"] for run in await world.runs(BEN) if run["sequence_id"] == waiting] == ["last"]

    await eventually(moved_on)
    assert not sending.done()
    world.inbox.go_on.set()
    await sending
    assert await world.states(ANN) == await world.states(BEN) == ["sent"]


async def test_a_step_that_is_at_fault_bears_it_alone(world: World) -> None:
    await world.arrives(ANN)
    await world.arrives(BEN)
    await world.execute("UPDATE enrolments SET step_id = 'nowhere' WHERE lead_id = $1", world.facts.lead_id(ANN))
    await world.send()
    assert await world.states(BEN) == ["sent"]
    assert (await world.runs(ANN))[0]["waits_because"] == "a fault: KeyError"


async def test_two_people_who_turn_out_to_be_one_while_both_wait_get_one_message(world: World) -> None:
    await world.feeds_are_fresh(fresh=False)
    await world.arrives(ANN)
    await world.arrives(BEN)
    await world.send()
    known_as = [world.facts.lead_id(email) for email in (BEN, ANN)]  # the merge is folded, and decides nothing yet
    await world.execute("INSERT INTO identity_aliases SELECT $1, $2, true, now(), 'merge'", *known_as)
    await world.feeds_are_fresh()
    await world.time_passes(timedelta(minutes=1))
    world.senders.append(make_sender(world.nurture.consumer_runtime, world.inbox.url))
    await world.send()
    assert sorted(await world.states(ANN)) == ["sent", "suppressed"]
    assert len(world.inbox.accepted) == 1


async def test_what_the_provider_reports_settles_a_message_however_often_and_in_whatever_order(world: World) -> None:
    await becomes_unknown(world, ANN)
    (message,) = await world.messages(ANN)
    this = message["message_id"]
    delivered, bounced = report(world, ANN, "delivered", this), report(world, ANN, "bounced", f"{this}@acme.example")
    await world.tell(report(world, ANN, "delivered", "another's"), delivered)
    assert await world.states(ANN) == ["delivered"]
    await world.tell(bounced, delivered, bounced, report(world, ANN, "delivered", this))
    assert await world.states(ANN) == ["bounced"]
    told = [fact.state for fact in await world.nurture.told(MessageSettled)]
    assert told == ["unknown", "delivered", "bounced"]
    world.inbox.go_on.clear()
    await world.arrives(BEN)
    sending = asyncio.create_task(world.send())
    await eventually(lambda: len(world.inbox.accepted) == 2)
    await world.tell(report(world, BEN, "delivered", (await world.messages(BEN))[0]["message_id"]))
    assert await world.states(BEN) == ["planned"]  # the call is not over
    world.inbox.mode = "accepts_and_hangs_up"
    world.inbox.go_on.set()
    await sending
    assert await world.states(BEN) == ["delivered"]
    assert (await world.runs(BEN))[0]["next_step_id"] == "how_others_do_it"


async def test_an_unknown_message_is_listed_and_a_person_decides_about_it_once(world: World) -> None:
    people = [ANN, BEN, "cid@example.com", "dot@example.com"]
    await becomes_unknown(world, *people)
    client = world.nurture.client
    listed = (await client.get("/v1/messages", params={"state": "unknown", "sequence": "welcome", "limit": 3})).json()
    more = (await client.get("/v1/messages", params={"state": "unknown", "cursor": listed["next_cursor"]})).json()
    assert len({item["message_id"] for item in listed["items"] + more["items"]}) == 4
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert (await client.get("/v1/messages", params={"since": tomorrow})).json()["items"] == []
    for bad in ({"state": "lost"}, {"since": "2026-01-01T00:00:00"}):
        assert (await client.get("/v1/messages", params=bad)).status_code == 422
    ids = {email: (await world.messages(email))[0]["message_id"] for email in people}
    for email, decision in zip(people, ("sent", "failed", "resend", "resend"), strict=True):
        body = {"as": decision, "reason": "the provider's log says so"}
        answers = await asyncio.gather(
            *(client.post(f"/v1/messages/{ids[email]}:resolve", json=body) for _ in range(2))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert (await client.post("/v1/messages/none:resolve", json={"as": "sent", "reason": "x"})).status_code == 404
    for bad_body in ({"as": "lost", "reason": "x"}, {"as": "sent"}, {"as": "sent", "reason": ""}):
        assert (await client.post(f"/v1/messages/{ids[ANN]}:resolve", json=bad_body)).status_code == 422
    await world.tell(world.facts.consent("dot@example.com", "denied"))
    parts = make_parts(world.nurture.consumer_runtime)
    resender = Resender(parts, {"email": email_channel(world)}, world.senders[0])
    await asyncio.gather(resender.run(), resender.run())
    assert [await world.states(email) for email in people] == [["sent"], ["failed"], ["sent"], ["suppressed"]]
    assert len(world.inbox.accepted) == 5
    shown = (await client.get(f"/v1/messages/{ids['cid@example.com']}")).json()
    assert (shown["attempts"], [each["decision"] for each in shown["decisions"]]) == (2, ["resend"])
    assert [run["next_step_id"] for run in await world.runs("cid@example.com")] == ["how_others_do_it"]


class Asked(EmailChannel):
    """Email through a provider that can be asked."""

    async def look_up(self, message_id: MessageId, claimed_at: datetime) -> Outcome | None:
        return Outcome("delivered", "the provider has it") if message_id == self.known else None

    known: str = ""


async def test_a_provider_is_asked_and_without_news_the_rule_counts_it_as_sent(world: World) -> None:
    await becomes_unknown(world, ANN, BEN)
    parts = make_parts(world.nurture.consumer_runtime)
    asked = Asked(parts, parts.renderer, Mailer(parse_server(world.inbox.url), 10))
    asked.known = (await world.messages(ANN))[0]["message_id"]
    await world.execute("UPDATE messages SET look_up_at = now()")
    await Reconciler(parts, {"email": asked}).run()
    assert (await world.states(ANN), await world.states(BEN)) == (["delivered"], ["unknown"])
    by_rule = parts.settings.model_copy(update={"unknown_counts_as_sent_after": timedelta(hours=6)})
    reconciler = Reconciler(replace(parts, settings=by_rule), {})
    await reconciler.run()
    assert await world.states(BEN) == ["unknown"]
    await world.execute("UPDATE messages SET settled_at = settled_at - interval '7 hours'")
    await reconciler.run()
    assert [(m["state"], m["reason"]) for m in await world.messages(BEN)] == [("sent", RULE)]
    assert len(world.inbox.accepted) == 2


async def test_f4_killed_anywhere_before_any_server_nobody_gets_a_step_twice_and_nobody_is_forgotten(
    world: World,
) -> None:
    people = [f"lead{number}@example.com" for number in range(16)]
    for email in people:
        await world.arrives(email)
    modes: list[Any] = ["ok", "accepts_and_hangs_up", "accepts_and_answers_5xx"]
    points = ["after_intent_before_call:1", "after_call_before_outcome:2", "after_outcome:1"]
    for mode, point in zip(modes, points, strict=True):
        world.inbox.mode = mode
        environment = {**process_environment(world), "THROUGHLINE_NURTURE_SEND_AT_ONCE": "4"}
        worker = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, point, env=environment)
        try:
            async with asyncio.timeout(90):
                assert await worker.wait() == -signal.SIGKILL
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        await world.time_passes(timedelta(minutes=1))  # what it had taken is free again
    world.inbox.mode = "ok"
    world.senders.append(make_sender(world.nurture.consumer_runtime, world.inbox.url))
    for _ in range(2):
        await world.time_passes(timedelta(minutes=1))
        await world.send()
    arrived = Counter(recipient for recipient, _ in world.inbox.accepted)
    assert set(arrived.values()) == {1}
    states = {email: (await world.states(email))[0] for email in people}
    assert all(states[email] in ("sent", "unknown", "failed") for email in people), states
    assert {email for email in people if states[email] != "unknown"} <= set(arrived)
    listed = (await world.nurture.client.get("/v1/messages", params={"state": "unknown"})).json()["items"]
    assert len(listed) == sum(state == "unknown" for state in states.values()) > 0
