"""How webhooks are signed and tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from shared.webhooks import (
    PAUSES,
    TRIES,
    key_of,
    pause_after,
    secret_of,
    signed_headers,
    verdict_on_answer,
    verdict_on_silence,
)


def test_every_live_secret_signs_as_the_specifications_own_library_does() -> None:
    at, body = datetime(2026, 11, 25, 12, tzinfo=UTC), b'{"type":"a"}'
    secrets = [secret_of(bytes(range(32))), secret_of(b"x" * 24)]
    headers = signed_headers("msg_1", body, secrets, at)
    expected = [Webhook(secret).sign("msg_1", at, body.decode()) for secret in secrets]
    assert headers["webhook-signature"].split(" ") == expected


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", "c2hvcnQ=", secret_of(b"x" * 65)])
def test_a_text_that_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        key_of(text)


def test_ten_tries_take_about_a_day_and_no_two_deliveries_keep_the_same_step() -> None:
    assert TRIES == 10
    sums = {sum((pause_after(n, f"d{index}") for n in range(1, TRIES)), timedelta()) for index in range(200)}
    assert len(sums) == 200
    assert all(timedelta(hours=21) < each < timedelta(hours=27) for each in sums)
    assert timedelta(hours=23) < sum(PAUSES, timedelta()) <= timedelta(hours=24)


@pytest.mark.parametrize(
    ("status", "retry_after", "attempt", "state", "at_least"),
    [
        (200, None, 1, "delivered", 0),
        (204, 99, 10, "delivered", 0),
        (301, None, 1, "waiting", 9),
        (500, None, 1, "waiting", 9),
        (500, 7_200, 1, "waiting", 9),
        (429, 7_200, 1, "waiting", 7_200),
        (503, 7_200, 1, "waiting", 7_200),
        (429, 1, 1, "waiting", 9),
        (500, None, 10, "failed", 0),
        (429, None, 10, "failed", 0),
        (429, 60, 10, "waiting", 60),
        (503, 60, 30, "waiting", 60),
        (400, None, 1, "failed", 0),
        (404, 60, 1, "failed", 0),
        (408, None, 1, "waiting", 9),
        (425, None, 1, "waiting", 9),
        (408, None, 10, "failed", 0),
        (410, None, 1, "failed", 0),
    ],
)
def test_what_an_answer_means(status: int, retry_after: int | None, attempt: int, state: str, at_least: int) -> None:
    verdict = verdict_on_answer(status, retry_after, attempt, "d")
    assert (verdict.state, verdict.gone) == (state, status == 410)
    assert verdict.pause >= timedelta(seconds=at_least)
    assert (verdict.pause < timedelta(seconds=12)) == (at_least < 60)


def test_silence_is_tried_again_until_the_last() -> None:
    assert [verdict_on_silence("no answer", n, "d").state for n in (1, 9, 10)] == ["waiting", "waiting", "failed"]
