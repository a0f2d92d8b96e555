"""Slack: messages that name a lead, and buttons that somebody pressed. https://docs.slack.dev/apis/events-api/

Events come as JSON, buttons as JSON in a form's `payload`, commands as a form alone.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import unquote

from services.capture.adapters.adapter import (
    PLAIN,
    ActionFact,
    Adapter,
    Answer,
    BadSignature,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, objects_at, read_any, read_object
from services.capture.adapters.fields import happened_at, ignored, person_of, text
from services.capture.adapters.meetings import first_email
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any, require_now

_LINK = re.compile(r"<(mailto|tel):([^|>]{1,500})(?:\|[^>]*)?>")
_NEW_MESSAGES = frozenset({None, "bot_message", "file_share", "thread_broadcast"})  # others change or notify


class Slack(Adapter):
    """A retry is a delivery like any other: the first attempt may not have been kept."""

    kind: ClassVar[str] = "slack"

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        """The challenge, to a sender who proves the secret; who does not is left for `verify` to refuse."""
        try:
            body = read_object(request.raw_body)
            challenge = body.get("challenge")
            if body.get("type") != "url_verification" or not isinstance(challenge, str):
                return None
            self.verify(request, secrets, request.received_at, settings)
        except (Unmappable, BadSignature):
            return None
        return Answer(200, challenge.encode(), "text/plain")

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        signature = request.headers.get("x-slack-signature")
        timestamp = request.headers.get("x-slack-request-timestamp")
        if signature is None or timestamp is None:
            raise BadSignature("the headers X-Slack-Signature and X-Slack-Request-Timestamp are needed, each once")
        require_now(timestamp, now)
        signed = f"v0:{timestamp}:".encode()
        expected = (b"v0=" + hmac_sha256(key, signed, request.raw_body).hex().encode() for key in keys(secrets))
        require_any(expected, [header_bytes(signature)])

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _own_name(_body(request)))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = _body(request)
        event = _Event(body, request, settings, self.delivery_id(request))
        return Reading(tuple(event.facts()), {}, body)


def _texts(value: Any) -> Iterator[str]:
    """Every text of a message: apps write theirs in attachments and blocks, where a link may stand alone."""
    if isinstance(value, str):
        yield f"<{value}>" if value.startswith(("mailto:", "tel:")) else value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _own_name(body: Mapping[str, Any]) -> Any:
    return body.get("event_id") or body.get("trigger_id")


def _body(request: HookRequest) -> Mapping[str, Any]:
    """What is told, taken out of the form that a button comes in."""
    body = read_any(request)
    if not isinstance(body, dict):
        raise Unmappable("the body is not an object")
    wrapped = body.get("payload")
    return read_object(wrapped.encode()) if isinstance(wrapped, str) else body


class _Event:
    """A message, a button or a command."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key

    def facts(self) -> Sequence[Fact]:
        match self.body.get("type"):
            case "event_callback":
                return [self._event(object_at(self.body, "event"))]
            case "block_actions" | "interactive_message":
                actions = objects_at(self.body, "actions")
                return [self._pressed(action, place) for place, action in enumerate(actions)] or [
                    self._ignored("no_action")
                ]
            case None if text(self.body.get("command")):
                return [self._ignored("command")]
            case None:
                raise Unmappable("there is no type")
            case _:
                return [self._ignored("event_type")]

    def _ignored(self, reason: str) -> Fact:
        return ignored(self.key, self.request, reason)

    def _event(self, event: Mapping[str, Any]) -> Fact:
        if event.get("type") != "message" or text(event.get("subtype")) not in _NEW_MESSAGES:
            return self._ignored("event_type")
        own_app = text(self.body.get("api_app_id"))
        if own_app and own_app in (event.get("app_id"), object_at(event, "bot_profile").get("app_id")):
            return self._ignored("own_message")  # a lead that we tell of is no new one
        return self._message(event)

    def _message(self, event: Mapping[str, Any]) -> Fact:
        written = [event.get(name) for name in ("text", "attachments", "blocks")]
        found = [link for said in _texts(written) for link in _LINK.findall(said)]
        links = [(kind, unquote(html.unescape(there).partition("?")[0])) for kind, there in found]
        email = first_email(*(there for kind, there in links if kind == "mailto"))
        if email is None:
            return self._ignored("no_email")
        phone = next((there for kind, there in links if kind == "tel"), None)
        at, timed_by = happened_at(self.body.get("event_time") or event.get("ts"), self.request)
        properties = {"slack_channel": channel} if (channel := text(event.get("channel"))) else {}
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of({"email": email, "phone": phone}, self.settings.phone_country),
            touch=Touch(type="message_posted", touch_id=self.key, channel="slack", properties=properties),
        )

    def _pressed(self, action: Mapping[str, Any], place: int) -> Fact:
        """A button by the name that we gave it; in the older kind of message, by its `name`."""
        event = text(action.get("action_id")) or text(action.get("name"))
        if event is None:
            raise Unmappable("an action has a name")
        at, timed_by = happened_at(action.get("action_ts") or self.body.get("action_ts"), self.request)
        return ActionFact(
            idempotency_key=self.key if place == 0 else f"{self.key}:{place}",
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=Person(external_id=text(object_at(self.body, "user").get("id"))),
            value=text(action.get("value")) or text(object_at(action, "selected_option").get("value")),
        )


ADAPTER = Slack()
