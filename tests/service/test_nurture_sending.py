"""Messages on real PostgreSQL and SMTP: each step at most once, only when allowed, and every outcome told."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.nurture.sending.looking import NO_PROVIDER, STALE_CONSENT
from services.nurture.sending.settling import DEAD_CLAIM
from shared.events import ConsentChanged, MessageClaimed, MessageSettled, TouchRecorded
from shared.settings import Settings
from shared.smtp import Envelope, Mailer, parse_server
from shared.testing import eventually, harness
from tests.service.nurture_world import HELLO, SEQUENCE, Facts, World, make_sender, open_inbox
from throughline.services import service_code

ANN = "ann@example.com"
BEN = "ben@example.com"
THREE_DAYS = timedelta(days=3)
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        senders = [make_sender(nurture.consumer_runtime, inbox.url)]
        made = World(nurture, inbox, Facts(nurture.runtime), senders)
        await made.feeds_are_fresh()
        yield made


async def test_the_welcome_sequence_sends_waits_and_sends_again(world: World) -> None:
    await world.arrives(ANN, first_name="Ann")
    await world.send()
    assert world.inbox.subjects(ANN) == ["Welcome, Ann"]
    await world.send()
    assert len(world.inbox.accepted) == 1
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert world.inbox.subjects(ANN) == ["Welcome, Ann", "How others get started"]
    assert [(message["step_id"], message["state"], message["subject"]) for message in await world.messages(ANN)] == [
        ("hello", "sent", "Welcome, Ann"),
        ("how_others_do_it", "sent", "How others get started"),
    ]
    (run,) = await world.runs(ANN)
    assert (run["state"], run["reason"]) == ("ended", "completed")
    assert [fact.step_id for fact in await world.nurture.told(MessageClaimed)] == ["hello", "how_others_do_it"]
    assert [fact.state for fact in await world.nurture.told(MessageSettled)] == ["sent", "sent"]


async def test_two_senders_and_replayed_facts_send_each_step_once(world: World) -> None:
    world.senders = [make_sender(world.nurture.consumer_runtime, world.inbox.url) for _ in range(2)]
    facts = []
    for number in range(12):
        email = f"lead{number}@example.com"
        facts += [await world.facts.captured(email), world.facts.consent(email), world.facts.form(email)]
    await world.tell(*facts)
    await asyncio.gather(world.send(), world.tell(*facts), world.tell(*facts))
    await world.time_passes(THREE_DAYS)
    await asyncio.gather(world.send(), world.tell(*facts))
    await world.send()
    for number in range(12):
        assert len(world.inbox.subjects(f"lead{number}@example.com")) == 2
    ids = [message["message-id"] for _, message in world.inbox.accepted]
    assert len(set(ids)) == len(ids) == 24


async def test_without_consent_a_step_is_suppressed_with_the_reason_and_the_run_goes_on(world: World) -> None:
    await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "active": False})
    await world.saves(trigger="event.type == 'form_submitted'")
    await world.tell(await world.facts.captured(ANN), world.facts.form(ANN))
    await world.send()
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [("suppressed", "no consent for email")]
    await world.tell(world.facts.consent(ANN))
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert await world.states(ANN) == ["suppressed", "sent"]


async def test_a_refusal_before_the_second_step_stops_it(world: World) -> None:
    await world.arrives(ANN)
    await world.send()
    await world.tell(world.facts.consent(ANN, "denied"))
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert len(world.inbox.accepted) == 1
    (run,) = await world.runs(ANN)
    assert run["reason"] == "consent for email is denied"


@pytest.mark.parametrize("feed", ["leads", "messages"])
async def test_while_a_feed_is_stale_a_message_waits_and_says_so(world: World, feed: str) -> None:
    await world.execute(
        "UPDATE feed_watermarks SET at = at - interval '2 hours' WHERE topic = $1 AND partition = 1", feed
    )
    await world.arrives(ANN)
    await world.send()
    (message,) = await world.messages(ANN)
    assert message["state"] == "planned"
    assert "not known to be fresh" in message["reason"]
    assert (await world.runs(ANN))[0]["waits_because"] == message["reason"]
    await world.feeds_are_fresh()
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    assert await world.states(ANN) == ["sent"]


async def test_a_refusal_that_arrives_while_consent_was_stale_withdraws_the_message(world: World) -> None:
    await world.feeds_are_fresh(fresh=False)
    await world.arrives(ANN)
    await world.send()
    assert [m["reason"] for m in await world.messages(ANN)] == [STALE_CONSENT]
    await world.tell(world.facts.consent(ANN, "denied"))
    await world.feeds_are_fresh()
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    assert world.inbox.accepted == []
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [
        ("suppressed", "consent for email is denied")
    ]
    assert [fact.state for fact in await world.nurture.told(MessageSettled)] == ["suppressed"]


async def test_a_parked_person_waits(world: World) -> None:
    await world.arrives(ANN)
    broken = (await world.facts.captured(ANN, revision=2)).model_copy(update={"personal": "AAAA"})
    await world.tell(broken)
    assert len(await world.nurture.parked()) == 1
    await world.send()
    (message,) = await world.messages(ANN)
    assert message["state"] == "planned"
    assert "parked" in message["reason"]


async def test_without_a_server_messages_stay_planned_and_leave_once_there_is_one(world: World) -> None:
    world.senders = [make_sender(world.nurture.consumer_runtime, None)]
    await world.arrives(ANN)
    await world.send()
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [("planned", NO_PROVIDER)]
    world.senders = [make_sender(world.nurture.consumer_runtime, world.inbox.url)]
    await world.send()
    assert await world.states(ANN) == ["sent"]


async def test_a_server_that_is_away_is_tried_again(world: World) -> None:
    world.senders = [make_sender(world.nurture.consumer_runtime, "smtp://127.0.0.1:1")]
    await world.arrives(ANN)
    await world.send()
    (message,) = await world.messages(ANN)
    assert message["state"] == "planned"
    assert message["reason"].startswith("the server was not reached")
    world.senders = [make_sender(world.nurture.consumer_runtime, world.inbox.url)]
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    assert await world.states(ANN) == ["sent"]
    assert [fact.state for fact in await world.nurture.told(MessageSettled)] == ["planned", "sent"]


async def test_a_busy_server_is_tried_again_and_a_refused_address_never(world: World) -> None:
    world.inbox.mode = "busy"
    await world.arrives(ANN)
    await world.send()
    assert await world.states(ANN) == ["planned"]
    world.inbox.mode = "refuses"
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    (message,) = await world.messages(ANN)
    assert (message["state"], message["attempts"]) == ("bounced", 2)
    listed = (await world.nurture.client.get("/v1/suppressions", params={"email": ANN})).json()["items"]
    assert [item["reason"] for item in listed] == ["bounced"]
    world.inbox.mode = "ok"
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert world.inbox.accepted == []
    assert [m["reason"] for m in await world.messages(ANN)][1] == "suppressed: bounced"


@pytest.mark.parametrize(
    ("mode", "state"), [("accepts_and_hangs_up", "unknown"), ("accepts_and_answers_5xx", "failed")]
)
async def test_a_server_that_accepts_and_says_otherwise_never_gets_a_step_twice(
    world: World, mode: Any, state: str
) -> None:
    world.inbox.mode = mode
    await world.arrives(ANN)
    await world.send()
    world.inbox.mode = "ok"
    await world.time_passes(timedelta(hours=1))
    await world.send()
    assert await world.states(ANN) == [state]
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert await world.states(ANN) == [state, "sent"]
    assert len(world.inbox.accepted) == 2


KILLED = """
import asyncio, sys
from shared.faults import arm
from shared.service import build_runtime
from shared.settings import Settings
from services.nurture.worker import timers
arm(sys.argv[1])
async def main():
    settings = Settings()
    sequences = timers(build_runtime("nurture", settings))[0]
    while True:
        wait = await sequences.run()
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


def process_environment(world: World) -> dict[str, str]:
    """What a process of its own has to know."""
    settings = world.nurture.settings
    return {
        **os.environ,
        "THROUGHLINE_DATABASE_URL": settings.database_url.get_secret_value(),
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "THROUGHLINE_SECRET": settings.secret.get_secret_value(),
        "THROUGHLINE_TOPIC_PARTITIONS": str(settings.topic_partitions),
        "THROUGHLINE_SMTP_URL": world.inbox.url,
    }


async def run_until_killed(world: World, failpoint: str) -> None:
    """The worker in a process of its own, until the failpoint kills it."""
    environment = process_environment(world)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, f"{failpoint}:1", env=environment)
    try:
        async with asyncio.timeout(60):
            assert await worker.wait() == -signal.SIGKILL
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


@pytest.mark.parametrize(("failpoint", "arrived"), [("after_intent_before_call", 0), ("after_call_before_outcome", 1)])
async def test_a_sender_killed_in_the_act_leaves_an_unknown_message_and_no_second_one(
    world: World, failpoint: str, arrived: int
) -> None:
    await world.arrives(ANN)
    await run_until_killed(world, failpoint)
    assert len(world.inbox.accepted) == arrived
    assert await world.states(ANN) == ["planned"]
    await world.send()
    assert len(world.inbox.accepted) == arrived, "the claim may still be alive"
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [("unknown", DEAD_CLAIM)]
    assert len(world.inbox.accepted) == arrived
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert await world.states(ANN) == ["unknown", "sent"]
    assert len(world.inbox.accepted) == arrived + 1


async def test_a_sender_that_is_stopped_in_the_act_finishes_it(world: World) -> None:
    world.inbox.go_on.clear()
    await world.arrives(ANN)
    sending = asyncio.create_task(world.send())
    await eventually(lambda: world.inbox.accepted)
    sending.cancel()
    world.inbox.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await world.states(ANN) == ["sent"]


async def test_an_outcome_that_comes_after_the_claim_was_given_up_is_still_noted(world: World) -> None:
    world.inbox.go_on.clear()
    world.senders.append(make_sender(world.nurture.consumer_runtime, world.inbox.url))
    await world.arrives(ANN)
    slow = asyncio.create_task(world.senders[0].run())
    await eventually(lambda: world.inbox.accepted)
    await world.time_passes(timedelta(minutes=1))
    await world.senders[1].run()
    assert await world.states(ANN) == ["unknown"]
    world.inbox.go_on.set()
    await slow
    assert await world.states(ANN) == ["sent"]
    assert len(world.inbox.accepted) == 1
    assert [fact.state for fact in await world.nurture.told(MessageSettled)] == ["unknown", "sent"]


async def test_a_sender_that_was_frozen_past_its_claim_hands_nothing_over(world: World) -> None:
    envelope = Envelope("hello@acme.example", ANN, b"Subject: late\r\n\r\nlate\r\n")
    mailer = Mailer(parse_server(world.inbox.url), 10)
    outcome = await mailer.deliver(envelope, lambda: False)
    assert (outcome.state, outcome.retry) == ("planned", True)
    assert world.inbox.accepted == []
    assert (await mailer.deliver(envelope, lambda: True)).state == "sent"
    assert (await mailer.deliver(envelope, lambda: True)).state == "sent"
    await mailer.close()


async def test_a_refusal_under_another_id_counts_for_the_person(world: World) -> None:
    await world.arrives(ANN)
    await world.tell(world.facts.merged(BEN, into=ANN))
    await world.tell(world.facts.consent(BEN, "denied"))
    await world.send()
    assert world.inbox.accepted == []
    assert (await world.runs(ANN))[0]["reason"] == "consent for email is denied"


async def test_a_merge_into_somebody_who_refused_ends_the_run(world: World) -> None:
    await world.arrives(ANN)
    await world.tell(await world.facts.captured(BEN), world.facts.consent(BEN, "denied"))
    await world.tell(world.facts.merged(ANN, into=BEN))
    await world.send()
    assert world.inbox.accepted == []
    assert [run["reason"] for run in await world.runs(BEN)] == ["consent for email is denied"]


async def test_two_people_who_turn_out_to_be_one_do_not_get_a_step_twice(world: World) -> None:
    """Even when the merge is only known between the two sends of the step, and the second run lives on."""
    await world.arrives(ANN)
    await world.send()
    await world.arrives(BEN)
    await world.execute(
        "UPDATE enrolments SET started_at = started_at - interval '1 day' WHERE lead_id = $1", world.facts.lead_id(BEN)
    )
    await world.tell(world.facts.merged(BEN, into=ANN))
    await world.send()
    assert sorted((m["step_id"], m["state"]) for m in await world.messages(ANN)) == [
        ("hello", "sent"),
        ("hello", "suppressed"),
    ]
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert len(world.inbox.accepted) == 2


async def test_a_database_that_is_an_earlier_copy_sends_nothing_again(world: World) -> None:
    """What was decided comes back from the log of decisions before anything is sent."""
    await world.arrives(ANN)
    await world.send()
    decided = [*await world.nurture.told(MessageClaimed), *await world.nurture.told(MessageSettled)]
    await world.execute("DELETE FROM messages")
    await world.execute(
        "UPDATE enrolments SET step_id = 'hello', visits = '{}', due_at = clock_timestamp(), active = true"
    )
    await world.feeds_are_fresh(fresh=False)
    world.senders = [make_sender(world.nurture.consumer_runtime, world.inbox.url)]
    await world.send()
    assert len(world.inbox.accepted) == 1
    await world.tell(*decided)
    await world.feeds_are_fresh()
    await world.time_passes(timedelta(minutes=1))
    await world.send()
    assert len(world.inbox.accepted) == 1
    assert await world.states(ANN) == ["sent"]
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert world.inbox.subjects(ANN)[1:] == ["How others get started"]


async def test_a_run_that_is_only_in_the_log_of_decisions_comes_back(world: World) -> None:
    from shared.events import EnrolmentStarted  # for one story

    await world.arrives(ANN)
    await world.send()
    told = [await world.nurture.told(kind) for kind in (EnrolmentStarted, MessageClaimed, MessageSettled)]
    await world.execute("DELETE FROM messages")
    await world.execute("DELETE FROM enrolments")
    await world.tell(*(fact for facts in told for fact in facts))
    (run,) = await world.runs(ANN)
    assert (run["state"], run["next_step_id"]) == ("active", "how_others_do_it")
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert world.inbox.subjects(ANN)[1:] == ["How others get started"]


async def test_a_loop_sends_its_step_once_per_visit(world: World) -> None:
    steps = [
        {"id": "again", "send": HELLO},
        {"id": "rest", "wait": {"days": 1}},
        {"id": "choose", "branch": [{"when": "stage == 'mql'", "to": "end"}], "else": "again"},
    ]
    await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "steps": steps})
    await world.arrives(ANN)
    for _ in range(3):
        await world.send()
        await world.time_passes(timedelta(days=1))
    await world.tell(world.facts.stage(ANN, "mql"))
    await world.send()
    assert [message["visit"] for message in await world.messages(ANN)] == [1, 2, 3]
    assert (await world.runs(ANN))[0]["reason"] == "completed"


async def test_what_cannot_be_rendered_or_mailed_fails_and_says_why(world: World) -> None:
    bare = {"channel": "email", "template": {"subject": "{{ lead.first_name }}", "text": "{{ lead.company }}"}}
    await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "steps": [{"id": "a", "send": bare}]})
    await world.arrives(ANN, first_name="Ann")
    await world.arrives(BEN, first_name="Ben\r\nBcc: eve@example.com", company="B")
    await world.send()
    assert world.inbox.accepted == []
    (missing,), (injected,) = await world.messages(ANN), await world.messages(BEN)
    assert (missing["state"], missing["reason"]) == (
        "failed",
        "the template cannot be filled: lead.company is missing and has no default",
    )
    assert (injected["state"], injected["reason"]) == (
        "failed",
        "the subject holds a line break or a control character",
    )


async def test_the_suppression_list_stops_everything_and_can_be_lifted(world: World) -> None:
    client = world.nurture.client
    put = await client.post("/v1/suppressions", json={"email": "ANN@Example.com", "reason": "complained"})
    assert (put.status_code, put.json()["reason"]) == (201, "complained")
    await world.arrives(ANN)
    await world.send()
    assert [(m["state"], m["reason"]) for m in await world.messages(ANN)] == [("suppressed", "suppressed: complained")]
    assert (await client.delete(f"/v1/suppressions/{put.json()['suppression_id']}")).status_code == 204
    assert (await client.delete(f"/v1/suppressions/{put.json()['suppression_id']}")).status_code == 404
    assert (await client.post("/v1/suppressions", json={})).status_code == 422
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert await world.states(ANN) == ["suppressed", "sent"]


def links_in(world: World, kind: str, index: int = -1) -> list[str]:
    """The addresses of one kind in a message, as paths of the service."""
    body = world.inbox.accepted[index][1].get_body(("html",))
    assert body is not None
    return re.findall(rf"http://127\.0\.0\.1:8080/nurture(/{kind}/[\w-]+)", body.get_content())


async def test_a_click_leads_on_and_comes_back_as_one_touch(world: World) -> None:
    await world.arrives(ANN)
    await world.send()
    (link,) = links_in(world, "c")
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 minute'")
    for _ in range(3):
        answer = await world.nurture.client.get(link, headers={**BROWSER, "authorization": ""})
        assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.1:8080/tour")
    (touch,) = await world.nurture.told(TouchRecorded)
    assert touch.lead_id == world.facts.lead_id(ANN)
    assert (touch.type, touch.origin, touch.channel, touch.medium) == ("email_clicked", "nurture", "Email", "email")
    assert (touch.campaign, touch.content, touch.page) == ("Welcome", "hello", "http://127.0.0.1:8080/tour")
    assert not touch.automated


async def test_machines_clicks_are_told_as_such_and_do_not_hide_the_persons(world: World) -> None:
    await world.arrives(ANN)
    await world.send()
    (link,) = links_in(world, "c")
    (pixel,) = links_in(world, "o")
    client = world.nurture.client
    assert (await client.head(link, headers=BROWSER)).status_code == 302
    assert (await client.get(link, headers=BROWSER)).status_code == 302  # within two seconds of the send
    await world.execute("UPDATE messages SET claimed_at = claimed_at - interval '1 minute'")
    assert (await client.get(link, headers={"user-agent": "SomeScanner/1.0 bot"})).status_code == 302
    assert (await client.get(link, headers=BROWSER)).status_code == 302
    opened = await client.get(pixel, headers=BROWSER)
    assert (opened.status_code, opened.headers["content-type"]) == (200, "image/gif")
    touches = await world.nurture.told(TouchRecorded)
    assert [(touch.type, touch.automated) for touch in touches] == [
        ("email_clicked", True),
        ("email_clicked", False),
        ("email_opened", False),
    ]


async def test_no_address_of_ours_leads_anywhere_else(world: World) -> None:
    await world.arrives(ANN)
    await world.send()
    client = world.nurture.client
    (link,) = links_in(world, "c")
    for path in (
        "/c/nonsense",
        "/c/aHR0cHM6Ly9ldmlsLmV4YW1wbGU",
        f"{link[:-2]}AA",
        link.replace("/c/", "/u/"),
        "/c/%20",
    ):
        answer = await client.get(path, headers=BROWSER)
        assert answer.status_code == 404, path
        assert "location" not in answer.headers
    assert (await client.get("/o/nonsense")).status_code == 200
    assert await world.nurture.told(TouchRecorded) == []


async def unsubscribe_link(world: World) -> str:
    header = str(world.inbox.accepted[-1][1]["list-unsubscribe"])
    return header.removeprefix("<http://127.0.0.1:8080/nurture").removesuffix(">")


async def test_one_click_unsubscribes_at_once_and_only_a_post_does(world: World) -> None:
    await world.arrives(ANN)
    await world.send()
    client, link = world.nurture.client, await unsubscribe_link(world)
    page = await client.get(link, headers={"authorization": ""})
    assert page.status_code == 200
    assert '<form method="post">' in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert await world.nurture.told(ConsentChanged) == []
    for nothing_said in ({"something": "else"}, {f"field{number}": "x" for number in range(20)}):
        assert (await client.post(link, data=nothing_said)).status_code == 422
    assert (await client.post(f"{link[:-2]}AA", data={"List-Unsubscribe": "One-Click"})).status_code == 404
    for _ in range(2):
        answer = await client.post(link, data={"List-Unsubscribe": "One-Click"}, headers={"authorization": ""})
        assert answer.status_code == 200
    multipart = await client.post(link, files={"List-Unsubscribe": (None, "One-Click")})
    assert multipart.status_code == 200
    (consent,) = await world.nurture.told(ConsentChanged)
    assert (consent.lead_id, consent.channel, consent.state, consent.origin) == (
        world.facts.lead_id(ANN),
        "email",
        "denied",
        "nurture",
    )
    assert [touch.type for touch in await world.nurture.told(TouchRecorded)] == ["unsubscribed"]
    assert (await world.runs(ANN))[0]["reason"] == "unsubscribed"
    await world.time_passes(THREE_DAYS)
    await world.send()
    assert len(world.inbox.accepted) == 1


async def test_whoever_consents_again_is_written_to_again_and_may_leave_again(world: World) -> None:
    await world.nurture.client.put("/v1/sequences/welcome", json={**SEQUENCE, "reentry": "after_exit"})
    await world.arrives(ANN)
    await world.send()
    leave = {"List-Unsubscribe": "One-Click"}
    link = await unsubscribe_link(world)
    await world.nurture.client.post(link, data=leave)
    await world.tell(*await world.nurture.told(ConsentChanged))
    await world.tell(world.facts.form(ANN))
    await world.send()
    assert len(world.inbox.accepted) == 1
    await world.arrives(ANN)
    await world.send()
    assert len(world.inbox.accepted) == 2
    await world.nurture.client.post(link, data=leave)
    assert len(await world.nurture.told(ConsentChanged)) == 2
    assert [run["reason"] for run in await world.runs(ANN)] == ["unsubscribed", "unsubscribed"]


async def test_an_unsubscription_while_a_batch_is_sent_stops_all_that_is_not_claimed(world: World) -> None:
    for _ in range(8):
        await world.saves()
    await world.arrives(ANN)
    world.inbox.go_on.clear()
    sending = asyncio.create_task(world.send())
    await eventually(lambda: world.inbox.accepted)
    answer = await world.nurture.client.post(await unsubscribe_link(world), data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    world.inbox.go_on.set()
    await sending
    assert len(world.inbox.accepted) == len(await world.nurture.told(MessageClaimed)) == 1
    assert all(run["state"] == "ended" for run in await world.runs(ANN))


async def test_after_an_unsubscription_is_committed_nothing_is_claimed(world: World) -> None:
    people = [f"lead{number}@example.com" for number in range(8)]
    for email in people:
        await world.arrives(email)
    await world.send()
    await world.time_passes(THREE_DAYS)
    links = [str(message["list-unsubscribe"]).split("/nurture")[1].rstrip(">") for _, message in world.inbox.accepted]
    leave = {"List-Unsubscribe": "One-Click"}
    await asyncio.gather(world.send(), *(world.nurture.client.post(link, data=leave) for link in links))
    refused = {fact.lead_id: fact.occurred_at for fact in await world.nurture.told(ConsentChanged)}
    claims = await world.nurture.told(MessageClaimed)
    assert len(refused) == 8
    assert all(claim.occurred_at < refused[claim.lead_id] for claim in claims)
    assert len(claims) == len(world.inbox.accepted)
