"""What is said about a recorded request is what the door would do."""

import json
from typing import Any

import pytest

from services.capture.hooks.checking import RecordedRequest, check, recorded
from tests.samples.signed import sample


def said(kind: str, **changes: Any) -> dict[str, Any]:
    return check(recorded(RecordedRequest.model_validate({**sample(kind).told, **changes})))


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_the_door_takes_post_get_and_head(method: str) -> None:
    refused = said("rudderstack", method=method)
    assert (refused["verdict"], refused["status"], refused["facts"]) == ("refuse", 405, [])
    for other in ("get", "HEAD"):
        there = said("rudderstack", method=other)
        assert (there["verdict"], there["status"], there["facts"]) == ("accept", 200, [])


def test_what_is_recorded_as_null_is_not_there() -> None:
    nothing = dict.fromkeys(
        ("fetch", "mapping", "defaults", "certificates", "default_country", "allow_legacy", "secrets")
    )
    assert said("stripe", **nothing) == said("stripe")


def test_a_body_over_the_limit_is_refused() -> None:
    large = said("postmark", body=" " * 2_000_001)
    assert (large["verdict"], large["status"], large["facts"]) == ("refuse", 413, [])
    assert said("postmark", body="{" + " " * 1_999_998 + "}")["status"] == 200


def test_two_secrets_may_be_live() -> None:
    secret = sample("stripe").secret
    for live in ({"secret": ["another", secret]}, {"secret": "another", "secrets": [secret]}, {"secrets": [secret]}):
        assert said("stripe", **live)["verdict"] == "accept"
    assert said("stripe", secret=["another"])["status"] == 401


def test_a_lead_and_a_wish_to_be_forgotten_tell_the_id_at_the_source() -> None:
    body = json.dumps({"id": 42, "mail": "a@acme.com"})
    mapping = {"external_id": "id", "email": "mail"}
    bearer = {"authorization": f"Bearer {sample('generic').secret}"}
    (lead,) = said("generic", body=body, headers=bearer, mapping=mapping)["facts"]
    assert (lead["kind"], lead["external_id"]) == ("lead", "42")
    wish = json.loads(sample("hubspot").request.raw_body)
    wish[0]["subscriptionType"] = "contact.privacyDeletion"
    signed = sample("hubspot").with_body(json.dumps(wish).encode())
    (erasure,) = said("hubspot", body=signed.raw_body.decode(), headers=list(signed.headers.pairs))["facts"]
    assert (erasure["kind"], erasure["external_id"]) == ("erasure", "121108961")


def test_what_a_confirmation_asks_for_is_told() -> None:
    shake = sample("ses").told["handshake"]
    confirmed = said("ses", headers=shake["headers"], body=shake["body"])
    assert (confirmed["verdict"], confirmed["status"], confirmed["facts"]) == ("accept", 200, [])
    assert confirmed["answer"].items() >= shake["answer"].items()
    assert "answer" not in said("ses")
