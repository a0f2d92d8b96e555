"""Providers of messages on this machine: each takes what its documentation says, and fails as it says."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import orjson

from services.nurture.channels.signature_v4 import Credentials, signed_headers
from tests.service.local_server import Asked, LocalServer, reply, serving

Mode = Literal[
    "ok", "busy", "refuses", "locked", "broken", "fails_once", "fails_after_accepting", "hangs_up_after_accepting"
]
AWS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
KEY = "key-of-the-test"
ACCOUNT = "AC" + "0" * 32


@dataclass(frozen=True)
class Accepted:
    """A message as the provider has it: ours is the id that came with it."""

    ours: str
    recipient: str
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)


class Malformed(Exception):
    """What a provider answers 400 or 422 to."""


def read_ses(asked: Asked) -> Accepted:
    body = orjson.loads(asked.body)
    at = datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    url = f"http://{asked.headers['host']}{asked.target}"
    signed = {"content-type": asked.headers["content-type"]}
    expected = signed_headers(AWS, "POST", url, signed, asked.body, region="eu-west-1", service="ses", at=at)
    if asked.headers["authorization"] != expected["authorization"] or asked.target != "/v2/email/outbound-emails":
        raise Malformed("SignatureDoesNotMatch")
    (recipient,) = body["Destination"]["ToAddresses"]
    headers = of_bytes(base64.b64decode(body["Content"]["Raw"]["Data"]))
    tags = {tag["Name"]: tag["Value"] for tag in body["EmailTags"]}
    return Accepted(tags["throughline_message_id"], recipient, headers)


def read_sendgrid(asked: Asked) -> Accepted:
    body = orjson.loads(asked.body)
    (one,) = body["personalizations"]
    kinds = [part["type"] for part in body["content"]]
    if kinds != ["text/plain", "text/html"] or {"to", "from", "subject"} & {name.lower() for name in body["headers"]}:
        raise Malformed("content")
    return Accepted(one["custom_args"]["throughline_message_id"], one["to"][0]["email"], body["headers"], body)


def read_postmark(asked: Asked) -> Accepted:
    body = orjson.loads(asked.body)
    metadata = body["Metadata"]
    if any(len(name) > 20 or len(value) > 80 for name, value in metadata.items()) or asked.target != "/email":
        raise Malformed("Metadata")
    headers = {header["Name"]: header["Value"] for header in body["Headers"]}
    return Accepted(metadata["throughline_message"], body["To"], headers, body)


def read_mailgun(asked: Asked) -> Accepted:
    kind = asked.headers["content-type"]
    form = message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + asked.body, policy=default)
    assert isinstance(form, EmailMessage)
    fields = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
    if asked.target != "/v3/mg.example.com/messages.mime":
        raise Malformed("domain")
    inner = fields["message"].get_content()
    return Accepted(
        str(fields["v:throughline_message_id"].get_payload()),
        str(fields["to"].get_payload()),
        of_bytes(bytes(inner)) if isinstance(inner, EmailMessage) else of_bytes(inner),
    )


def read_resend(asked: Asked) -> Accepted:
    body = orjson.loads(asked.body)
    (tag,) = body["tags"]
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", tag["value"]) or asked.headers["idempotency-key"] != tag["value"]:
        raise Malformed("tags")
    return Accepted(tag["value"], body["to"][0], body["headers"], body)


def read_twilio(asked: Asked) -> Accepted:
    fields = dict(parse_qsl(asked.body.decode(), strict_parsing=True))
    if ("Body" in fields) == ("ContentSid" in fields) or not fields["To"].removeprefix("whatsapp:").startswith("+"):
        raise Malformed("21211")
    return Accepted("", fields["To"], {}, fields)


def read_whatsapp(asked: Asked) -> Accepted:
    body = orjson.loads(asked.body)
    if body["messaging_product"] != "whatsapp" or body["type"] not in body or asked.target != "/4711/messages":
        raise Malformed("100")
    return Accepted(body["biz_opaque_callback_data"], body["to"], {}, body)


def of_bytes(content: bytes) -> dict[str, str]:
    """The headers of an email."""
    return {name: str(value) for name, value in message_from_bytes(content, policy=default).items()}


@dataclass(frozen=True)
class Manners:
    """How one provider speaks: what proves who asks, how it reads, and what it says."""

    read: Callable[[Asked], Accepted]
    proof: tuple[str, str] | None
    taken: Callable[[str], bytes]
    refuses: bytes
    locked: bytes
    busy: bytes
    found: Callable[[str, Accepted], bytes] | None = None


def basic(user: str) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{user}:{KEY}".encode()).decode()


BEARER = ("authorization", f"Bearer {KEY}")
MANNERS: dict[str, Manners] = {
    "ses": Manners(
        read_ses,
        None,
        lambda name: reply(200, {"MessageId": name}),
        reply(400, {"message": "Address ann@example.com is blacklisted"}, x_amzn_errortype="MessageRejected:"),
        reply(400, {"message": "paused"}, x_amzn_errortype="SendingPausedException"),
        reply(429, {"message": "rate"}, x_amzn_errortype="TooManyRequestsException", retry_after="7"),
    ),
    "sendgrid": Manners(
        read_sendgrid,
        BEARER,
        lambda name: reply(202, b"", x_message_id=name),
        reply(400, {"errors": [{"message": "Does not contain a valid address: ann@example.com", "field": "to"}]}),
        reply(401, {"errors": [{"message": "The provided authorization grant is invalid"}]}),
        reply(429, {"errors": [{"message": "too many requests"}]}, retry_after="7"),
        lambda name, one: reply(200, {"messages": [{"msg_id": name, "status": "processed"}]}),
    ),
    "postmark": Manners(
        read_postmark,
        ("x-postmark-server-token", KEY),
        lambda name: reply(200, {"ErrorCode": 0, "Message": "OK", "MessageID": name}),
        reply(422, {"ErrorCode": 406, "Message": "Found inactive addresses: ann@example.com."}),
        reply(422, {"ErrorCode": 412, "Message": "Your account is pending approval"}),
        reply(429, {"ErrorCode": 0, "Message": "slow down"}, retry_after="7"),
        lambda name, one: reply(200, {"TotalCount": 1, "Messages": [{"MessageID": name}]}),
    ),
    "mailgun": Manners(
        read_mailgun,
        basic("api"),
        lambda name: reply(200, {"id": f"<{name}>", "message": "Queued. Thank you."}),
        reply(400, {"message": "to parameter is not a valid address. ann@example.com"}),
        reply(403, {"message": "Domain is disabled"}),
        reply(429, {"message": "Too many requests"}, retry_after="7"),
        lambda name, one: reply(200, {"items": [{"event": "accepted"}]}),
    ),
    "resend": Manners(
        read_resend,
        BEARER,
        lambda name: reply(200, {"id": name}),
        reply(422, {"name": "validation_error", "message": "Invalid `to` field: ann@example.com"}),
        reply(403, {"name": "invalid_from_address", "message": "The example.com domain is not verified"}),
        reply(429, {"name": "rate_limit_exceeded", "message": "Too many requests"}, retry_after="7"),
    ),
    "twilio": Manners(
        read_twilio,
        basic(ACCOUNT),
        lambda name: reply(201, {"sid": name, "status": "queued", "num_segments": "1"}),
        reply(400, {"code": 21211, "message": "The 'To' number +4915112345678 is not valid", "status": 400}),
        reply(400, {"code": 21606, "message": "The From phone number is not yours", "status": 400}),
        reply(429, {"code": 20429, "message": "Too Many Requests", "status": 429}, retry_after="7"),
    ),
    "whatsapp_cloud": Manners(
        read_whatsapp,
        BEARER,
        lambda name: reply(200, {"messages": [{"id": name, "message_status": "accepted"}]}),
        reply(400, {"error": {"code": 131026, "message": "Message undeliverable to 4915112345678"}}),
        reply(401, {"error": {"code": 190, "message": "Access token has expired"}}),
        reply(400, {"error": {"code": 130429, "message": "Rate limit hit"}}, retry_after="7"),
    ),
}


@dataclass
class ProviderServer:
    """One provider: what it has accepted, and how it behaves.

    The same idempotency key gives the same answer, and refuses another body. Broken, it accepts nothing.

    With `go_on` cleared it is slow: it has accepted a message and does not say so.
    """

    kind: str
    mode: Mode = "ok"
    url: str = ""
    asked: int = 0
    accepted: list[Accepted] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    _answers: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    async def respond(self, asked: Asked) -> bytes:
        manners = MANNERS[self.kind]
        self.asked += 1
        if manners.proof is not None and asked.headers.get(manners.proof[0]) != manners.proof[1]:
            return reply(401, {"message": "who are you?"})
        if asked.method == "GET":
            assert manners.found is not None
            wanted = urlsplit(asked.target).query
            match = next((one for one in self.accepted if one.ours in wanted), None)
            return manners.found(name_of(match), match) if match else reply(200, {})
        if self.mode in ("busy", "refuses", "locked"):
            return {"busy": manners.busy, "refuses": manners.refuses, "locked": manners.locked}[self.mode]
        try:
            message = manners.read(asked)
        except (Malformed, KeyError, ValueError, TypeError) as fault:
            return reply(400, {"message": f"malformed: {fault!r}"})
        if self.mode == "broken":
            return reply(503, {"message": "come back later"})
        key = asked.headers.get("idempotency-key")
        if key in self._answers and self._answers[key][0] != asked.body:
            return reply(409, {"name": "invalid_idempotent_request", "message": "The key was used for another body"})
        if key not in self._answers:
            self.accepted.append(message)
        await self.go_on.wait()
        answer = manners.taken(name_of(message))
        failing, self.mode = self.mode, "ok" if self.mode == "fails_once" else self.mode
        if key is not None:
            self._answers[key] = (asked.body, answer)
        if failing == "hangs_up_after_accepting":
            raise ConnectionResetError
        return reply(500, {"message": "disk trouble"}) if failing.startswith("fails") else answer


def name_of(message: Accepted) -> str:
    """A provider's own id of a message."""
    return hashlib.sha256(f"{message.ours}{message.recipient}".encode()).hexdigest()[:24]


@asynccontextmanager
async def open_provider(kind: str) -> AsyncIterator[ProviderServer]:
    """A provider for the length of a block."""
    provider = ProviderServer(kind)
    provider.go_on.set()
    async with serving(LocalServer(respond=provider.respond)) as url:
        provider.url = url
        yield provider
