"""A request as it is kept: readable as it was, without what opens the door."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.capture.adapters.request import Headers, HookRequest, strip_secrets

SECRET = "s3cret/with+signs"
REQUEST = HookRequest("POST", "https://x.example/h", Headers(), b"", datetime(2026, 3, 4, tzinfo=UTC))


def test_header_names_have_no_case_and_may_come_twice() -> None:
    headers = Headers.of([("X-A", "1"), ("x-a", "2"), ("B", "3")])
    assert headers.all("X-a") == ["1", "2"]
    assert headers.get("x-a") is None
    assert headers.get("b") == "3"
    assert headers.get("c") is None


def test_of_a_parameter_that_comes_twice_the_first_counts() -> None:
    assert replace(REQUEST, url="https://x.example/h?a=1&a=2&b=").query == {"a": "1", "b": ""}


@pytest.mark.parametrize(
    "query", ["token=anything&form=a%20b", "form=a%20b&TOKEN=x", "form=a+b&x=s3cret%2Fwith%2Bsigns"]
)
def test_tokens_in_the_address_are_blanked_and_the_rest_stays(query: str) -> None:
    stripped = strip_secrets(replace(REQUEST, url=f"https://x.example/h?{query}"), [SECRET])
    assert stripped.query["form"] == "a b"
    assert "[blanked]" in stripped.query.values()
    assert "s3cret" not in stripped.url
    assert "anything" not in stripped.url


def test_an_address_without_a_token_is_kept_to_the_letter() -> None:
    url = "https://x.example/h?form=a%20b&&x"
    assert strip_secrets(replace(REQUEST, url=url), [SECRET]).url == url


def test_credentials_in_headers_are_blanked() -> None:
    headers = Headers.of({"Authorization": "Bearer x", "Cookie": "a=b", "X-Key": SECRET, "X-Other": "kept"})
    stripped = strip_secrets(replace(REQUEST, headers=headers), [SECRET])
    assert dict(stripped.headers.pairs) == {
        "authorization": "[blanked]",
        "cookie": "[blanked]",
        "x-key": "[blanked]",
        "x-other": "kept",
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"webhookURL": "https://x.example/h?token=s3cret/with+signs"}',
        b'{"webhookURL": "https:\\/\\/x.example\\/h?token=s3cret\\/with+signs"}',
        b"webhookURL=https%3A%2F%2Fx.example%2Fh%3Ftoken%3Ds3cret%2Fwith%2Bsigns",
        b"--b\r\n\r\ns3cret/with+signs\r\n--b--",
        b'{"key": "\\u0073\\u0033cret\\u002fwith\\u002Bsigns", "s3": 1}',
        b'\xef\xbb\xbf{"key": "\\u0073\\u0033cret\\u002fwith\\u002Bsigns"}',
        b"key=%73%33cret%2fwith%2bsigns",
        b"rawRequest=%7B%22webhookURL%22%3A%22https%3A%5C%2F%5C%2Fx%3Ftoken%3Ds3cret%5C%2Fwith%2Bsigns%22%7D",
    ],
)
def test_a_secret_that_the_body_echoes_is_blanked_in_any_spelling(body: bytes) -> None:
    headers = Headers.of({"Content-Type": "application/x-www-form-urlencoded"})
    stripped = strip_secrets(replace(REQUEST, raw_body=body, headers=headers), [SECRET])
    assert b"cret" not in stripped.raw_body
    assert b"blanked" in stripped.raw_body


def test_everything_around_a_blanked_secret_stays_to_the_letter() -> None:
    body = b'{"a": "\\u00e9\\/", "key": "s3cret\\/with+signs", "n": 1.50, "bad": "\xff\\x"}'
    stripped = strip_secrets(replace(REQUEST, raw_body=body), [SECRET])
    assert stripped.raw_body == body.replace(b"s3cret\\/with+signs", b"[blanked]")


def test_half_characters_around_a_secret_break_nothing() -> None:
    form = Headers.of({"Content-Type": "application/x-www-form-urlencoded"})
    stripped = strip_secrets(replace(REQUEST, raw_body=b"a=\xff%ff%73%33cret%2fwith%2bsigns", headers=form), [SECRET])
    assert b"cret" not in stripped.raw_body


def test_a_short_secret_does_not_eat_the_body() -> None:
    assert strip_secrets(replace(REQUEST, raw_body=b'{"a": 1}'), ["a", ""]).raw_body == b'{"a": 1}'
