"""Shopify: orders, refunds, disputes, customers and their consent. https://shopify.dev/docs/api/webhooks

A purchase is named by its order. `X-Shopify-Event-Id` is shared by the topics of one event and so names no delivery.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    ConversionFact,
    ErasureFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Reading,
    RefundFact,
    Touch,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.disputes import Standing, chargeback, standing_in
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
from shared.money import NotAnAmount, UnknownCurrency, parse_minor

_SIGNATURES = (
    "x-shopify-hmac-sha256",
    "shopify-hmac-sha256",
)  # of webhooks, and of "events", whose shape the app picks
_DISPUTES: Mapping[Standing, frozenset[str]] = {
    "taken": frozenset({"needs_response", "under_review", "accepted", "lost"}),
    "returned": frozenset({"won", "prevented", "charge_refunded"}),  # a refund has a topic of its own
}
_CONSENT = {"subscribed": "granted", "unsubscribed": "denied"}  # "not_subscribed" was never asked


class Shopify(Adapter):
    """The topic is in a header, and is not signed; the body is."""

    kind: ClassVar[str] = "shopify"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = [header_bytes(value) for name in _SIGNATURES for value in request.headers.all(name)]
        require_any((base64.b64encode(hmac_sha256(key, request.raw_body)) for key in keys(secrets)), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: request.headers.get("x-shopify-webhook-id"))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        fact = _Delivery(body, request, settings, self.delivery_id(request)).fact()
        return Reading((fact,), _notes(body), body)


class _Delivery:
    """A body with its topic."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key

    def fact(self) -> Fact:
        topic = self.request.headers.get("x-shopify-topic")
        if topic is None and self.request.headers.get("shopify-topic"):
            return self._ignored("events")
        if topic is None:
            raise Unmappable("the header X-Shopify-Topic is needed, once")
        if self.body.get("test") is True or self.request.headers.get("x-shopify-test") == "true":
            return self._ignored("test")
        match topic:
            case "orders/paid" | "orders/create":
                paid = topic == "orders/paid" or self.body.get("financial_status") == "paid"
                return self._order_paid() if paid else self._order_created()
            case "refunds/create":
                return self._refund()
            case "disputes/create" | "disputes/update":
                return self._dispute()
            case "customers/create":
                return self._customer_created()
            case "customers_marketing_consent/update" | "customers_email_marketing_consent/update":
                return self._consent_changed()
            case "customers/redact":
                return self._redact()
            case _:
                return self._ignored("topic")

    def _ignored(self, reason: str) -> Fact:
        return ignored(self.key, self.request, reason)

    def _order_paid(self) -> Fact:
        order = self.body
        at, timed_by = happened_at(order.get("processed_at") or order.get("created_at"), self.request)
        total = object_at(object_at(order, "total_price_set"), "shop_money")
        amount, currency = total.get("amount"), total.get("currency_code")
        if amount is None:
            amount, currency = order.get("total_price"), order.get("currency")
        minor, code = _money(amount, currency)
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="order_paid",
            person=person_of(self._buyer(), self.settings.phone_country),
            external_id=_record_id(order),
            amount_minor=minor,
            currency=code,
            touch=self._visit(),
        )

    def _order_created(self) -> Fact:
        order = self.body
        at, timed_by = happened_at(order.get("processed_at") or order.get("created_at"), self.request)
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="order_created",
            person=person_of(self._buyer(), self.settings.phone_country),
            touch=self._visit() or Touch(type="order_created", touch_id=_record_id(order)),
            external_id=_record_id(order),
        )

    def _refund(self) -> Fact:
        """What moved is the sum of the transactions that succeeded; the line items are only why."""
        refund = self.body
        paid_back = [
            transaction
            for transaction in objects_at(refund, "transactions")
            if transaction.get("kind") == "refund" and transaction.get("status") == "success"
        ]
        amounts = [_transaction_money(transaction) for transaction in paid_back]
        if sum(minor for minor, _ in amounts) == 0:
            return self._ignored("nothing_refunded")
        if len({code for _, code in amounts}) > 1:
            raise Unmappable("a refund in several currencies")
        at, timed_by = happened_at(refund.get("created_at"), self.request)
        return RefundFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="order_refunded",
            external_id=_record_id(refund, "order_id"),
            refund_id=_record_id(refund),
            amount_minor=sum(minor for minor, _ in amounts),
            currency=amounts[0][1],
        )

    def _dispute(self) -> Fact:
        dispute = self.body
        standing = standing_in(_DISPUTES, text(dispute.get("status")))
        if standing is None or dispute.get("type") == "inquiry":
            return self._ignored("dispute_takes_nothing")
        triggered_at = self.request.headers.get("x-shopify-triggered-at")
        return chargeback(
            self.key,
            self.request,
            standing,
            purchase=_record_id(dispute, "order_id"),
            dispute=f"dispute:{_record_id(dispute)}",  # refunds are numbered too
            money=_money(dispute.get("amount"), dispute.get("currency")),
            began=dispute.get("initiated_at"),
            told=dispute.get("finalized_on") or triggered_at,
        )

    def _customer_created(self) -> Fact:
        customer = self.body
        address = object_at(customer, "default_address")
        at, timed_by = happened_at(customer.get("created_at"), self.request)
        fields = _customer_fields(customer) | {
            "company": address.get("company"),
            "country": address.get("country_code"),
            "phone": customer.get("phone") or address.get("phone"),
        }
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="customer_created",
            person=person_of(fields, self.settings.phone_country),
            external_id=_record_id(customer),
        )

    def _consent_changed(self) -> Fact:
        customer = self.body
        told = [object_at(customer, f"{channel}_marketing_consent") for channel in ("email", "sms")]
        changed_at = max((text(consent.get("consent_updated_at")) or "" for consent in told), default="")
        triggered_at = self.request.headers.get("x-shopify-triggered-at")
        at, timed_by = happened_at(changed_at or triggered_at, self.request)
        fields = _customer_fields(customer) | {
            "external_id": customer.get("customer_id") or customer.get("id"),
            "email": customer.get("email") or customer.get("email_address"),
        }
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="consent_changed",
            person=person_of(fields, self.settings.phone_country),
        )

    def _redact(self) -> Fact:
        person = person_of(_customer_fields(object_at(self.body, "customer")), self.settings.phone_country)
        if not person.identified:
            return self._ignored("no_identifier")
        at, timed_by = happened_at(None, self.request)
        return ErasureFact(
            idempotency_key=self.key, occurred_at=at, timed_by=timed_by, event="customer_redacted", person=person
        )

    def _buyer(self) -> dict[str, Any]:
        order = self.body
        customer, address = object_at(order, "customer"), object_at(order, "billing_address")
        fields = _customer_fields(customer) | {
            "email": order.get("email") or order.get("contact_email") or customer.get("email"),
            "phone": order.get("phone") or customer.get("phone") or address.get("phone"),
            "first_name": customer.get("first_name") or address.get("first_name"),
            "last_name": customer.get("last_name") or address.get("last_name"),
            "company": address.get("company"),
            "country": address.get("country_code"),
            "anonymous_id": _notes(order).get("anonymous_id"),
        }
        if fields["consent.email"] is None and order.get("buyer_accepts_marketing") is True:
            fields["consent.email"] = "granted"
        return fields

    def _visit(self) -> Touch | None:
        """The visit that led to the order; the same for every topic about it, so that it is one touch."""
        landing, notes = query_of(text(self.body.get("landing_site"))), _notes(self.body)
        referrer = text(self.body.get("referring_site"))
        utm, click_ids = utm_of(landing, notes), click_ids_of(landing, notes)
        if not utm and not click_ids and not referrer:
            return None
        name = _record_id(self.body)
        visit = Touch(type="session_started", touch_id=name, utm=utm, click_ids=click_ids, referrer=referrer)
        return touch_of({}, visit)


def _customer_fields(customer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "external_id": customer.get("id"),
        "email": customer.get("email"),
        "phone": customer.get("phone"),
        "first_name": customer.get("first_name"),
        "last_name": customer.get("last_name"),
        "consent.email": _consent(customer, "email"),
        "consent.sms": _consent(customer, "sms"),
    }


def _consent(customer: Mapping[str, Any], channel: str) -> str | None:
    return _CONSENT.get(str(object_at(customer, f"{channel}_marketing_consent").get("state")))


def _transaction_money(transaction: Mapping[str, Any]) -> tuple[int, str]:
    shop = object_at(object_at(transaction, "amount_set"), "shop_money")
    if shop:
        return _money(shop.get("amount"), shop.get("currency_code"))
    return _money(transaction.get("amount"), transaction.get("currency"))


def _money(amount: Any, currency: Any) -> tuple[int, str]:
    code = text(currency) or ""
    try:
        minor = parse_minor(text(amount) or "", code)
    except (NotAnAmount, UnknownCurrency) as exc:
        raise Unmappable(str(exc)) from exc
    if minor < 0:
        raise Unmappable("a price is not negative")
    return minor, code


def _record_id(record: Mapping[str, Any], name: str = "id") -> str:
    found = record.get(name)
    if isinstance(found, bool) or not isinstance(found, int | str) or not 0 < len(str(found)) <= 255:
        raise Unmappable(f"there is no {name}")
    return str(found)


def _notes(order: Mapping[str, Any]) -> dict[str, Any]:
    """What the shop's theme wrote into the cart, by name."""
    return {str(note.get("name")): note.get("value") for note in objects_at(order, "note_attributes")}


ADAPTER = Shopify()
