"""Providers over real HTTP and SMTP: what is certain, what is not, and never a message twice."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.policy import EmailPolicy
from typing import Any

import dkim  # type: ignore[import-untyped]  # ships no types
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.nurture.channels.calling import ProviderApi
from services.nurture.channels.email import EmailChannel
from services.nurture.channels.mailgun import Mailgun
from services.nurture.channels.postmark import Postmark
from services.nurture.channels.provider import FAILURES, REST, Provider, Providers
from services.nurture.channels.resend import Resend
from services.nurture.channels.sendgrid import SendGrid
from services.nurture.channels.ses import Ses
from services.nurture.channels.settings import ChannelSettings, DomainLimit
from services.nurture.channels.setup import Given, email_providers, given, make_channels, signer
from services.nurture.channels.smtp import Signer, Smtp
from services.nurture.channels.text import TextChannel
from services.nurture.channels.texting import TextMessage
from services.nurture.channels.twilio import Twilio
from services.nurture.channels.whatsapp_cloud import WhatsAppCloud
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from services.nurture.sending.looking import MISSING
from services.nurture.sending.mail import compose
from services.nurture.templates.document import Approved
from services.nurture.templates.rendering import Rendered
from services.nurture.tracking.links import Links
from shared.clock import SystemClock
from shared.events import MessageSettled
from shared.ids import MessageId, SequenceId, derived_id
from shared.settings import Settings
from shared.smtp import WITHDRAWN, Envelope, Mailer, parse_server
from shared.testing import eventually, harness
from tests.service.nurture_world import Facts, World, open_inbox
from tests.service.provider_world import ACCOUNT, AWS, KEY, Mode, ProviderServer, name_of, open_provider
from throughline.services import service_code

EMAIL = ("ses", "sendgrid", "postmark", "mailgun", "resend")
KINDS = (*EMAIL, "twilio", "whatsapp_cloud")
TLS = ssl.create_default_context()
ANN, BEN, CAT = "ann@example.com", "ben@example.com", "cat@example.com"
PHONE = "+4915112345678"
BEARER = {"authorization": f"Bearer {KEY}"}


def email(number: int = 1, recipient: str = ANN) -> Envelope:
    """An email as the channel writes it."""
    return compose(
        Rendered("Grüße, Ann", "Hello", "<p>Hello</p>", (), "marker"),
        Links(b"k" * 32, "https://example.com"),
        message_id=message_id(number),
        sequence_id=SequenceId("welcome"),
        purpose="marketing",
        sender="Example, Inc. <hello@example.com>",
        recipient=recipient,
        at=datetime(2026, 5, 1, tzinfo=UTC),
    )


def message_id(number: int = 1) -> MessageId:
    return MessageId(derived_id("test", str(number)))


def content(kind: str, number: int = 1) -> Any:
    return email(number) if kind in EMAIL else TextMessage(message_id(number), PHONE, f"Hello {number}")


def provider_at(kind: str, url: str) -> Provider[Any]:
    def api(**more: Any) -> ProviderApi:
        return ProviderApi(kind, url, 10, TLS, **more)

    match kind:
        case "ses":
            return Ses(api(), AWS, "eu-west-1", None, SystemClock())
        case "sendgrid":
            return SendGrid(api(headers=BEARER))
        case "postmark":
            return Postmark(api(headers={"x-postmark-server-token": KEY}), "outbound")
        case "mailgun":
            return Mailgun(api(auth=("api", KEY)), "mg.example.com", "example.com")
        case "resend":
            return Resend(api(headers=BEARER))
        case "twilio":
            return Twilio(api(auth=(ACCOUNT, KEY)), ACCOUNT, "+15005550006")
        case _:
            return WhatsAppCloud(api(headers=BEARER), "4711")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_provider_says_is_taken_for_what_it_means(kind: str) -> None:
    async with open_provider(kind) as server:
        provider = provider_at(kind, server.url)

        async def outcome(mode: Mode, number: int) -> Any:
            server.mode = mode
            return await provider.deliver(content(kind, number), lambda: True)

        sent = await outcome("ok", 1)
        (accepted,) = server.accepted
        assert (sent.state, sent.provider_id) == ("sent", name_of(accepted))
        if kind != "twilio":
            assert accepted.ours == message_id(1)
        if kind in EMAIL:
            assert accepted.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            assert accepted.headers["List-Unsubscribe"].startswith("<https://example.com/nurture/u/")
        busy = await outcome("busy", 2)
        assert (busy.state, busy.retry, busy.pause) == ("planned", True, timedelta(seconds=7))
        locked = await outcome("locked", 2)
        assert (locked.state, locked.retry, locked.in_trouble) == ("planned", True, True)
        refused = await outcome("refuses", 2)
        assert (refused.state, refused.retry) == ("bounced" if kind == "postmark" else "failed", False)
        assert ANN not in refused.reason
        assert "15112345678" not in refused.reason
        assert len(server.accepted) == 1
        server.mode = "ok"
        asked = server.asked
        late = await provider.deliver(content(kind, 2), lambda: False)
        assert (late.state, late.retry, late.reason, server.asked) == ("planned", True, WITHDRAWN, asked)
        for mode, number in (("fails_after_accepting", 3), ("hangs_up_after_accepting", 4)):
            lost = await outcome(mode, number)  # type: ignore[arg-type]  # one of them
            assert (lost.state, lost.retry) == ("unknown", False)
            assert len(server.accepted) == number - 1
    gone = await provider.deliver(content(kind, 5), lambda: True)
    assert (gone.state, gone.retry) == ("planned", True)


async def test_an_idempotency_key_turns_a_lost_answer_into_a_known_one() -> None:
    async with open_provider("resend") as server:
        server.mode = "fails_once"
        outcome = await provider_at("resend", server.url).deliver(email(), lambda: True)
        assert (outcome.state, len(server.accepted), server.asked) == ("sent", 1, 2)


async def test_other_words_under_a_key_that_was_taken_tell_that_the_message_is_there() -> None:
    async with open_provider("resend") as server:
        server.mode = "fails_after_accepting"
        resend = provider_at("resend", server.url)
        assert (await resend.deliver(email(), lambda: True)).state == "unknown"
        server.mode = "ok"
        other = replace(email(), content=email().content.replace(b"Hello", b"Hullo"))
        assert (await resend.deliver(other, lambda: True)).state == "sent"
        assert len(server.accepted) == 1


async def test_callbacks_of_text_messages_name_the_message() -> None:
    async with open_provider("twilio") as server:
        api = ProviderApi("twilio", server.url, 10, TLS, auth=(ACCOUNT, KEY))
        told_to = "https://example.com/capture/hooks/s1?a=1"
        await Twilio(api, ACCOUNT, "+15005550006", status_callback=told_to).deliver(content("twilio"), lambda: True)
        (accepted,) = server.accepted
    assert accepted.fields["StatusCallback"] == f"{told_to}&throughline_message_id={message_id()}"


@pytest.mark.parametrize("kind", ["sendgrid", "postmark", "mailgun"])
async def test_a_provider_is_asked_whether_it_has_a_message(kind: str) -> None:
    async with open_provider(kind) as server:
        providers = Providers([provider_at("ses", server.url), provider_at(kind, server.url)])
        assert await providers.look_up(message_id()) is None
        server.mode = "hangs_up_after_accepting"
        lost = await Providers([provider_at(kind, server.url)]).deliver(email(), lambda: True)
        assert (lost.state, lost.provider) == ("unknown", kind)
        found = await providers.look_up(message_id())
        assert found is not None
        assert (found.state, found.provider) == ("sent", kind)


async def test_the_next_provider_gets_only_what_the_first_certainly_has_not() -> None:
    async with open_provider("sendgrid") as first, open_provider("postmark") as second:
        clock = [0.0]
        providers = Providers(
            [provider_at("sendgrid", first.url), provider_at("postmark", second.url)], lambda: clock[0]
        )
        first.mode = "hangs_up_after_accepting"
        assert (await providers.deliver(email(1), lambda: True)).state == "unknown"
        first.mode = "refuses"
        assert (await providers.deliver(email(2), lambda: True)).state == "failed"
        assert second.asked == 0
        first.mode = "locked"
        for number in range(3, 3 + FAILURES):
            outcome = await providers.deliver(email(number), lambda: True)
            assert (outcome.state, outcome.provider) == ("sent", "postmark")
        asked = first.asked
        await providers.deliver(email(20), lambda: True)
        assert first.asked == asked, "it rests"
        second.mode = "locked"
        held = await providers.deliver(email(21), lambda: True)
        assert (held.state, held.retry, held.provider) == ("planned", True, None)
        assert "sendgrid rests" in held.reason
        clock[0] += REST.total_seconds()
        first.mode = second.mode = "ok"
        assert (await providers.deliver(email(22), lambda: True)).provider == "sendgrid"
        accepted = [one.ours for one in (*first.accepted, *second.accepted)]
        assert len(set(accepted)) == len(accepted)


async def test_approved_whatsapp_templates_are_named_with_their_parameters() -> None:
    message = TextMessage(message_id(), PHONE, "", Approved("welcome", "en_US", ("Ann", "Acme")))
    async with open_provider("whatsapp_cloud") as meta, open_provider("twilio") as twilio:
        await provider_at("whatsapp_cloud", meta.url).deliver(message, lambda: True)
        api = ProviderApi("twilio", twilio.url, 10, TLS, auth=(ACCOUNT, KEY))
        await Twilio(api, ACCOUNT, "MG" + "1" * 32, prefix="whatsapp:").deliver(message, lambda: True)
        (by_meta,), (by_twilio,) = meta.accepted, twilio.accepted
    assert by_meta.fields["template"]["language"] == {"code": "en_US"}
    assert [one["text"] for one in by_meta.fields["template"]["components"][0]["parameters"]] == ["Ann", "Acme"]
    assert by_twilio.fields["ContentVariables"] == '{"1":"Ann","2":"Acme"}'
    assert (by_twilio.fields["To"], by_twilio.fields["MessagingServiceSid"]) == (f"whatsapp:{PHONE}", "MG" + "1" * 32)


async def test_mail_is_signed_over_what_mailboxes_ask_for() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)

    def valid(raw: bytes) -> bool:
        zone = {b"news._domainkey.example.com.": record}
        return bool(dkim.verify(raw, dnsfunc=lambda name, timeout=5: zone.get(name)))

    async with open_inbox() as inbox:
        mailer = Mailer(parse_server(inbox.url), 10)
        outcome = await Smtp(mailer, Signer.of("example.com", "news", pem)).deliver(email(), lambda: True)
        await mailer.close()
        assert outcome.state == "sent"
        ((_, received),) = inbox.accepted
    raw = received.as_bytes(policy=EmailPolicy(linesep="\r\n", refold_source="none"))
    signed = Signer.of("example.com", "news", pem).sign(email().content)
    assert valid(raw)
    assert valid(signed)
    assert not valid(signed.replace(b"List-Unsubscribe: <https://example.com", b"List-Unsubscribe: <https://evil.com"))
    assert not valid(signed.replace(b"List-Id:", b"List-Unsubscribe: <https://evil.com>\r\nList-Id:"))
    assert not valid(signed.replace(b"Hello", b"Hullo"))


async def test_connections_are_pooled_and_a_domain_gets_no_more_at_once_than_it_takes() -> None:
    async with open_inbox() as inbox:
        mailer = Mailer(parse_server(inbox.url), 20, 4, {"gmail.com": 1})
        inbox.go_on.clear()
        recipients = ["a@gmail.com", "b@gmail.com", "c@gmail.com", "d@example.com", "e@example.com"]
        under_way = [
            asyncio.create_task(mailer.deliver(email(number, to), lambda: True)) for number, to in enumerate(recipients)
        ]
        await eventually(lambda: len(inbox.accepted) == 3)
        assert sorted(to for to, _ in inbox.accepted) == ["a@gmail.com", "d@example.com", "e@example.com"]
        inbox.go_on.set()
        assert {outcome.state for outcome in await asyncio.gather(*under_way)} == {"sent"}
        assert sorted(to for to, _ in inbox.accepted) == recipients
        await mailer.close()


@pytest_asyncio.fixture
async def text_world(settings: Settings) -> AsyncIterator[tuple[World, ProviderServer]]:
    """Nurture with an inbox, and Twilio for SMS."""
    async with (
        open_inbox() as inbox,
        open_provider("twilio") as twilio,
        harness(service_code("nurture"), settings) as nurture,
    ):
        limits = {"gmail.com": DomainLimit(per_minute=1)}
        parts = make_parts(nurture.consumer_runtime)
        parts = replace(parts, channels=ChannelSettings(domain_limits=limits))
        by_mail = Providers([Smtp(Mailer(parse_server(inbox.url), 10), None)])
        channels = {
            "email": EmailChannel(parts, parts.renderer, by_mail),
            "sms": TextChannel(parts, parts.renderer, Providers([provider_at("twilio", twilio.url)])),
        }
        world = World(nurture, inbox, Facts(nurture.runtime), [Sender(parts, channels)])  # type: ignore[arg-type]
        await world.feeds_are_fresh()
        yield world, twilio


async def test_an_sms_goes_to_who_allows_it_and_says_how_to_stop(text_world: tuple[World, ProviderServer]) -> None:
    world, twilio = text_world
    text = {"channel": "sms", "template": {"text": "Hello {{ lead.first_name | default('you') }}"}}
    ping = {"channel": "whatsapp", "template": {"text": "Hello"}}
    steps = [{"id": "text", "send": text}, {"id": "ping", "send": ping}]
    await world.saves(trigger="event.type == 'form_submitted'", exit=None, goal=None, steps=steps)
    for address, phone, granted in ((ANN, PHONE, True), (BEN, "+4915112345679", False), (CAT, None, True)):
        told: dict[str, Any] = {"phone": phone} if phone else {}
        await world.tell(await world.facts.captured(address, first_name="Zoë", **told))
        if granted:
            for channel in ("sms", "whatsapp"):
                await world.tell(world.facts.consent(address, channel=channel))
        await world.tell(world.facts.form(address))
    await world.send()
    (accepted,) = twilio.accepted
    assert (accepted.recipient, accepted.fields["Body"]) == (PHONE, "Hello Zoë\nReply STOP to opt out")
    ann, ben, cat = [await world.messages(address) for address in (ANN, BEN, CAT)]
    assert [(one["state"], one["provider"], one["provider_id"]) for one in ann if one["step_id"] == "text"] == [
        ("sent", "twilio", name_of(accepted))
    ]
    assert [one["reason"] for one in ann if one["step_id"] == "ping"] == [MISSING["whatsapp"]]
    assert ben[0]["reason"] == "no consent for sms"
    assert cat[0]["reason"] == "no phone number"
    settled = [fact for fact in await world.nurture.told(MessageSettled) if fact.state == "sent"]
    assert [(fact.channel, fact.provider, fact.provider_id) for fact in settled] == [
        ("sms", "twilio", name_of(accepted))
    ]
    await world.tell(world.facts.consent(ANN, "denied", channel="sms"))
    assert (await world.runs(ANN))[0]["state"] == "active", "WhatsApp is still allowed"
    await world.tell(world.facts.consent(ANN, "denied", channel="whatsapp"))
    assert (await world.runs(ANN))[0]["state"] == "ended"


async def test_a_domain_gets_its_emails_a_minute_and_the_rest_later(text_world: tuple[World, ProviderServer]) -> None:
    world, _ = text_world
    # A minute that is not over while this runs.
    await world.execute(
        "INSERT INTO domain_minutes VALUES ('gmail.com', date_trunc('minute', clock_timestamp()) + interval '5 min', 0)"
    )
    people = [f"{name}@gmail.com" for name in "abc"]
    for person in people:
        await world.arrives(person)
    await world.arrives(ANN)
    await world.send()
    states = {person: await world.states(person) for person in people}
    assert sorted(states.values()) == [["planned"], ["planned"], ["sent"]]
    assert await world.states(ANN) == ["sent"]
    held = [person for person in people if states[person] == ["planned"]]
    runs = [(await world.runs(person))[0] for person in held]
    assert {run["waits_because"] for run in runs} == {"gmail.com takes 1 emails a minute"}
    first, second = sorted(datetime.fromisoformat(run["due_at"]) for run in runs)
    assert second - first == timedelta(minutes=1)
    assert first.second == 0


async def test_what_is_set_up_is_tried_in_order_and_what_cannot_work_stops_the_start(
    text_world: tuple[World, ProviderServer],
) -> None:
    parts = make_parts(text_world[0].nurture.consumer_runtime)

    def of(**values: Any) -> Given:
        return given(replace(parts, channels=ChannelSettings(**values)))

    twilio = {"twilio_account_sid": ACCOUNT, "twilio_auth_token": KEY, "twilio_sms_from": "+15005550006"}
    keys = {"resend_api_key": KEY, "postmark_server_token": KEY}
    assert email_providers(of()) is None
    assert make_channels(of(), None) == {}
    assert set(make_channels(of(**keys, **twilio), email_providers(of(**keys)))) == {"email", "sms"}
    assert names(email_providers(of(**keys))) == ["postmark", "resend"]
    assert names(email_providers(of(**keys, email_providers=["resend", "postmark"]))) == ["resend", "postmark"]
    for wrong in ({"email_providers": ["ses"]}, {"whatsapp_providers": ["twilio"]}):
        with pytest.raises(ValueError, match="listed and not set up"):
            make_channels(of(**keys, **wrong), email_providers(of(**keys, **wrong)))
    with pytest.raises(ValueError, match="DKIM needs"):
        signer(ChannelSettings(dkim_domain="example.com"))
    with pytest.raises(ValueError, match="cannot sign"):
        signer(ChannelSettings(dkim_domain="example.com", dkim_selector="a", dkim_key="none"))  # type: ignore[arg-type]


def names(providers: Providers[Any] | None) -> list[str]:
    assert providers is not None
    return [provider.name for provider, _ in providers._providers]
