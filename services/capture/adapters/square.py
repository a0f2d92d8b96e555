"""Square: payments, refunds, disputes, customers, and bookings of customers whom a second call names.

https://developer.squareup.com/docs/webhooks/overview. A purchase is named by its payment: an invoice that is paid, and
the order behind it, have a payment whose own event tells the money.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    BookingFact,
    ConversionFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    RefundFact,
    Unmappable,
)
from services.capture.adapters.amounts import id_at, needed_id, paid, whole_amount
from services.capture.adapters.bodies import object_at, read_object
from services.capture.adapters.disputes import Standing, chargeback, standing_in
from services.capture.adapters.fields import happened_at, ignored, person_of, text
from services.capture.adapters.meetings import BookingEvent, meeting_time
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any

_CANCELED = frozenset({"CANCELLED_BY_CUSTOMER", "CANCELLED_BY_SELLER", "DECLINED"})
_DISPUTES: Mapping[Standing, frozenset[str]] = {
    "taken": frozenset({"EVIDENCE_REQUIRED", "PROCESSING", "WAITING_THIRD_PARTY", "LOST", "ACCEPTED"}),
    "returned": frozenset({"WON"}),
}  # the others begin with INQUIRY, which takes no money


class Square(Adapter):
    """The public address is signed with the body. `x-square-signature` is SHA-1 and proves nothing."""

    kind: ClassVar[str] = "square"
    api: ClassVar[str | None] = "https://connect.squareup.com"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        address = request.url.encode(errors="surrogatepass")
        given = (header_bytes(value) for value in request.headers.all("x-square-hmacsha256-signature"))
        expected = (base64.b64encode(hmac_sha256(key, address, request.raw_body)) for key in keys(secrets))
        require_any(expected, given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: read_object(request.raw_body)["event_id"])

    def lookups(self, request: HookRequest) -> Sequence[str]:
        """A booking names its customer by id alone."""
        try:
            body = read_object(request.raw_body)
        except Unmappable:
            return ()
        path = _customer_path(_subject(body, "booking")) if _type(body).startswith("booking.") else None
        return () if path is None or _is_test(request) else (path,)

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        fact = _Event(body, request, settings, self.delivery_id(request)).fact()
        return Reading((fact,), {}, body)


def _is_test(request: HookRequest) -> bool:
    return (request.headers.get("square-environment") or "").lower() == "sandbox"


def _type(body: Mapping[str, Any]) -> str:
    return text(body.get("type")) or ""


def _subject(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return object_at(object_at(object_at(body, "data"), "object"), name)


def _customer_path(record: Mapping[str, Any]) -> str | None:
    customer_id = id_at(record, "customer_id")
    if customer_id is None:
        return None
    return f"/v2/customers/{quote(customer_id, safe='')}"


class _Event:
    """An event, and the record that it is about."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key

    def fact(self) -> Fact:
        if _is_test(self.request):
            return self._ignored("test")
        match _type(self.body):
            case "payment.created" | "payment.updated":
                return self._payment(self._record("payment"))
            case "refund.created" | "refund.updated":
                return self._refund(self._record("refund"))
            case "dispute.created" | "dispute.state.updated" | "dispute.state.changed":
                return self._dispute(self._record("dispute"))
            case "booking.created":
                return self._booking(self._record("booking"), "booked")
            case "booking.updated":
                return self._booking(self._record("booking"), "rescheduled")
            case "customer.created":
                return self._customer(self._record("customer"))
            case "invoice.payment_made":
                return self._ignored("told_by_payment")
            case _:
                return self._ignored("event_type")

    def _ignored(self, reason: str) -> Fact:
        return ignored(self.key, self.request, reason)

    def _record(self, name: str) -> Mapping[str, Any]:
        found = _subject(self.body, name)
        if not found:
            raise Unmappable(f"the event has no {name}")
        return found

    def _payment(self, payment: Mapping[str, Any]) -> Fact:
        if payment.get("status") != "COMPLETED":
            return self._ignored("payment_not_completed")
        total = object_at(payment, "total_money") or object_at(payment, "amount_money")
        minor, currency = paid(_money(total))
        at, timed_by = happened_at(payment.get("updated_at") or self.body.get("created_at"), self.request)
        buyer = object_at(payment, "billing_address")
        fields = {
            "external_id": id_at(payment, "customer_id"),
            "email": payment.get("buyer_email_address"),
            "first_name": buyer.get("first_name"),
            "last_name": buyer.get("last_name"),
            "country": buyer.get("country"),
            "attributes.customer_id": id_at(payment, "customer_id"),
        }
        if tip := object_at(payment, "tip_money"):
            fields["attributes.tip_minor"] = _money(tip)[0]
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="payment_completed",
            person=person_of(fields, self.settings.phone_country),
            external_id=needed_id(payment),
            amount_minor=minor,
            currency=currency,
        )

    def _refund(self, refund: Mapping[str, Any]) -> Fact:
        if refund.get("status") != "COMPLETED":
            return self._ignored("refund_not_completed")
        minor, currency = paid(_money(object_at(refund, "amount_money")))
        at, timed_by = happened_at(refund.get("updated_at") or self.body.get("created_at"), self.request)
        return RefundFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="refund_completed",
            external_id=needed_id(refund, "payment_id"),
            refund_id=needed_id(refund),
            amount_minor=minor,
            currency=currency,
        )

    def _dispute(self, dispute: Mapping[str, Any]) -> Fact:
        standing = standing_in(_DISPUTES, text(dispute.get("state")))
        if standing is None:
            return self._ignored("dispute_takes_nothing")
        return chargeback(
            self.key,
            self.request,
            standing,
            purchase=needed_id(object_at(dispute, "disputed_payment"), "payment_id"),
            dispute=id_at(dispute, "id") or needed_id(dispute, "dispute_id"),
            money=paid(_money(object_at(dispute, "amount_money"))),
            began=dispute.get("created_at") or self.body.get("created_at"),
            told=dispute.get("updated_at") or self.body.get("created_at"),
        )

    def _booking(self, booking: Mapping[str, Any], event: BookingEvent) -> Fact:
        status = text(booking.get("status"))
        if status == "NO_SHOW":
            return self._ignored("no_show")
        at, timed_by = happened_at(self.body.get("created_at") or booking.get("updated_at"), self.request)
        return BookingFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="canceled" if status in _CANCELED else event,
            person=self._booker(booking),
            external_id=needed_id(booking),
            starts_at=meeting_time(booking.get("start_at")),
        )

    def _customer(self, customer: Mapping[str, Any]) -> Fact:
        at, timed_by = happened_at(customer.get("created_at") or self.body.get("created_at"), self.request)
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="customer_created",
            person=person_of(_customer_fields(customer), self.settings.phone_country),
            external_id=id_at(customer),
        )

    def _booker(self, booking: Mapping[str, Any]) -> Person:
        """Who booked, as the second call says; by the id alone if it says nothing."""
        path = _customer_path(booking)
        if path is not None and path not in self.request.found:
            raise Unmappable(f"needs the answer to {path}")
        found = self.request.found.get(path or "")
        answer = found if isinstance(found, dict) else {}
        known = _customer_fields(object_at(answer, "customer") or answer)
        customer_id = id_at(booking, "customer_id")
        fields = known | {"external_id": customer_id, "attributes.customer_note": booking.get("customer_note")}
        return person_of(fields, self.settings.phone_country)


def _customer_fields(customer: Mapping[str, Any]) -> dict[str, Any]:
    """A customer who unsubscribed said so; one who did not was perhaps never asked."""
    refuses = object_at(customer, "preferences").get("email_unsubscribed") is True
    return {
        "external_id": id_at(customer),
        "email": customer.get("email_address"),
        "phone": customer.get("phone_number"),
        "first_name": customer.get("given_name"),
        "last_name": customer.get("family_name"),
        "company": customer.get("company_name"),
        "country": object_at(customer, "address").get("country"),
        "consent.email": "denied" if refuses else None,
    }


def _money(money: Mapping[str, Any]) -> tuple[int, str]:
    return whole_amount(money.get("amount"), money.get("currency"))


ADAPTER = Square()
