"""What a form builder, a shop and a payment provider send, signed as they sign it."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Delivery:
    """A signed webhook request."""

    body: bytes
    headers: dict[str, str]


def typeform(secret: str, answers: dict[str, str | bool], hidden: dict[str, str]) -> Delivery:
    """A Typeform submission: base64 of HMAC-SHA256 over the body."""
    kinds = {"work_email": "email", "phone": "phone_number"}
    given = []
    for name, value in answers.items():
        kind = "boolean" if isinstance(value, bool) else kinds.get(name, "text")
        field = {"id": name, "ref": name, "type": "legal" if kind == "boolean" else "short_text"}
        given.append({"type": kind, kind: value, "field": field})
    now = datetime.now(UTC).isoformat()
    response = {
        "form_id": "demo-request",
        "token": uuid.uuid4().hex,
        "landed_at": now,
        "submitted_at": now,
        "hidden": hidden,
        "definition": {"id": "demo-request", "title": "Request a demo", "fields": []},
        "answers": given,
    }
    event = {"event_id": uuid.uuid4().hex, "event_type": "form_response", "form_response": response}
    body = json.dumps(event).encode()
    signature = base64.b64encode(hmac.digest(secret.encode(), body, hashlib.sha256)).decode()
    return Delivery(body, {"content-type": "application/json", "typeform-signature": f"sha256={signature}"})


def stripe(  # noqa: PLR0913  # the fields of a payment
    secret: str, email: str, name: str, amount_minor: int, currency: str, anonymous_id: str
) -> Delivery:
    """A paid Stripe checkout: hex HMAC-SHA256 over time and body, the whole secret being the key."""
    now = int(time.time())
    session = {
        "id": f"cs_{uuid.uuid4().hex}",
        "object": "checkout.session",
        "amount_total": amount_minor,
        "client_reference_id": anonymous_id,
        "created": now,
        "currency": currency.lower(),
        "customer_details": {"email": email, "name": name, "address": {"country": "DE"}},
        "metadata": {},
        "mode": "payment",
        "payment_intent": f"pi_{uuid.uuid4().hex}",
        "payment_status": "paid",
        "status": "complete",
    }
    event = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "created": now,
        "livemode": True,
        "type": "checkout.session.completed",
        "data": {"object": session},
    }
    body = json.dumps(event).encode()
    signature = hmac.digest(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hex()
    return Delivery(body, {"content-type": "application/json", "stripe-signature": f"t={now},v1={signature}"})


def shopify_order(  # noqa: PLR0913  # the fields of an order
    secret: str, email: str, first_name: str, amount: str, currency: str, landing: str
) -> Delivery:
    """A paid Shopify order: base64 of HMAC-SHA256 over the body."""
    now = datetime.now(UTC).isoformat()
    order = {
        "id": uuid.uuid4().int >> 75,
        "email": email,
        "currency": currency,
        "total_price": amount,
        "total_price_set": {"shop_money": {"amount": amount, "currency_code": currency}},
        "financial_status": "paid",
        "created_at": now,
        "processed_at": now,
        "landing_site": landing,
        "test": False,
        "customer": {"id": uuid.uuid4().int >> 75, "email": email, "first_name": first_name},
    }
    body = json.dumps(order).encode()
    headers = {
        "content-type": "application/json",
        "x-shopify-topic": "orders/paid",
        "x-shopify-hmac-sha256": base64.b64encode(hmac.digest(secret.encode(), body, hashlib.sha256)).decode(),
        "x-shopify-shop-domain": "harbor-lane.example",
        "x-shopify-webhook-id": str(uuid.uuid4()),
        "x-shopify-triggered-at": now,
    }
    return Delivery(body, headers)
