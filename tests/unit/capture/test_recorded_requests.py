"""What is said about a recorded request is what the door would do."""

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


def test_what_a_confirmation_asks_for_is_told() -> None:
    shake = sample("ses").told["handshake"]
    confirmed = said("ses", headers=shake["headers"], body=shake["body"])
    assert (confirmed["verdict"], confirmed["status"], confirmed["facts"]) == ("accept", 200, [])
    assert confirmed["then"] == shake["answer"]["then"]
    assert "then" not in said("ses")
