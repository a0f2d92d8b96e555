"""WooCommerce: orders, the refunds inside them, and customers. https://woocommerce.com/document/webhooks/

A purchase is named by its order. Refunds have no topic: they show as rows in the order, again in every later event
about it, and are named by their own id. Times are read from the `_gmt` fields; the others are local to the shop.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    Answer,
    ConversionFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    RefundFact,
    Touch,
    Unmappable,
)
from services.capture.adapters.amounts import decimal_amount, id_at, needed_id, paid
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import (
    click_ids_of,
    happened_at,
    ignored,
    person_of,
    query_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any

_PING = re.compile(rb"webhook_id=[0-9]{1,20}")
# What WordPress decodes in a secret before it signs with it, and nothing else that HTML knows.
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|#0*(?:34|38|39|60|62)|#[xX]0*(?:22|26|27|3[cCeE]));")
_PAID = frozenset({"processing", "completed"})
_ATTRIBUTION = "_wc_order_attribution_"
_NOTHING = re.compile(r"\(.*\)", re.DOTALL)  # "(direct)", "(none)", "(not set)"


class WooCommerce(Adapter):
    """The topic is in a header, and is not signed; the body is. Delivery ids come again within a second."""

    kind: ClassVar[str] = "woocommerce"

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        """The ping for a new webhook is not signed and tells nothing."""
        return Answer() if request.method == "POST" and _PING.fullmatch(request.raw_body) else None

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        decoded = [_ENTITY.sub(lambda entity: html.unescape(entity[0]), secret) for secret in secrets]
        given = (header_bytes(value) for value in request.headers.all("x-wc-webhook-signature"))
        require_any((base64.b64encode(hmac_sha256(key, request.raw_body)) for key in keys(decoded)), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _own_name(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        delivery = _Delivery(body, request, settings, self.delivery_id(request))
        return Reading(tuple(delivery.facts()), delivery.meta, body)


def _own_name(request: HookRequest) -> str | None:
    body = read_object(request.raw_body)
    parts = (_topic(request), id_at(body), text(body.get("date_modified_gmt")))
    return ":".join(part for part in parts if part) if all(parts) else None


def _topic(request: HookRequest) -> str | None:
    named = request.headers.get("x-wc-webhook-topic")
    resource, event = request.headers.get("x-wc-webhook-resource"), request.headers.get("x-wc-webhook-event")
    return named or (f"{resource}.{event}" if resource and event else None)


class _Delivery:
    """A body with its topic."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key
        self.meta = {str(entry.get("key")): entry.get("value") for entry in objects_at(body, "meta_data")}

    def facts(self) -> list[Fact]:
        match _topic(self.request):
            case None:
                raise Unmappable("the header X-WC-Webhook-Topic is needed, once")
            case "order.created" | "order.updated" | "order.restored":
                return self._order()
            case "customer.created":
                return [self._customer()]
            case "order.deleted" | "customer.deleted":
                return [self._ignored("deleted")]
            case _:
                return [self._ignored("topic")]

    def _ignored(self, reason: str) -> Fact:
        return ignored(self.key, self.request, reason)

    def _order(self) -> list[Fact]:
        refunds = [refund for row in objects_at(self.body, "refunds") if (refund := self._refund(row)) is not None]
        if text(self.body.get("status")) in _PAID or text(self.body.get("date_paid_gmt")):
            return [self._order_paid(), *refunds]
        if refunds:
            return refunds
        return [self._order_created() if _topic(self.request) == "order.created" else self._ignored("unpaid")]

    def _order_paid(self) -> Fact:
        order = self.body
        minor, currency = paid(decimal_amount(order.get("total"), order.get("currency")))
        at, timed_by = happened_at(order.get("date_paid_gmt") or self._made_at(), self.request)
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="order_paid",
            person=self._buyer(),
            external_id=needed_id(order),
            amount_minor=minor,
            currency=currency,
            touch=self._visit(),
        )

    def _order_created(self) -> Fact:
        """Ordered and not yet paid, as by bank transfer."""
        name = needed_id(self.body)
        at, timed_by = happened_at(self._made_at(), self.request)
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="order_created",
            person=self._buyer(),
            touch=self._visit() or Touch(type="order_created", touch_id=name),
            external_id=name,
        )

    def _refund(self, row: Mapping[str, Any]) -> Fact | None:
        """A row with a negative total. It has no time: the order changed when it was made."""
        minor, currency = decimal_amount(row.get("total"), self.body.get("currency"))
        if minor == 0:
            return None
        refund_id = needed_id(row)
        at, timed_by = happened_at(self.body.get("date_modified_gmt"), self.request)
        return RefundFact(
            idempotency_key=delivery_name(WooCommerce.kind, self.request, lambda: f"refund:{refund_id}"),
            occurred_at=at,
            timed_by=timed_by,
            event="order_refunded",
            external_id=needed_id(self.body),
            refund_id=refund_id,
            amount_minor=abs(minor),
            currency=currency,
        )

    def _customer(self) -> Fact:
        customer, billing = self.body, object_at(self.body, "billing")
        fields = {
            "external_id": _account(customer, "id"),
            "email": customer.get("email") or billing.get("email"),
            "first_name": customer.get("first_name") or billing.get("first_name"),
            "last_name": customer.get("last_name") or billing.get("last_name"),
            "phone": billing.get("phone"),
            "company": billing.get("company"),
            "country": billing.get("country"),
        }
        at, timed_by = happened_at(self._made_at(), self.request)
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="customer_created",
            person=person_of(fields, self.settings.phone_country),
            external_id=id_at(customer),
        )

    def _made_at(self) -> Any:
        return self.body.get("date_created_gmt") or self.body.get("date_modified_gmt")

    def _buyer(self) -> Person:
        billing = object_at(self.body, "billing")
        names = ("email", "phone", "first_name", "last_name", "company", "country")
        fields = {name: billing.get(name) for name in names}
        return person_of(fields | {"external_id": _account(self.body, "customer_id")}, self.settings.phone_country)

    def _visit(self) -> Touch | None:
        """The visit that led to the order, as the shop attributes it; the same in every event about the order."""
        attributed = {
            name.removeprefix(_ATTRIBUTION): value
            for name, value in self.meta.items()
            if name.startswith(_ATTRIBUTION) and isinstance(value, str) and not _NOTHING.fullmatch(value.strip())
        }
        entered = query_of(attributed.get("session_entry"))
        utm, click_ids = utm_of(attributed, entered), click_ids_of(attributed, entered)
        referrer = attributed.get("referrer")
        if not utm and not click_ids and not referrer:
            return None
        name = needed_id(self.body)
        visit = Touch(type="session_started", touch_id=name, utm=utm, click_ids=click_ids, referrer=referrer)
        return touch_of({}, visit)


def _account(record: Mapping[str, Any], name: str) -> str | None:
    """The id of a customer's account; guests have the id 0."""
    found = id_at(record, name)
    return None if found == "0" else found


ADAPTER = WooCommerce()
