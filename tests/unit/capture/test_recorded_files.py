"""What the file of a recording may say beside the request."""

import json
from typing import Any

import pytest

from services.capture.hooks.checking import RecordedRequest, check, recorded
from tests.samples.signed import sample


def judged(kind: str, **changes: Any) -> dict[str, Any]:
    return check(recorded(RecordedRequest.model_validate({**sample(kind).told, **changes})))


@pytest.mark.parametrize(("token", "status"), [("ours", 200), ("wrong", 403)])
def test_the_token_of_a_handshake_may_stand_where_samples_have_it(token: str, status: int) -> None:
    url = f"https://x.example/h?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}"
    said = judged("facebook", method="GET", url=url, body="", handshake={"verify_token": "ours"})
    assert said["status"] == status
    assert judged("facebook", handshake=None)["status"] == 200


def test_money_without_a_currency_is_in_the_default_one() -> None:
    sale = {"siteId": 1, "saleId": 2, "purchasingClientId": "3", "totalAmountPaid": 1500}
    body = json.dumps({"messageId": "m1", "eventId": "clientSale.created", "eventData": sale})
    known = sample("mindbody")
    changes = {"body": body, "headers": dict(known.with_body(body.encode()).headers.pairs)}
    (fact,) = judged("mindbody", **changes, default_currency="JPY")["facts"]
    assert (fact["kind"], fact["amount_minor"], fact["currency"]) == ("conversion", 1500, "JPY")
    assert "currency" in judged("mindbody", **changes)["quarantined"]


@pytest.mark.parametrize("before", ["", "GET ", "GET https://graph.facebook.com"])
def test_a_second_call_may_be_recorded_with_its_whole_address(before: str) -> None:
    fetch = sample("facebook").told["fetch"]
    path = fetch["request"].removeprefix("GET ").partition("?")[0]
    (fact,) = judged("facebook", fetch={"request": before + path, "response": fetch["response"]})["facts"]
    assert fact["kind"] == "lead"


def test_a_title_is_told() -> None:
    body = json.dumps({"id": "1", "email": "a@acme.com", "title": "CTO"})
    (fact,) = judged("zapier", body=body)["facts"]
    assert fact["title"] == "CTO"
