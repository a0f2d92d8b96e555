"""Mailgun: what became of mails. https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/

The signature covers a time and a token, and nothing that the delivery says. A subaccount's deliveries are signed by the
parent account too. Old accounts send forms, in which their own variables lie beside Mailgun's fields, which come last.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, Adapter, BadSignature, Fact, HookRequest, MappingSettings, Reading
from services.capture.adapters.bodies import object_at, read_any
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import happened_at, ignored, text
from services.capture.adapters.mail import OUR_MESSAGE_ID, MailEvent, address, link, short
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import hmac_sha256, keys, require_any, require_within

_RETRIED_FOR = timedelta(hours=8, minutes=30)
_EVENTS = {
    "delivered": "delivered",
    "opened": "opened",
    "clicked": "clicked",
    "unsubscribed": "unsubscribed",
    "complained": "complained",
    "rejected": "dropped",
    "bounced": "bounced",
    "dropped": "dropped",
}
_POLICY = "espblock"
_NEVER_TRIED = frozenset({"suppress-unsubscribe", "suppress-complaint"})


class Mailgun(Adapter):
    """One event per delivery."""

    kind: ClassVar[str] = "mailgun"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        try:
            signed = list(_signatures(_Delivery(request).body))
        except Unmappable as exc:
            raise BadSignature("the body has no signature") from exc
        fresh = [one for one in signed if _is_fresh(one[0], now)]
        if not fresh:
            raise BadSignature(f"the body has no signature of the last {_RETRIED_FOR}")
        for timestamp, token, signature in fresh:
            expected = (hmac_sha256(key, f"{timestamp}{token}".encode()).hex().encode() for key in keys(secrets))
            try:
                require_any(expected, [signature.encode(errors="replace")])
            except BadSignature:
                continue
            return
        raise BadSignature("the signature does not fit")

    def signed_once(self, request: HookRequest) -> Sequence[str]:
        """Its tokens: whoever saw a delivery could send another body with its signature."""
        try:
            return [short(token) or "" for _, token, _ in _signatures(_Delivery(request).body)]
        except Unmappable:
            return ()

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        """By the event's name and its day, since Mailgun uses the names again."""
        return delivery_name(self.kind, request, lambda: _name(_Delivery(request)))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        delivery = _Delivery(request)
        return Reading((delivery.fact(self.delivery_id(request)),), delivery.variables, delivery.body)


class _Delivery:
    """A body, in the shape of today or in the old one."""

    def __init__(self, request: HookRequest) -> None:
        whole = read_any(request)
        if not isinstance(whole, Mapping):
            raise Unmappable("the body is neither an object nor a form")
        self.request = request
        self.is_form = request.raw_body.lstrip()[:1] != b"{"
        self.body: Mapping[str, Any] = {name: _last(value) for name, value in whole.items()} if self.is_form else whole
        self.event = self.body if self.is_form else object_at(self.body, "event-data")
        self.variables = self.body if self.is_form else object_at(self.event, "user-variables")

    def fact(self, key: str) -> Fact:
        told = text(self.event.get("event"))
        if told is None:
            raise Unmappable("the delivery has no event")
        if object_at(self.event, "flags").get("is-test-mode") is True:
            return ignored(key, self.request, "test")
        happened = self._failed() if told == "failed" else _EVENTS.get(told)
        if happened is None:
            return ignored(key, self.request, "event_type")
        machine = {"machine": object_at(self.event, "client-info").get("bot")} if happened == "opened" else {}
        status = object_at(self.event, "delivery-status")
        return MailEvent(
            key=key,
            event=happened,
            email=address(self.event.get("recipient")),
            at=self.event.get("timestamp"),
            message_id=short(self.variables.get(OUR_MESSAGE_ID)) or self._provider_id(),
            permanent=True if happened == "bounced" else None,
            url=link(self.event.get("url")) if happened == "clicked" else None,
            properties={"reason": self.event.get("reason"), "code": status.get("code"), **machine},
        ).fact(self.request)

    def _failed(self) -> str:
        if self.event.get("severity") == "temporary":
            return "deferred"
        reason = self.event.get("reason")
        if reason == _POLICY:
            return "blocked"
        return "dropped" if text(reason) in _NEVER_TRIED else "bounced"

    def _provider_id(self) -> str | None:
        if self.is_form:
            written = self.event.get("Message-Id") or self.event.get("message-id")
        else:
            written = object_at(object_at(self.event, "message"), "headers").get("message-id")
        return (short(written) or "").strip("<>") or None


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, list) else value


def _signatures(body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The time, token and signature of each signature that is whole."""
    for place in (body, object_at(body, "signature"), object_at(body, "parent-signature")):
        timestamp, token, signature = (place.get(name) for name in ("timestamp", "token", "signature"))
        if isinstance(timestamp, int) and not isinstance(timestamp, bool):
            timestamp = str(timestamp)
        if isinstance(timestamp, str) and isinstance(token, str) and isinstance(signature, str) and token:
            yield timestamp, token, signature


def _is_fresh(timestamp: str, now: datetime) -> bool:
    try:
        require_within(timestamp, now, _RETRIED_FOR)
    except BadSignature:
        return False
    return True


def _name(delivery: _Delivery) -> str | None:
    name = short(delivery.event.get("token" if delivery.is_form else "id"))
    at, timed_by = happened_at(delivery.event.get("timestamp"), delivery.request)
    if name is None or timed_by == "receipt":
        return None  # not the day of receipt: another attempt may have another
    return f"{name}:{at.astimezone(UTC).date().isoformat()}"


ADAPTER = Mailgun()
