"""What messages are made of before they leave: segments, signatures, turns."""

from datetime import UTC, datetime, timedelta

import pytest

from services.nurture.channels.limits import turn
from services.nurture.channels.signature_v4 import Credentials, signed_headers
from services.nurture.channels.texting import segments, with_way_out
from shared.smtp import without_addresses

AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 1),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ж" * 70, 1),
        ("ж" * 71, 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        ("ж" * 134, 2),
        ("ж" * 135, 3),
    ],
)
def test_an_sms_is_counted_as_networks_count_it(text: str, count: int) -> None:
    assert segments(text) == count


def test_who_says_how_to_stop_needs_not_be_told_again() -> None:
    assert with_way_out("Hello ", "Reply STOP to opt out") == "Hello\nReply STOP to opt out"
    assert with_way_out("Hi! Text stop to leave.", "Reply STOP to opt out") == "Hi! Text stop to leave."
    assert with_way_out("Do not be stopped", "STOP") == "Do not be stopped\nSTOP"


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ],
)
def test_requests_to_aws_are_signed_as_its_test_suite_says(method: str, signature: str) -> None:
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    url = "https://example.amazonaws.com/"
    signed = signed_headers(credentials, method, url, {}, b"", region="us-east-1", service="service", at=AT)
    assert signed["authorization"].endswith(f"SignedHeaders=host;x-amz-date, Signature={signature}")


def test_each_minute_has_its_share_of_those_who_asked() -> None:
    turns = [turn(AT, number, 2) for number in range(1, 7)]
    assert turns == [None, None, *[AT + timedelta(minutes=1)] * 2, *[AT + timedelta(minutes=2)] * 2]


def test_reasons_name_nobody() -> None:
    said = without_addresses("550 5.1.1 <ann@example.com>: unknown, ask +4915112345678 or 'bob@acme.test'")
    assert said == "550 5.1.1 <(address)>: unknown, ask (number) or '(address)'"
