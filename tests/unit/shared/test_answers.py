"""What the answers of others say about when to come again."""

import pytest

from shared.outbound import Answer

NOW = "Fri, 27 Nov 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("120", NOW, 120),
        ("Fri, 27 Nov 2026 12:02:00 GMT", NOW, 120),
        ("Friday, 27-Nov-26 12:02:00 GMT", NOW, 120),
        ("Fri, 27 Nov 2026 11:00:00 GMT", NOW, 0),
        ("Fri, 27 Nov 2037 12:00:00 GMT", NOW, 86_400),
        ("Fri, 27 Nov 2026 12:02:00 GMT", "", None),
        ("Fri, 27 Nov 2026 12:02:00", NOW, None),
        ("tomorrow", NOW, None),
        ("-1", NOW, None),
        ("١٢", NOW, None),
        ("", NOW, None),
    ],
)
def test_retry_after_is_seconds_or_a_time_of_the_same_clock(retry_after: str, date: str, seconds: int | None) -> None:
    assert Answer(429, {"retry-after": retry_after, "date": date}, b"").retry_after_s == seconds
