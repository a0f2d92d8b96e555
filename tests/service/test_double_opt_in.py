"""Double opt-in through capture and nurture, over real Kafka, PostgreSQL and SMTP; and nurture's part by itself."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from services.nurture.channels.email import EmailChannel
from services.nurture.optins.handlers import OptinSender
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from shared.events import ConsentChanged, ConsentRequested, OptinPersonal, OptinRequested
from shared.ids import EventId, LeadId
from shared.settings import Settings
from shared.smtp import Mailer, parse_server
from shared.testing import FrozenClock, Harness, eventually, harness
from tests.service.capture_world import Capture
from tests.service.forms_world import ANN, Forms
from tests.service.nurture_world import Facts, Inbox, World, make_sender, open_inbox
from throughline.services import service_code

MESSAGE = "/v1/optin-message"


@dataclass
class Both:
    """Capture and nurture, with all their roles."""

    forms: Forms
    nurture: Harness
    inbox: Inbox

    async def link(self, email: str = ANN) -> str:
        """The path of the link that somebody was sent."""
        await eventually(lambda: self.inbox.subjects(email) == ["Please confirm: Contact"])
        body = self.inbox.accepted[0][1].get_body(("plain",))
        assert body is not None
        found = re.search(r"http://127.0.0.1:8080/capture(/confirm/\S+)", body.get_content())
        assert found is not None
        return found[1]

    async def consent(self) -> dict[str, Any]:
        lead = await self.forms.lead()
        assert lead is not None
        return dict((await self.forms.capture.get(f"leads/{lead['lead_id']}/consent")).json())


@asynccontextmanager
async def both(settings: Settings, inbox: Inbox) -> AsyncIterator[Both]:
    """Both services on one Kafka. Nurture sends as soon as it knows that it has read all that capture told."""
    settings = settings.model_copy(update={"smtp_url": inbox.url})
    clock = FrozenClock(datetime.now(UTC))
    async with (
        harness(service_code("capture"), settings, clock=clock) as api,
        harness(service_code("capture"), settings, kafka=True),
        harness(service_code("nurture"), settings, kafka=True) as nurture,
    ):
        yield Both(Forms(Capture(api), clock), nurture, inbox)


async def test_consent_counts_once_the_link_was_followed_and_its_button_pressed(kafka_settings: Settings) -> None:
    async with open_inbox() as inbox, both(kafka_settings, inbox) as world:
        forms = world.forms
        form_id = await forms.made(double_opt_in=True)
        answer = await forms.filled(form_id, email=ANN, news="on")
        assert "sent a link" in (await forms.client.get(f"/f/{answer.headers['location']}")).text
        consent = await world.consent()
        assert [(entry["purpose"], entry["state"]) for entry in consent["entries"]] == [("newsletter", "pending")]
        path = await world.link()
        page = await forms.client.get(path)
        assert "Send me news." in page.text
        assert '<form method="post">' in page.text
        assert len((await world.consent())["entries"]) == 1  # whoever only opens it confirms nothing
        forms.clock.move(timedelta(hours=1))
        for _ in range(2):
            assert "Confirmed" in (await forms.client.post(path, headers={"x-forwarded-for": "8.8.4.77"})).text
        granted, asked = (await world.consent())["entries"]
        assert (asked["state"], granted["state"]) == ("pending", "granted")
        proof = granted["evidence"]
        assert (proof["method"], proof["text"], proof["ip"]) == ("double_opt_in", "Send me news.", "8.8.4.0")
        assert len(await forms.capture.harness.told(ConsentChanged)) == 1
        assert len(inbox.accepted) == 1
        html = inbox.accepted[0][1].get_body(("html",))
        assert html is not None
        assert "/nurture/" not in html.get_content()  # nobody is tracked who has not agreed
        (message,) = (await world.nurture.client.get("/v1/messages", params={"email": ANN})).json()["items"]
        assert (message["state"], message["sequence_id"]) == ("sent", "double-opt-in")


@pytest_asyncio.fixture
async def forms(settings: Settings) -> AsyncIterator[Forms]:
    clock = FrozenClock(datetime.now(UTC))
    async with harness(service_code("capture"), settings, clock=clock) as made:
        yield Forms(Capture(made), clock)


async def opened_link(forms: Forms) -> str:
    """The path of the link in the last request for a message."""
    fact = (await forms.capture.harness.told(OptinRequested))[-1]
    runtime = forms.capture.harness.runtime
    async with runtime.database.reading() as connection:
        (text,) = await runtime.keys.open_many(connection, [(fact.lead_id, fact.personal)])
    assert text is not None
    return OptinPersonal.model_validate_json(text).confirm_url.partition("/capture")[2]


async def test_a_link_that_is_too_old_confirms_nothing(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    await forms.filled(form_id, email=ANN, news="on")
    path = await opened_link(forms)
    forms.clock.move(timedelta(days=7))
    for answer in (await forms.client.get(path), await forms.client.post(path)):
        assert (answer.status_code, "not valid any more" in answer.text) == (404, True)
    assert await forms.capture.harness.told(ConsentChanged) == []
    await forms.capture.harness.run_timers()
    (row,) = await forms.capture.rows("SELECT sealed, confirmed_at FROM optins")
    assert row == {"sealed": None, "confirmed_at": None}


@pytest.mark.parametrize("token", ["x", "AAAA", "A" * 43, "%00", "a/b", "é"])
async def test_a_link_that_nobody_was_sent_confirms_nothing(forms: Forms, token: str) -> None:
    for answer in (await forms.client.get(f"/confirm/{token}"), await forms.client.post(f"/confirm/{token}")):
        assert answer.status_code == 404


async def test_a_link_pressed_ten_times_at_once_is_one_word(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    await forms.filled(form_id, email=ANN, news="on")
    path = await opened_link(forms)
    answers = await asyncio.gather(*(forms.client.post(path) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await forms.capture.harness.told(ConsentChanged)) == 1


async def test_nobody_can_fill_a_strangers_mailbox(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    for number in range(2):
        await forms.filled(form_id, email=ANN, news="on", first_name=f"Ann {number}")
    assert len(await forms.capture.harness.told(OptinRequested)) == 1
    for number in range(3):
        forms.clock.move(timedelta(hours=1))
        await forms.filled(form_id, email=ANN, news="on", first_name=f"Bob {number}")
    assert len(await forms.capture.harness.told(OptinRequested)) == 3
    assert len(await forms.capture.harness.told(ConsentRequested)) == 5


async def test_who_has_confirmed_is_not_asked_again(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    await forms.filled(form_id, email=ANN, news="on")
    await forms.client.post(await opened_link(forms))
    forms.clock.move(timedelta(days=30))
    await forms.filled(form_id, email=ANN, news="on")
    assert len(await forms.capture.harness.told(OptinRequested)) == 1
    lead = await forms.lead()
    assert lead is not None
    told = (await forms.capture.get(f"leads/{lead['lead_id']}/consent")).json()["permissions"]
    assert [each["allowed"] for each in told if (each["channel"], each["purpose"]) == ("email", "newsletter")] == [True]


async def test_a_link_of_somebody_erased_confirms_nothing(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    await forms.filled(form_id, email=ANN, news="on")
    path = await opened_link(forms)
    lead = await forms.lead()
    assert lead is not None
    assert (await forms.client.post(f"/v1/leads/{lead['lead_id']}:erase")).status_code == 200
    assert (await forms.client.post(path)).status_code == 404


async def test_without_a_box_ticked_nobody_is_asked(forms: Forms) -> None:
    form_id = await forms.made(double_opt_in=True)
    answer = await forms.filled(form_id, email=ANN)
    assert "confirm" not in answer.headers["location"]
    assert await forms.capture.harness.told(OptinRequested) == []


@dataclass
class Asking:
    """Nurture, asked by capture to send links."""

    world: World
    senders: list[tuple[Sender, OptinSender]]

    async def asked(self, email: str = ANN, number: int = 1, **changes: Any) -> OptinRequested:
        """Capture asks for a message."""
        runtime = self.world.nurture.runtime
        lead_id: LeadId = runtime.ids.of_email(email)
        now = datetime.now(UTC)
        async with runtime.database.transaction() as tx:
            ciphers, _ = await runtime.keys.ciphers(tx.connection, [lead_id], now)
        told = OptinPersonal(email=email, confirm_url=f"http://127.0.0.1:8080/capture/confirm/token{number}")
        fact = OptinRequested(
            event_id=EventId(f"optin-{email}-{number}"),
            lead_id=lead_id,
            occurred_at=now,
            received_at=now,
            optin_id=f"00000000-0000-8000-8000-{number:012}",
            form_id="form",
            form_name="News & <more>",
            language=changes.get("language", "en"),
            expires_at=changes.get("expires_at", now + timedelta(days=7)),
            personal=runtime.keys.seal(lead_id, ciphers[lead_id], told.model_dump_json().encode()).decode(),
        )
        await self.world.tell(fact)
        return fact

    async def send(self) -> None:
        """Send what is due, by all senders at once."""
        for sender, _ in self.senders:
            await sender.run()
        await asyncio.gather(*(optins.run() for _, optins in self.senders))

    async def due_again(self) -> None:
        await self.world.execute("UPDATE optins SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")


@asynccontextmanager
async def asking(settings: Settings, senders: int = 2) -> AsyncIterator[Asking]:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        world = World(nurture, inbox, Facts(nurture.runtime), [])
        await world.feeds_are_fresh()
        parts = make_parts(nurture.consumer_runtime)
        made = []
        for _ in range(senders):
            sender = make_sender(nurture.consumer_runtime, inbox.url)
            email = EmailChannel(parts, parts.renderer, Mailer(parse_server(inbox.url), 10))
            made.append((sender, OptinSender(parts, parts.renderer, {"email": email}, sender)))
        for sender, _ in made:
            sender.lookout.connected_since = -1e6
        yield Asking(world, made)


async def test_a_message_is_sent_once_however_often_and_by_however_many(settings: Settings) -> None:
    async with asking(settings, senders=3) as asked:
        fact = await asked.asked()
        await asked.world.tell(fact.model_copy(update={"event_id": EventId("again")}))
        for _ in range(3):
            await asked.send()
            await asked.due_again()
        assert asked.world.inbox.subjects(ANN) == ["Please confirm: News & <more>"]
        (row,) = await rows(asked, "SELECT state, links, step_id FROM messages")
        assert (row["state"], row["links"]) == ("sent", [])
        assert await rows(asked, "SELECT sealed FROM optins") == [{"sealed": None}]


async def rows(asked: Asking, statement: str) -> list[dict[str, Any]]:
    async with asked.world.nurture.runtime.database.reading() as connection:
        return [dict(row) for row in await connection.fetch(statement)]


async def test_a_server_that_is_busy_is_tried_again_and_one_that_hung_up_is_not(settings: Settings) -> None:
    async with asking(settings) as asked:
        asked.world.inbox.mode = "busy"
        await asked.asked()
        await asked.send()
        assert [row["state"] for row in await rows(asked, "SELECT state FROM messages")] == ["planned"]
        asked.world.inbox.mode = "accepts_and_hangs_up"
        await asked.due_again()
        await asked.send()
        await asked.due_again()
        await asked.send()
        assert [row["state"] for row in await rows(asked, "SELECT state FROM messages")] == ["unknown"]
        assert len(asked.world.inbox.accepted) == 1


async def test_a_claim_that_fell_silent_is_never_sent_again(settings: Settings) -> None:
    async with asking(settings) as asked:
        await asked.asked()
        asked.world.inbox.go_on.clear()
        sending = asyncio.create_task(asked.senders[0][1].run())
        await eventually(lambda: len(asked.world.inbox.accepted) == 1)
        await asked.world.execute("UPDATE messages SET claim_until = clock_timestamp()")
        await asked.senders[1][0].run()
        assert [row["state"] for row in await rows(asked, "SELECT state FROM messages")] == ["unknown"]
        asked.world.inbox.go_on.set()
        await sending
        await asked.due_again()
        await asked.send()
        assert [row["state"] for row in await rows(asked, "SELECT state FROM messages")] == ["sent"]
        assert len(asked.world.inbox.accepted) == 1


async def test_who_must_not_be_written_to_is_not(settings: Settings) -> None:
    async with asking(settings) as asked:
        await asked.world.nurture.client.post("/v1/suppressions", json={"email": ANN, "reason": "complained"})
        await asked.asked()
        await asked.asked("old@example.com", 2, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        await asked.asked("gone@example.com", 3)
        await asked.world.tell(asked.world.facts.erased("gone@example.com"))
        await asked.send()
        assert asked.world.inbox.accepted == []
        assert {row["state"] for row in await rows(asked, "SELECT state FROM messages")} == {"suppressed"}


async def test_it_waits_while_a_refusal_might_not_be_known_yet(settings: Settings) -> None:
    async with asking(settings) as asked:
        await asked.world.feeds_are_fresh(fresh=False)
        await asked.asked()
        await asked.send()
        (row,) = await rows(asked, "SELECT hold FROM optins")
        assert "fresh" in row["hold"]
        await asked.world.feeds_are_fresh()
        await asked.due_again()
        await asked.send()
        assert len(asked.world.inbox.accepted) == 1


async def test_the_message_is_a_document_with_a_preview_and_faults_in_place(settings: Settings) -> None:
    async with asking(settings) as asked:
        client = asked.world.nurture.client
        shipped = (await client.get(MESSAGE)).json()
        assert sorted(shipped["document"]["messages"]) == ["de", "en", "fr"]
        text = {"subject": "Ja? {{ form.name }}", "html": "<p>{{ form.name }}: <a href='{{ confirm_url }}'>Ja</a></p>"}
        document = {"default_language": "nl", "messages": {"nl": text}}
        preview = (await client.post(f"{MESSAGE}:simulate", json={"document": document})).json()
        assert "/capture/confirm/" in preview["messages"]["nl"]["html"]
        assert (await client.put(MESSAGE, json=document)).json()["version"] == 2
        await asked.asked(language="de")
        await asked.send()
        assert asked.world.inbox.subjects(ANN) == ["Ja? News & <more>"]
        html = asked.world.inbox.accepted[0][1].get_body(("html",))
        assert html is not None
        assert "News &amp; &lt;more&gt;: <a href=" in html.get_content()
        for bad, pointer in (
            ({"messages": {"en": {"subject": "x", "text": "no link"}}}, "/messages/en/text"),
            (
                {"messages": {"en": {"subject": "{{ lead.email }}", "text": "{{ confirm_url }}"}}},
                "/messages/en/subject",
            ),
            ({"messages": {"en": {"subject": "x", "text": "{{ confirm_url"}}}, "/messages/en/text"),
            ({"messages": {}}, "/messages"),
            ({"default_language": "de", "messages": {"en": {**text, "html": text["html"]}}}, "/default_language"),
        ):
            answer = await client.put(MESSAGE, json=bad)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == pointer
