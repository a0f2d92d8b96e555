"""How long a broadcast still takes: as long as it will, or nothing is said."""

from datetime import timedelta

import pytest

from services.nurture.broadcasts.domain import seconds_left

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("remaining", "per_minute", "interval", "waits", "seconds"),
    [
        (0, 0.0, None, False, 0),
        (0, 0.0, SECOND, True, 0),
        (90, 60.0, None, False, 90),
        (90, 30.0, SECOND, False, 180),
        (2, 60.0, 600 * SECOND, False, 1_200),  # one has just left, and the next has its turn in ten minutes
        (2, 0.0, 600 * SECOND, False, 1_200),
        (27, 0.0, SECOND, False, None),  # a minute had sixty turns, and nobody took one
        (27, 0.0, None, False, None),
        (2, 0.0, 600 * SECOND, True, None),
        (27, 12.0, SECOND, True, None),
    ],
)
def test_it_is_said_how_long_the_rest_takes_or_nothing(
    remaining: int, per_minute: float, interval: timedelta | None, waits: bool, seconds: int | None
) -> None:
    assert seconds_left(remaining, per_minute, interval, waits=waits) == seconds
