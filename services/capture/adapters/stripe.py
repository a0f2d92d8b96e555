"""Stripe: purchases, refunds, disputes and customers. https://docs.stripe.com/webhooks

A purchase is named by its payment intent, else by its invoice, else by the checkout session, so that the events about
one payment make one conversion. `charge.refunded` carries a running total and is left alone: refunds have events of
their own.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
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
from services.capture.adapters.amounts import whole_number
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.disputes import Standing, chargeback, standing_in
from services.capture.adapters.fields import (
    click_ids_of,
    happened_at,
    ignored,
    lead_field,
    person_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import require_timed
from shared.money import UnknownCurrency, exponent

# https://docs.stripe.com/currencies: all others have two decimals, also those of which ISO 4217 says otherwise.
_NO_DECIMALS = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
_THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
_NOTHING_TO_PAY = "no_payment_required"
_DISPUTES: Mapping[Standing, frozenset[str]] = {
    "taken": frozenset({"needs_response", "under_review", "lost"}),
    "returned": frozenset({"won", "prevented", "charge_refunded"}),  # a refund of the charge has an event of its own
}  # the others begin with "warning": an inquiry, which takes no money
_PROMOTIONS = {"opt_in": "granted", "opt_out": "denied"}


class Stripe(Adapter):
    """One event per delivery. The key is the secret's whole text, `whsec_` included."""

    kind: ClassVar[str] = "stripe"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_timed(request, "Stripe-Signature", secrets, now)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: read_object(request.raw_body)["id"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        event = _Event(body, request, settings, self.delivery_id(request))
        return Reading((event.fact(),), object_at(event.subject, "metadata"), body)


class _Event:
    """An event, and the thing it is about."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key
        self.subject = object_at(object_at(body, "data"), "object")

    def fact(self) -> Fact:
        if self.body.get("object") == "v2.core.event":
            return self._ignored("thin_event")
        if not self.subject:
            raise Unmappable("an event is about an object")
        if self.body.get("livemode") is False:
            return self._ignored("test")
        match self.body.get("type"):
            case "checkout.session.completed":
                return self._session(is_paid=self.subject.get("payment_status") == "paid")
            case "checkout.session.async_payment_succeeded":
                return self._session(is_paid=True)
            case "payment_intent.succeeded":
                return self._payment_intent()
            case "invoice.paid":
                return self._invoice()
            case "refund.created" | "refund.updated":
                return self._refund()
            case "customer.created":
                return self._customer()
            case "charge.refunded":
                return self._ignored("running_total")
            case str(kind) if kind.startswith("charge.dispute."):
                return self._dispute()
            case _:
                return self._ignored("event_type")

    def _ignored(self, reason: str) -> Fact:
        return ignored(self.key, self.request, reason)

    def _session(self, *, is_paid: bool) -> Fact:
        session = self.subject
        payment, invoice = _id(session.get("payment_intent")), _id(session.get("invoice"))
        names = _names(payment, invoice, _id(session))
        details = object_at(session, "customer_details")
        fields = {
            "email": details.get("email") or session.get("customer_email"),
            "phone": details.get("phone"),
            "name": details.get("name"),
            "country": object_at(details, "address").get("country"),
            "external_id": _id(session.get("customer")),
            "anonymous_id": session.get("client_reference_id"),
            "consent.email": _PROMOTIONS.get(str(object_at(session, "consent").get("promotions"))),
        }
        fields = _custom_fields(session) | {name: value for name, value in fields.items() if value}
        if is_paid:
            return self._conversion("checkout_paid", names[:2], session.get("amount_total"), fields)
        happened = "checkout_free" if session.get("payment_status") == _NOTHING_TO_PAY else "checkout_unpaid"
        return self._lead(happened, next(iter(names), None), fields, touched=True)

    def _payment_intent(self) -> Fact:
        intent = self.subject
        order = text(object_at(intent, "payment_details").get("order_reference")) or ""
        invoice = _id(intent.get("invoice")) or (order if order.startswith("in_") else None)
        names = _names(_id(intent), invoice, _id(intent.get("latest_charge")))
        amount = intent.get("amount_received", intent.get("amount"))
        payer = object_at(_charge(intent), "billing_details")
        fields = {
            "email": intent.get("receipt_email") or payer.get("email"),
            "phone": payer.get("phone"),
            "name": payer.get("name") or object_at(intent, "shipping").get("name"),
            "country": object_at(payer, "address").get("country"),
            "external_id": _id(intent.get("customer")),
        }
        return self._conversion("payment_succeeded", names, amount, fields)

    def _invoice(self) -> Fact:
        invoice = self.subject
        if invoice.get("amount_paid") == 0:
            return self._ignored("nothing_paid")
        names = _names(_payment_of_invoice(invoice), _id(invoice))
        fields = {
            "email": invoice.get("customer_email"),
            "phone": invoice.get("customer_phone"),
            "name": invoice.get("customer_name"),
            "country": object_at(invoice, "customer_address").get("country"),
            "external_id": _id(invoice.get("customer")),
        }
        paid_at = object_at(invoice, "status_transitions").get("paid_at")
        return self._conversion("invoice_paid", names, invoice.get("amount_paid"), fields, paid_at)

    def _refund(self) -> Fact:
        refund = self.subject
        if refund.get("status") != "succeeded":
            return self._ignored("refund_not_succeeded")
        purchase = _id(refund.get("payment_intent")) or _id(refund.get("charge"))
        refund_id = _id(refund)
        if purchase is None or refund_id is None:
            raise Unmappable("a refund names itself and its payment")
        at, timed_by = happened_at(self.body.get("created"), self.request)  # the refund's own is when it was asked for
        amount, currency = _money(refund.get("amount"), refund.get("currency"))
        return RefundFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="refund_succeeded",
            external_id=purchase,
            refund_id=refund_id,
            amount_minor=amount,
            currency=currency,
        )

    def _dispute(self) -> Fact:
        dispute = self.subject
        standing = standing_in(_DISPUTES, text(dispute.get("status")))
        if standing is None:
            return self._ignored("dispute_takes_nothing")
        purchase = _id(dispute.get("payment_intent")) or _id(dispute.get("charge"))
        dispute_id = _id(dispute)
        if purchase is None or dispute_id is None:
            raise Unmappable("a dispute names itself and its payment")
        return chargeback(
            self.key,
            self.request,
            standing,
            purchase=purchase,
            dispute=dispute_id,
            money=_money(dispute.get("amount"), dispute.get("currency")),
            began=dispute.get("created") or self.body.get("created"),
            told=self.body.get("created"),
        )

    def _customer(self) -> Fact:
        customer = self.subject
        fields = {
            "email": customer.get("email"),
            "phone": customer.get("phone"),
            "name": customer.get("name"),
            "country": object_at(customer, "address").get("country"),
            "external_id": _id(customer),
        }
        return self._lead("customer_created", _id(customer), fields, touched=False)

    def _conversion(
        self, happened: str, names: Sequence[str], amount: Any, fields: Mapping[str, Any], at: Any = None
    ) -> Fact:
        if not names:
            raise Unmappable("a purchase has an id")
        occurred_at, timed_by = happened_at(at or self.body.get("created"), self.request)
        minor, currency = _money(amount, self.subject.get("currency"))
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=occurred_at,
            timed_by=timed_by,
            event=happened,
            person=self._person(fields),
            external_id=names[0],
            same_as=tuple(names[1:]),
            amount_minor=minor,
            currency=currency,
            touch=self._visit(names[0]),
        )

    def _lead(self, happened: str, name: str | None, fields: Mapping[str, Any], *, touched: bool) -> Fact:
        occurred_at, timed_by = happened_at(self.body.get("created"), self.request)
        visit = self._visit(name or self.key)
        if visit is None and touched:
            visit = Touch(type=happened, touch_id=name or self.key)
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=occurred_at,
            timed_by=timed_by,
            event=happened,
            person=self._person(fields),
            touch=visit,
            external_id=name,
        )

    def _person(self, fields: Mapping[str, Any]) -> Person:
        metadata = object_at(self.subject, "metadata")
        named = {"anonymous_id": metadata.get("anonymous_id")}
        return person_of(named | {name: value for name, value in fields.items() if value}, self.settings.phone_country)

    def _visit(self, name: str) -> Touch | None:
        """The visit that led here, where the site wrote its parameters into the metadata."""
        metadata = object_at(self.subject, "metadata")
        utm, click_ids = utm_of(metadata), click_ids_of(metadata)
        if not utm and not click_ids:
            return None
        return touch_of({}, Touch(type="session_started", touch_id=name, utm=utm, click_ids=click_ids))


def _money(amount: Any, currency: Any) -> tuple[int, str]:
    """The amount in ISO 4217 minor units; Stripe's smallest unit differs for some currencies (ISK, UGX, MGA)."""
    code = (text(currency) or "").upper()
    smallest = whole_number(amount)
    if smallest < 0:
        raise Unmappable("a price is not negative")
    try:
        shift = exponent(code) - (0 if code in _NO_DECIMALS else 3 if code in _THREE_DECIMALS else 2)
    except UnknownCurrency as exc:
        raise Unmappable(str(exc)) from exc
    if shift >= 0:
        return smallest * 10**shift, code
    minor, rest = divmod(smallest, 10**-shift)
    if rest:
        raise Unmappable(f"{code} has no such fraction")
    return minor, code


def _payment_of_invoice(invoice: Mapping[str, Any]) -> str | None:
    """The payment intent: by itself in older versions of the API, among the payments in newer ones, if at all."""
    payments = objects_at(object_at(invoice, "payments"), "data")
    intents = [object_at(payment, "payment").get("payment_intent") for payment in payments]
    return next((name for intent in [invoice.get("payment_intent"), *intents] if (name := _id(intent))), None)


def _charge(intent: Mapping[str, Any]) -> Mapping[str, Any]:
    """The charge of a payment intent, where it comes along: expanded, or in the list of older versions of the API."""
    latest = object_at(intent, "latest_charge")
    return latest or next(iter(objects_at(object_at(intent, "charges"), "data")), {})


def _custom_fields(session: Mapping[str, Any]) -> dict[str, Any]:
    """The shop's own questions by their keys; of a choice the label."""
    found: dict[str, Any] = {}
    for question in objects_at(session, "custom_fields"):
        key, answer = text(question.get("key")), object_at(question, str(question.get("type")))
        value = answer.get("value")
        labels = [option.get("label") for option in objects_at(answer, "options") if option.get("value") == value]
        if key:
            found[lead_field(key) or f"attributes.{key}"] = next(iter(labels), value)
    return found


def _names(*candidates: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in candidates if name))


def _id(value: Any) -> str | None:
    """An id, alone or in the object that it names: Stripe expands references on demand."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) and 0 < len(found) <= 255 else None


ADAPTER = Stripe()
