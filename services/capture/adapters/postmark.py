"""Postmark: what became of mails. https://postmarkapp.com/developer/webhooks/webhooks-overview

Postmark signs nothing: our secret is the `user:password` of the address that it was given. Only bounces have a name.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from secrets import token_urlsafe
from typing import Any, ClassVar

from services.capture.adapters.adapter import PLAIN, Adapter, Fact, HookRequest, MappingSettings, Reading
from services.capture.adapters.bodies import object_at, read_object
from services.capture.adapters.carried import basic_credentials
from services.capture.adapters.errors import Unmappable
from services.capture.adapters.fields import happened_at, ignored, text
from services.capture.adapters.mail import OUR_MESSAGE_ID, MailEvent, address, link, short
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.request import SHORTEST_SECRET, strip_secrets
from services.capture.adapters.signatures import keys, require_any

_EVENTS = {"Delivery": "delivered", "SpamComplaint": "complained", "Open": "opened", "Click": "clicked"}
_BOUNCES = {
    "HardBounce": "bounced",
    "SoftBounce": "bounced",
    "BadEmailAddress": "bounced",
    "Transient": "deferred",
    "DnsError": "deferred",
    "Blocked": "blocked",
    "DMARCPolicy": "blocked",
    "SpamNotification": "complained",
    "SpamComplaint": "complained",
    "Unsubscribe": "unsubscribed",
    "Subscribe": "resubscribed",
    "ManuallyDeactivated": "dropped",
    "Unconfirmed": "dropped",
    "SMTPApiError": "dropped",
    "TemplateRenderingFailed": "dropped",
}
_PERMANENT = frozenset({"HardBounce", "BadEmailAddress"})
_SUPPRESSIONS = {"HardBounce": "bounced", "SpamComplaint": "complained"}
_TIMES = ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt")


class Postmark(Adapter):
    """One event per delivery."""

    kind: ClassVar[str] = "postmark"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_any(keys(secrets), basic_credentials(request))

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _name(read_object(request.raw_body), request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        if not isinstance(body.get("RecordType"), str):
            raise Unmappable("an event has a RecordType")
        return Reading((_fact(self.delivery_id(request), body, request),), object_at(body, "Metadata"), body)

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        return strip_secrets(request, [*secrets, *(secret.partition(":")[2] for secret in secrets)])

    def new_secret(self) -> str:
        return f"hooks:{token_urlsafe(32)}"

    def secret_fault(self, secret: str) -> str | None:
        user, _, password = secret.partition(":")
        if user and len(password) >= SHORTEST_SECRET:
            return None
        return f"a secret is user:password, the password with at least {SHORTEST_SECRET} characters"


def _name(body: Mapping[str, Any], request: HookRequest) -> str | None:
    told, bounce = text(body["RecordType"]), short(body.get("ID"))
    if told == "Bounce" and bounce is not None:
        return f"Bounce:{bounce}"
    at, timed_by = happened_at(_time(body), request)
    recipient = _recipient(body)
    if timed_by == "receipt" or recipient is None or "MessageID" not in body:
        return None  # not the time of receipt: another attempt has another
    written = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{told}:{short(body['MessageID'])}:{recipient}:{written}"


def _fact(key: str, body: Mapping[str, Any], request: HookRequest) -> Fact:
    happened, permanent = _happened(body)
    if happened is None:
        return ignored(key, request, "event_type")
    return MailEvent(
        key=key,
        event=happened,
        email=_recipient(body),
        at=_time(body),
        message_id=_own_id(object_at(body, "Metadata")) or short(body.get("MessageID")),
        permanent=permanent,
        url=link(body.get("OriginalLink")) if happened == "clicked" else None,
        properties={name: body.get(name) for name in ("Type", "Description", "Details", "MessageStream")},
    ).fact(request)


def _own_id(metadata: Mapping[str, Any]) -> str | None:
    """Our id of the message: the name it has elsewhere is longer than the 20 characters that Postmark allows."""
    return short(metadata.get("throughline_message")) or short(metadata.get(OUR_MESSAGE_ID))


def _happened(body: Mapping[str, Any]) -> tuple[str | None, bool | None]:
    """Our name for the event, None for what means nothing here; and whether a bounce is for good."""
    told, sort = body["RecordType"], str(body.get("Type"))
    if told == "Bounce":
        happened = _BOUNCES.get(sort, "unknown")
        return happened, sort in _PERMANENT if happened == "bounced" else None
    if told == "SubscriptionChange":
        match body.get("SuppressSending"):
            case True:
                happened = _SUPPRESSIONS.get(str(body.get("SuppressionReason")), "unsubscribed")
                return happened, True if happened == "bounced" else None
            case False:
                return "resubscribed", None
            case _:
                return "unknown", None
    return _EVENTS.get(told), None


def _recipient(body: Mapping[str, Any]) -> str | None:
    return address(body.get("Email")) or address(body.get("Recipient"))


def _time(body: Mapping[str, Any]) -> Any:
    return next((body[name] for name in _TIMES if body.get(name)), None)


ADAPTER = Postmark()
