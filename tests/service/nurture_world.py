"""A company's people and their inboxes, around the nurture service: what the tests of nurture tell stories with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from itertools import count
from typing import Any, Literal

import orjson
from aiosmtpd.smtp import SMTP, Envelope, Session

from services.nurture.channels.email import EmailChannel
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from shared.events import (
    AssignmentAccepted,
    ConsentChanged,
    ConversionRecorded,
    Event,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    StageChanged,
    TouchRecorded,
)
from shared.ids import AssignmentId, ConversionId, EventId, LeadId, RepId, TouchId, new_id
from shared.service import Runtime
from shared.settings import Settings
from shared.smtp import Mailer, parse_server
from shared.testing import Harness, harness
from throughline.services import service_code

NOW = datetime.now(UTC)
InboxMode = Literal["ok", "refuses", "busy", "accepts_and_hangs_up", "accepts_and_answers_5xx"]
HELLO = {"channel": "email", "template": {"subject": "Hello {{ lead.first_name | default('you') }}", "text": "Hello"}}
SEQUENCE: dict[str, Any] = {
    "name": "Test",
    "trigger": "event.type == 'form_submitted' && lead.consent.email == 'granted'",
    "goal": "event.type == 'conversion_recorded'",
    "exit": "event.type == 'assignment_accepted'",
    "active": True,
    "steps": [
        {"id": "first", "send": HELLO},
        {"id": "rest", "wait": {"days": 3}},
        {"id": "second", "send": HELLO},
    ],
}


@dataclass
class Inbox:
    """A mail server that takes everything, or behaves as badly as told; it notes what it accepted.

    With `go_on` cleared it is slow: it has accepted a message and does not say so.
    """

    port: int = 0
    mode: InboxMode = "ok"
    accepted: list[tuple[str, EmailMessage]] = field(default_factory=list)
    asked: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def subjects(self, recipient: str) -> list[str]:
        """The subjects of what one address got, in order."""
        return [str(message["subject"]) for to, message in self.accepted if to == recipient]

    async def handle_RCPT(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.asked += 1
        if self.mode == "refuses":
            return "550 5.1.1 no such user"
        if self.mode == "busy":
            return "451 4.3.2 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802  # aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.accepted.append((envelope.rcpt_tos[0], message))
        await self.go_on.wait()
        if self.mode == "accepts_and_hangs_up":
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "554 5.3.0 disk trouble" if self.mode == "accepts_and_answers_5xx" else "250 OK"


@asynccontextmanager
async def open_inbox() -> AsyncIterator[Inbox]:
    """An inbox for the length of a block."""
    inbox = Inbox()
    inbox.go_on.set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, enable_SMTPUTF8=False, loop=loop), "127.0.0.1", 0)
    inbox.port = server.sockets[0].getsockname()[1]
    try:
        yield inbox
    finally:
        server.close()


class Facts:
    """Makes the facts that other services would tell; each is new unless it is told again."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._number = count(1)
        self._name = new_id()[:8]
        self._at = datetime.now(UTC)

    def lead_id(self, email: str) -> LeadId:
        return self._runtime.ids.of_email(email)

    async def captured(self, email: str, revision: int = 1, **profile: Any) -> LeadCaptured:
        """A profile, its personal part sealed with the person's key, which is here already."""
        lead_id = self.lead_id(email)
        async with self._runtime.database.transaction() as tx:
            ciphers, _ = await self._runtime.keys.ciphers(tx.connection, [lead_id], self._at)
        names = ("first_name", "last_name", "title", "phone", "attributes")
        personal = {"email": email, **{name: profile.pop(name) for name in names if name in profile}}
        sealed = self._runtime.keys.seal(lead_id, ciphers[lead_id], orjson.dumps(personal)).decode()
        return LeadCaptured(
            **self._head(lead_id, "captured"), revision=revision, captured_at=self._at, personal=sealed, **profile
        )

    def consent(self, email: str, state: Any = "granted", **more: Any) -> ConsentChanged:
        purpose, channel = more.pop("purpose", "marketing"), more.pop("channel", "email")
        head = self._head(self.lead_id(email), "consent", **more)
        return ConsentChanged(**head, channel=channel, state=state, purpose=purpose)

    def touch(self, lead_id: LeadId, kind: str = "form_submitted", **more: Any) -> TouchRecorded:
        head = self._head(lead_id, "touch", more.pop("at", None))
        return TouchRecorded(**head, touch_id=TouchId(str(head["event_id"])), type=kind, **more)

    def form(self, email: str, **more: Any) -> TouchRecorded:
        return self.touch(self.lead_id(email), **more)

    def stage(self, email: str, stage: Any, revision: int = 1) -> StageChanged:
        return StageChanged(
            **self._head(self.lead_id(email), "stage"),
            revision=revision,
            stage=stage,
            reason="test",
            engagement=0,
            fit=0,
            total=0,
            grade="D",
            rules_version=1,
        )

    def accepted(self, email: str, **more: Any) -> AssignmentAccepted:
        head = self._head(self.lead_id(email), "accepted", **more)
        return AssignmentAccepted(**head, assignment_id=AssignmentId(str(head["event_id"])), rep_id=RepId("rep"))

    def conversion(self, email: str, **more: Any) -> ConversionRecorded:
        head = self._head(self.lead_id(email), "conversion", **more)
        name = str(head["event_id"])
        return ConversionRecorded(
            **head, conversion_id=ConversionId(name), external_id=name, type="payment", value_minor=100, currency="EUR"
        )

    def merged(self, loser: str, into: str) -> LeadMerged:
        return LeadMerged(**self._head(self.lead_id(into), "merged"), from_lead_id=self.lead_id(loser))

    def unmerged(self, loser: str, into: str) -> LeadUnmerged:
        return LeadUnmerged(**self._head(self.lead_id(into), "unmerged"), from_lead_id=self.lead_id(loser))

    def erased(self, email: str) -> LeadErased:
        return LeadErased(**self._head(self.lead_id(email), "erased"))

    def _head(self, lead_id: LeadId, kind: str, at: datetime | None = None) -> dict[str, Any]:
        number = next(self._number)
        occurred_at = at or datetime.now(UTC)
        return {
            "event_id": EventId(f"{kind}-{self._name}-{number}"),
            "lead_id": lead_id,
            "occurred_at": occurred_at,
            "received_at": occurred_at,
            "position": number,
        }


@dataclass
class World:
    """The service, an inbox, and what happens."""

    nurture: Harness
    inbox: Inbox
    facts: Facts
    senders: list[Sender]

    async def tell(self, *events: Event) -> None:
        await self.nurture.deliver(*events)

    async def arrives(self, email: str, **profile: Any) -> None:
        """A person consents and submits a form."""
        captured = await self.facts.captured(email, **profile)
        await self.tell(captured, self.facts.consent(email), self.facts.form(email))

    async def send(self) -> None:
        """Carry out what is due, by every sender at once."""
        await asyncio.gather(*(sender.run() for sender in self.senders))

    async def time_passes(self, by: timedelta) -> None:
        """Everything that waits has waited this much longer."""
        await self.execute(
            "UPDATE enrolments SET due_at = due_at - $1::interval, meant_for = meant_for - $1::interval,"
            " waiting_since = waiting_since - $1::interval WHERE active",
            by,
        )
        await self.execute("UPDATE messages SET claim_until = claim_until - $1::interval", by)

    async def feeds_are_fresh(self, *, fresh: bool = True) -> None:
        """What others told is read up to now (and beyond, so that it stays so), or has not been for an hour.

        Neither the hour of the day nor what was sent before matters here, unless a test says so.
        """
        await self.policy()
        at = datetime.now(UTC) + (timedelta(hours=1) if fresh else -timedelta(hours=1))
        await self.execute("DELETE FROM feed_watermarks")
        for topic, sources in (("leads", ("capture", "nurture")), ("messages", ("nurture",))):
            for source in sources:
                for partition in range(self.nurture.settings.topic_partitions):
                    await self.execute(
                        "INSERT INTO feed_watermarks VALUES ($1, $2, $3, $4)", topic, partition, source, at
                    )

    async def policy(self, **document: Any) -> None:
        """How much may go out, and when; without anything, as much as anybody likes at any time."""
        answer = await self.nurture.client.put("/v1/sending-policy", json=document)
        assert answer.status_code == 200, answer.text

    async def messages(self, email: str) -> list[dict[str, Any]]:
        """A person's messages over the API, the oldest first."""
        answer = await self.nurture.client.get("/v1/messages", params={"email": email})
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items[::-1]

    async def states(self, email: str) -> list[str]:
        return [message["state"] for message in await self.messages(email)]

    async def runs(self, email: str) -> list[dict[str, Any]]:
        """A person's runs over the API, the oldest first."""
        answer = await self.nurture.client.get("/v1/enrolments", params={"email": email})
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        return items[::-1]

    async def saves(self, document: dict[str, Any] | None = None, **changes: Any) -> str:
        """A sequence is saved; answers its id."""
        answer = await self.nurture.client.post("/v1/sequences", json={**(document or SEQUENCE), **changes})
        assert answer.status_code == 201, answer.text
        sequence_id: str = answer.json()["sequence_id"]
        return sequence_id

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with self.nurture.runtime.database.reading() as connection:
            await connection.execute(statement, *arguments)


def make_sender(runtime: Runtime, inbox_url: str | None) -> Sender:
    """A sender of its own, as another process would have."""
    parts = make_parts(runtime)
    if inbox_url is None:
        return Sender(parts, {})
    return Sender(parts, {"email": EmailChannel(parts, parts.renderer, Mailer(parse_server(inbox_url), 10))})


@asynccontextmanager
async def open_world(settings: Settings) -> AsyncIterator[World]:
    """The service with one sender, an inbox and fresh feeds for the length of a block."""
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        made = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await made.feeds_are_fresh()
        yield made
