"""What a token from Wix proves and tells."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from services.capture.adapters import adapters
from services.capture.adapters.adapter import PLAIN, BadSignature, Fact, HookRequest, Ignored, LeadFact, Unmappable
from tests.samples.signed import sample

KNOWN = sample("wix")
WIX = adapters()["wix"]
KEY = generate_private_key(65537, 2048)
ENDS = int((KNOWN.now + timedelta(minutes=1)).timestamp())


def pem(key: RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


SECRET = pem(KEY)


def claims(event: Any = None, kind: str = "wix.forms.v4.submission_created", **more: Any) -> dict[str, Any]:
    envelope = {"eventType": kind, "instanceId": "site_1", "data": json.dumps(event)}
    return {"data": json.dumps(envelope), "iat": ENDS - 172_800, "exp": ENDS} | more


def event(submissions: Any, **more: Any) -> dict[str, Any]:
    entity = {"id": "sub_1", "createdDate": "2026-03-04T10:23:30Z", "submissions": submissions}
    return {"id": "evt_1", "createdEvent": {"entity": entity}} | more


def token(payload: dict[str, Any], key: RSAPrivateKey = KEY) -> bytes:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return jwt.encode(payload, secret, algorithm="RS256").encode()


def request(body: bytes) -> HookRequest:
    return replace(KNOWN.request, raw_body=body)


def fact_of(payload: dict[str, Any]) -> Fact:
    given = request(token(payload))
    WIX.verify(given, [SECRET], KNOWN.now)
    (fact,) = WIX.facts(WIX.stored(given, [SECRET]), PLAIN)
    return fact


def lead(submissions: Any, **more: Any) -> LeadFact:
    fact = fact_of(claims(event(submissions, **more)))
    assert isinstance(fact, LeadFact)
    return fact


def refused(body: bytes) -> None:
    with pytest.raises(BadSignature):
        WIX.verify(request(body), [SECRET], KNOWN.now)


def unsigned(header: dict[str, Any], payload: bytes) -> bytes:
    parts = (json.dumps(header).encode(), payload)
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


def test_only_rs256_proves_anything() -> None:
    payload = json.dumps(claims(event({}))).encode()
    refused(unsigned({"alg": "none"}, payload) + b".")
    signed = unsigned({"alg": "HS256", "typ": "JWT"}, payload)
    mac = base64.urlsafe_b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).rstrip(b"=")
    refused(signed + b"." + mac)
    refused(token(claims(event({})), generate_private_key(65537, 2048)))


def test_a_changed_token_proves_nothing() -> None:
    header, payload, signature = token(claims(event({}))).split(b".")
    refused(b".".join((header, payload[:-2] + b"AA", signature)))
    refused(b".".join((header, payload)))
    refused(b"{}")
    refused(b"")
    refused(base64.b64encode(b"[" * 100_000) + b".e30.e30")


@pytest.mark.parametrize("ends", [ENDS - 61, None, "later", True])
def test_a_token_ends(ends: Any) -> None:
    refused(token(claims(event({}), exp=ends)))


def test_a_retry_two_days_later_counts() -> None:
    WIX.verify(request(token(claims(event({})))), [SECRET], KNOWN.now)


def test_either_of_two_keys_will_do_and_a_text_that_is_none_is_no_key() -> None:
    other = pem(generate_private_key(65537, 2048))
    body = token(claims(event({})))
    WIX.verify(request(body + b"\n"), ["no key", other, SECRET.replace("\n", "\\n")], KNOWN.now)
    with pytest.raises(BadSignature):
        WIX.verify(request(body), ["no key", ""], KNOWN.now)
    assert WIX.secret_fault(SECRET) is None
    assert WIX.secret_fault("no key at all") is not None


def test_field_keys_have_an_end_of_their_own() -> None:
    person = lead(
        {
            "full_name_1a2b": "Nora van Dijk",
            "email_2c7a": "Nora@Acme.com",
            "email_91ff": "b@acme.com",
            "marketing_consent_cafe": True,
            "team_size_0d0d": "11-50",
            "empty_1111": "",
        }
    ).person
    assert (person.first_name, person.last_name, person.email) == ("Nora", "van Dijk", "nora@acme.com")
    assert person.consent == {"email": "granted"}
    assert person.attributes == {"email_91ff": "b@acme.com", "team_size_0d0d": "11-50"}


def test_events_are_known_by_their_inner_id() -> None:
    first, again = lead({"email": "a@acme.com"}), lead({"email": "a@acme.com"}, eventTime="2026-03-05T00:00:00Z")
    assert (first.idempotency_key, again.idempotency_key, first.external_id) == ("wix:evt_1", "wix:evt_1", "sub_1")


def test_other_events_are_ignored() -> None:
    fact = fact_of(claims({"id": "evt_2"}, "wix.ecom.v1.order_approved"))
    assert isinstance(fact, Ignored)
    assert (fact.reason, fact.idempotency_key) == ("event_type", "wix:evt_2")
    anonymized = fact_of(claims(event({"email": "a@acme.com"}, triggeredByAnonymizeRequest=True)))
    assert isinstance(anonymized, Ignored)
    assert anonymized.reason == "anonymized"


def test_a_submission_from_nobody_makes_no_lead() -> None:
    fact = fact_of(claims(event({"team_size_0d0d": "11-50"})))
    assert isinstance(fact, Ignored)
    assert fact.reason == "no_identifier"


@pytest.mark.parametrize(
    "payload",
    [
        claims(data=None),
        claims(data="{"),
        claims(data="[]"),
        claims(None),
        claims([]),
        claims({"id": "evt_1"}),
        claims(event(None)),
        claims(event([1])),
        claims({"id": 1, "createdEvent": []}),
    ],
)
def test_a_token_with_something_odd_in_it_cannot_be_mapped(payload: dict[str, Any]) -> None:
    given = request(token(payload))
    assert WIX.delivery_id(given).startswith("wix:")
    with pytest.raises(Unmappable):
        fact_of(payload)
