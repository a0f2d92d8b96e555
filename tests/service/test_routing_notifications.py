"""Reps are told once, by the channel they want; what is not known to have arrived is not repeated; buttons act once."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from services.routing.notifications.handlers import Notifier
from services.routing.notifications.slack import signature
from services.routing.parts import make_parts
from services.routing.settings import RoutingSettings
from services.routing.webhooks.handlers import Deliverer
from shared.testing import make_settings
from tests.service.local_server import Asked, LocalServer, reply, serving
from tests.service.nurture_world import Inbox, open_inbox
from tests.service.routing_support import NOON, Routing, captured, entered, lead_id, routing_service

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"  # of Slack's own example


class Slack:
    """Slack as its documentation has it: chat.postMessage, incoming webhooks, response addresses; errors as told."""

    def __init__(self) -> None:
        self.server = LocalServer(respond=self._respond)
        self.next: list[bytes] = []
        self.posted: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []

    async def _respond(self, asked: Asked) -> bytes:
        body = orjson.loads(asked.body)
        if asked.target == "/answer":
            self.answered.append(body)
            return reply(200, {"ok": True})
        if self.next:
            return self.next.pop(0)
        if asked.target == "/api/chat.postMessage":
            if asked.headers.get("authorization") != "Bearer xoxb-1":
                return reply(200, {"ok": False, "error": "invalid_auth"})
            if not str(body.get("channel", "")).startswith("U"):
                return reply(200, {"ok": False, "error": "channel_not_found"})
        self.posted.append(body)
        if asked.target == "/api/chat.postMessage":
            return reply(200, {"ok": True, "channel": "D1", "ts": f"{len(self.posted)}.1"})
        return reply(200, b"ok")

    def buttons(self, index: int = -1) -> dict[str, str]:
        """What the buttons of a message say on being pressed."""
        (actions,) = [block for block in self.posted[index]["blocks"] if block["type"] == "actions"]
        return {button["action_id"]: button["value"] for button in actions["elements"]}


class World:
    """Routing with a mail server and a Slack beside it."""

    def __init__(self, routing: Routing, inbox: Inbox, slack: Slack, address: str) -> None:
        self.routing, self.inbox, self.slack, self.address = routing, inbox, slack, address
        parts = make_parts(routing.service.consumer_runtime)
        self.notifier = Notifier(parts, RoutingSettings())

    async def wishes(self, rep_id: str, **told: Any) -> Any:
        """Say how a rep wants to be told."""
        return await self.routing.client.put(f"/v1/reps/{rep_id}/notifications", json=told)

    async def ledger(self, query: str = "") -> list[dict[str, Any]]:
        """What was told, in order."""
        items = (await self.routing.client.get(f"/v1/notifications?limit=200&{query}")).json()["items"]
        return list(reversed(items))

    async def states(self, query: str = "") -> Counter[tuple[str, str]]:
        """How many of each channel became what."""
        return Counter((one["channel"], one["state"]) for one in await self.ledger(query))

    async def press(self, button: str, value: str, user: str, *, secret: str = SECRET, age: int = 0) -> int:
        """Press a button in Slack; what our answer to Slack is."""
        payload = {
            "type": "block_actions",
            "user": {"id": user},
            "actions": [{"action_id": button, "value": value, "type": "button"}],
            "response_url": f"{self.address}/answer",
        }
        body = urlencode({"payload": orjson.dumps(payload).decode()}).encode()
        stamp = str(int(self.routing.clock.now().timestamp()) - age)
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-slack-request-timestamp": stamp,
            "x-slack-signature": signature(secret, stamp, body),
            "authorization": "",
        }
        status = 503
        while status == 503:  # too slow for Slack's three seconds: whoever pressed it presses again
            status = (await self.routing.client.post("/hooks/slack", content=body, headers=headers)).status_code
        await self.notifier.run()
        return status


@pytest.fixture
async def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    slack = Slack()
    async with open_inbox() as inbox, serving(slack.server) as address:
        monkeypatch.setenv("THROUGHLINE_ROUTING_SLACK_API_URL", f"{address}/api")
        monkeypatch.setenv("THROUGHLINE_ROUTING_SLACK_BOT_TOKEN", "xoxb-1")
        monkeypatch.setenv("THROUGHLINE_ROUTING_SLACK_SIGNING_SECRET", SECRET)
        here = frozenset({"127.0.0.1"})
        settings = make_settings(database_url, outbound_private_hosts=here, smtp_url=inbox.url)
        async with routing_service(settings) as routing:
            yield World(routing, inbox, slack, address)


async def test_a_rep_is_told_once_by_email_without_a_word_about_the_person(world: World) -> None:
    await world.routing.hire("ann", time_zone="Europe/Vienna")
    await world.routing.put_rules()
    await world.routing.qualify("one", company="Secret Ltd")
    others = [Notifier(make_parts(world.routing.service.runtime), RoutingSettings()) for _ in range(2)]
    await asyncio.gather(*(each.run() for each in (world.notifier, *others)))
    ((recipient, mail),) = world.inbox.accepted
    assert (recipient, mail["subject"]) == ("ann@sales.example.com", "A new lead is yours")
    text = mail.get_content()
    assert "by Wed 25 Nov, 14:00" in text
    assert f"/leads/{lead_id('one')}" in text
    assert "Secret" not in mail.as_string()
    assert await world.states() == {("email", "sent"): 1}
    await world.routing.pass_time(timedelta(minutes=30))
    await world.notifier.run()
    assert [str(mail["subject"]) for _, mail in world.inbox.accepted][1:] == ["Reminder: a lead of yours waits"]


async def test_what_may_have_arrived_is_not_said_again_and_what_has_not_is(world: World) -> None:
    ann = await world.routing.hire("ann")
    world.inbox.mode = "accepts_and_hangs_up"
    await world.routing.qualify("one")
    await world.notifier.run()
    world.inbox.mode = "busy"
    await world.routing.qualify("two")
    await world.notifier.run()
    assert await world.states() == {("email", "unknown"): 1, ("email", "planned"): 1}
    world.inbox.mode = "ok"
    world.routing.clock.move(timedelta(minutes=1))
    await world.notifier.run()
    assert await world.states() == {("email", "unknown"): 1, ("email", "sent"): 1}
    assert len(world.inbox.accepted) == 2
    world.inbox.mode = "refuses"
    await world.routing.qualify("three")
    await world.notifier.run()
    assert (await world.ledger(f"rep_id={ann}"))[-1]["state"] == "failed"
    async with world.routing.service.runtime.database.reading() as connection:  # a sender killed in the middle
        await connection.execute("UPDATE notifications SET state = 'planned', claim = 'x', claim_until = $1", NOON)
    world.inbox.mode = "ok"
    await world.notifier.run()
    assert await world.states() == {("email", "unknown"): 3}
    assert len(world.inbox.accepted) == 2


KILLED = """
import asyncio, sys
from datetime import datetime
from services.routing.notifications.handlers import Notifier
from services.routing.parts import make_parts
from services.routing.settings import RoutingSettings
from shared.faults import arm
from shared.service import build_runtime
from shared.settings import Settings
from shared.testing import FrozenClock
arm(sys.argv[1])
runtime = build_runtime("routing", Settings(), clock=FrozenClock(datetime.fromisoformat(sys.argv[2])))
asyncio.run(Notifier(make_parts(runtime), RoutingSettings()).run())
"""


@pytest.mark.parametrize(("failpoint", "arrived"), [("after_notification_claim", 0), ("after_notification_call", 1)])
async def test_a_sender_killed_in_the_act_leaves_one_unknown_line_and_no_second_message(
    world: World, failpoint: str, arrived: int
) -> None:
    await world.routing.hire("ann")
    await world.routing.qualify("one", "two")
    settings = world.routing.service.settings
    environment = {
        **os.environ,
        "THROUGHLINE_DATABASE_URL": settings.database_url.get_secret_value(),
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "THROUGHLINE_SECRET": settings.secret.get_secret_value(),
        "THROUGHLINE_SMTP_URL": world.inbox.url,
    }
    command = (sys.executable, "-c", KILLED, f"{failpoint}:1", world.routing.clock.now().isoformat())
    worker = await asyncio.create_subprocess_exec(*command, env=environment)
    async with asyncio.timeout(120):
        assert await worker.wait() == -signal.SIGKILL
    assert len(world.inbox.accepted) == arrived
    await world.notifier.run()
    world.routing.clock.move(timedelta(minutes=2))
    await world.notifier.run()
    assert await world.states() == {("email", "unknown"): 1, ("email", "sent"): 1}
    assert len(world.inbox.accepted) == arrived + 1


async def test_the_buttons_in_slack_work_once_and_for_the_rep_they_were_for(world: World) -> None:
    ann, bob = await world.routing.hire("ann"), await world.routing.hire("bob")
    await world.wishes(ann, channels={"assigned": ["slack"]}, slack_user_id="U111")
    await world.wishes(bob, channels={"assigned": ["slack"]}, slack_user_id="U222")
    await world.routing.qualify("one")
    await world.notifier.run()
    assert world.slack.posted[0]["channel"] == "U111"
    value = world.slack.buttons()["accept"]
    assert await world.press("accept", value, "U111", secret="wrong") == 401
    assert await world.press("accept", value, "U111", age=301) == 401
    assert await world.press("accept", value, "U222") == 200
    assert [one["replace_original"] for one in world.slack.answered] == [False]
    assert world.slack.answered[0]["response_type"] == "ephemeral"
    assert (await world.routing.assignment("one"))["state"] == "offered"
    assert await world.press("accept", value, "U111") == 200
    assert (await world.routing.assignment("one"))["state"] == "accepted"
    assert world.slack.answered[1]["replace_original"] is True
    assert not [block for block in world.slack.answered[1]["blocks"] if block["type"] == "actions"]
    assert await world.press("accept", value, "U111") == 200  # twice is once
    assert await world.press("reject", value, "U111") == 200  # the other button, pressed beside it
    assert await world.routing.owner("one") == ann
    assert "accepted by now" in world.slack.answered[-2]["text"]
    await world.routing.qualify("two")
    await world.notifier.run()
    value = world.slack.buttons()["reject"]
    assert await world.press("reject", value, "U222") == 200
    assert await world.routing.owner("two") == ann
    before = len(world.slack.answered)
    assert await world.press("accept", value, "U222") == 200  # too late
    late = world.slack.answered[before:]
    assert [one["replace_original"] for one in late] == [False, True]
    assert "not possible" in late[0]["text"]
    assert await world.press("accept", "no-such-message", "U222") == 200
    for body in (b"", b"payload=", b"payload={}", b"payload=[]", b"\xff", urlencode({"payload": "null"}).encode()):
        stamp = str(int(world.routing.clock.now().timestamp()))
        headers = {"x-slack-request-timestamp": stamp, "x-slack-signature": signature(SECRET, stamp, body)}
        assert (await world.routing.client.post("/hooks/slack", content=body, headers=headers)).status_code == 400


async def test_slack_is_obeyed_and_its_doubts_are_kept(world: World) -> None:
    ann = await world.routing.hire("ann")
    await world.wishes(ann, channels={"assigned": ["slack"]}, slack_user_id="U111")
    world.slack.next = [reply(429, b"", retry_after="90")]
    await world.routing.qualify("one")
    await world.notifier.run()
    world.routing.clock.move(timedelta(seconds=80))
    await world.notifier.run()
    assert await world.states() == {("slack", "planned"): 1}
    world.routing.clock.move(timedelta(seconds=11))
    await world.notifier.run()
    for name, answer in (
        ("two", reply(200, {"ok": False, "error": "internal_error"})),
        ("three", reply(200, {"ok": False, "error": "channel_not_found"})),
        ("four", reply(503, b"oops")),
    ):
        world.slack.next = [answer]
        await world.routing.qualify(name)
        await world.notifier.run()
    assert [one["state"] for one in await world.ledger()] == ["sent", "unknown", "failed", "unknown"]
    await world.wishes(
        ann, channels={"assigned": ["slack", "email"]}, slack_webhook_url=f"{world.address}/services/T/B/X"
    )
    world.slack.next = [reply(404, b"no_service")]
    await world.routing.qualify("five")
    await world.notifier.run()
    await world.routing.qualify("six")
    await world.notifier.run()
    assert [one["state"] for one in await world.ledger("channel=slack")][-2:] == ["failed", "sent"]
    assert "accept" in world.slack.buttons()
    assert await world.states("channel=email") == {("email", "sent"): 2}


async def test_a_webhook_tells_ids_and_times_and_the_ledger_follows_it(world: World) -> None:
    ann = await world.routing.hire("ann")
    server = LocalServer()
    async with serving(server) as address:
        made = (await world.routing.client.post("/v1/webhooks", json={"url": address})).json()
        await world.wishes(ann, channels={"assigned": ["webhook"]}, webhook_endpoint_id=made["endpoint_id"])
        await world.routing.qualify("one")
        await world.notifier.run()
        await world.notifier.run()
        assert await world.states() == {("webhook", "planned"): 1}
        await Deliverer(world.routing.service.consumer_runtime).run()
    await world.notifier.run()
    assert await world.states() == {("webhook", "sent"): 1}
    told = orjson.loads(server.asked[0].body)
    assert told["type"] == "throughline.rep.notified"
    assert (told["data"]["kind"], told["data"]["rep_id"], told["data"]["lead_id"]) == ("assigned", ann, lead_id("one"))


async def test_wishes_that_cannot_be_carried_out_are_refused(world: World) -> None:
    ann = await world.routing.hire("ann")
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"channels": {"assigned": ["pigeon"]}}, "/channels/assigned/0"),
        ({"channels": {"everything": ["email"]}}, "/channels/everything"),
        ({"channels": {"assigned": ["slack"]}}, ""),
        ({"channels": {"assigned": ["webhook"]}}, ""),
        ({"slack_user_id": "@ann"}, "/slack_user_id"),
        ({"slack_webhook_url": "https://10.0.0.1/x"}, "/slack_webhook_url"),
        ({"webhook_endpoint_id": "none"}, "/webhook_endpoint_id"),
    )
    for body, pointer in wrong:
        answer = await world.wishes(ann, **body)
        assert answer.status_code == 422, (body, answer.text)
        assert [fault["pointer"][: len(pointer)] for fault in answer.json()["errors"]] == [pointer], body
    assert (await world.wishes("none")).status_code == 404
    secret = await world.wishes(ann, slack_webhook_url=f"{world.address}/services/T/B/SECRET")
    assert secret.json()["has_slack_webhook"] is True
    assert "SECRET" not in secret.text
    async with world.routing.service.runtime.database.reading() as connection:
        assert "SECRET" not in str(await connection.fetch("SELECT * FROM rep_notifications"))
    for manager in (ann, "none"):
        answer = await world.routing.client.patch(f"/v1/reps/{ann}", json={"manager_id": manager})
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/manager_id"]


async def test_an_open_lead_goes_to_the_first_of_the_queue_who_claims_it(world: World) -> None:
    reps = [await world.routing.hire(name) for name in ("ann", "bob", "cho")]
    outsider = await world.routing.hire("dan", skills=["none"])
    for number, rep_id in enumerate(reps):
        await world.wishes(rep_id, channels={"claimable": ["slack"]}, slack_user_id=f"U{number}{number}")
    queue = {"id": "open", "members": [{"rep_id": one} for one in reps], "claim": True, "claim_minutes": 30}
    catch_all = {"queue": "open", "strategy": "round_robin", "sla": {"accept_minutes": 60}}
    await world.routing.put_rules(queues=[queue], catch_all=catch_all)
    client = world.routing.client
    await world.routing.qualify("one", "two", "three")
    listed = (await client.get("/v1/queues/open/claimable")).json()["items"]
    assert [one["lead_id"] for one in listed] == [lead_id(name) for name in ("one", "two", "three")] or len(listed) == 3
    assert (await client.get(f"/v1/queues/open/claimable?rep_id={outsider}")).json()["items"] == []
    assert (await client.get("/v1/queues/none/claimable")).status_code == 404
    assert (await world.routing.answer("one", "claim", rep_id=outsider)).status_code == 422
    assert (await world.routing.answer("one", "claim")).status_code == 422
    await client.patch(f"/v1/reps/{outsider}", json={"seniority": 3})  # what is open does not fall through by this
    await world.routing.service.run_timers()
    answers = await asyncio.gather(*(world.routing.answer("one", "claim", rep_id=one) for one in reps * 2))
    statuses = Counter(answer.status_code for answer in answers)
    winner = next(answer.json()["rep_id"] for answer in answers if answer.status_code == 200)
    assert statuses == {200: 2, 409: 4}
    claimed = await world.routing.assignment("one")
    assert (claimed["rep_id"], claimed["state"], claimed["strategy"]) == (winner, "accepted", "claim")
    await world.notifier.run()
    mine = {one["lead_id"]: one for one in await world.ledger(f"rep_id={reps[1]}&channel=slack")}[lead_id("two")]
    assert await world.press("claim", mine["notification_id"], "U11") == 200
    assert await world.routing.owner("two") == reps[1]
    await world.routing.pass_time(timedelta(minutes=29))
    assert await world.routing.owner("three") is None
    await world.routing.pass_time(timedelta(minutes=1))
    fallen = await world.routing.assignment("three")
    assert (fallen["state"], fallen["strategy"], fallen["rep_id"] in reps) == ("offered", "round_robin", True)
    assert all(kept == counted for kept, counted in (await world.routing.counted_loads()).values())


async def test_every_lead_that_does_not_move_has_a_call_that_moves_it(world: World) -> None:
    routing, client = world.routing, world.routing.client
    ann = await routing.hire("ann", capacity=3)
    sla = {"accept_minutes": 60, "touch_minutes": 60, "on_breach": "none"}
    await routing.put_rules(catch_all={"queue": "everybody", "strategy": "round_robin", "sla": sla})
    await routing.qualify("slow", "untouched", "left", "held")
    await routing.answer("untouched", "accept")
    await routing.service.deliver(captured("late"), entered("late", profile=7))
    assert [one["reason"] for one in (await client.get("/v1/stuck")).json()["items"]] == ["held"]
    await routing.pass_time(timedelta(minutes=62))
    bob = await routing.hire("bob")
    await routing.hire("cho", active=False)
    await client.post(f"/v1/leads/{lead_id('left')}/assignment:reassign", json={"rep_id": bob, "reason": "x"})
    await client.patch(f"/v1/reps/{bob}", json={"active": False})
    await client.patch(f"/v1/reps/{ann}", json={"capacity": 3})
    found = (await client.get("/v1/stuck")).json()["items"]
    reasons = {one["lead_id"]: one["reason"] for one in found}
    assert reasons[lead_id("left")] == "owner_inactive"
    assert reasons[lead_id("slow")] == "offer_overdue"
    assert reasons[lead_id("untouched")] == "untouched"
    assert (await client.get("/v1/stuck?reason=untouched")).json()["items"] == [
        one for one in found if one["reason"] == "untouched"
    ]
    paged, cursor, page = [], "", {"next_cursor": None}
    for _ in found:
        page = (await client.get(f"/v1/stuck?limit=1{cursor}")).json()
        paged += page["items"]
        cursor = f"&cursor={page['next_cursor']}"
    assert page["next_cursor"] is None
    assert paged == found
    for _ in range(2):  # an offer that is accepted late has nobody been in touch with
        for one in (await client.get("/v1/stuck")).json()["items"]:
            fix = one["fix"]
            answer = await client.request(fix["method"], fix["path"].removeprefix("/routing"), json=fix["body"])
            assert answer.status_code == 200, (one, answer.text)
    assert (await client.get("/v1/stuck")).json()["items"] == []
