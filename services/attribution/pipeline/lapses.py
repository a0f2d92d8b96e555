"""Times between two moments, counted in buckets that can be added and subtracted: pure.

From half a minute on, a bucket is at most three tenths as wide as its upper end, which belongs to it. The named times
(five minutes, an hour, a week) are such ends: so "within an hour" is exact, and a percentile is right to its bucket.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from fractions import Fraction

SECOND = 1_000_000
"""In microseconds, as which times are kept."""
DAY_S = 86_400
WITHIN_DAYS = (1, 2, 3, 7, 14, 30, 60, 90, 180, 365)
"""The days within which something can be asked to have happened."""
NAMED_S = (60, 300, 900, 3_600, 14_400, 43_200, *(days * DAY_S for days in WITHIN_DAYS))
ENDS_S = tuple(sorted({0, *NAMED_S, *(round(2 ** (step / 2)) for step in range(58))}))
"""The upper ends of the buckets in seconds: two to an octave up to twelve years, and the named times."""
UNTIMED = -1
"""The bucket of what took no time that could be told."""


def lapse_between(earlier: datetime, later: datetime) -> int:
    """Microseconds from one moment to another, never negative."""
    return max(0, (later - earlier) // timedelta(microseconds=1))


def bucket_of(seconds: float) -> int:
    """The bucket that a time is counted in."""
    return bisect_left(ENDS_S, seconds)


class Lapses:
    """How long something took, many times: numbers by bucket, and the sum of the microseconds where it is known."""

    def __init__(self) -> None:
        self.numbers: Counter[int] = Counter()
        self.microseconds: int | None = 0

    def add(self, times: Iterable[tuple[int, int]], microseconds: int) -> None:
        """So many more in each of some buckets, and what they took together."""
        for bucket, number in times:
            self.numbers[bucket] += number
        self.microseconds = (self.microseconds or 0) + microseconds

    @property
    def total(self) -> int:
        """How many there are, those without a time included."""
        return sum(self.numbers.values())

    @property
    def mean(self) -> float | None:
        """The mean in seconds, exact to three places; None where there is none to tell."""
        timed = self.total - self.numbers[UNTIMED]
        if not timed or self.microseconds is None:
            return None
        return float(round(Fraction(self.microseconds, timed * SECOND), 3))

    def within(self, seconds: int) -> "Lapses":
        """Those that took at most this long, one of the ends of the buckets; what has no time took none.

        Their mean is not known: times are summed of all together.
        """
        last = bucket_of(seconds)
        kept = Lapses()
        kept.numbers.update({bucket: number for bucket, number in self.numbers.items() if bucket <= last})
        kept.microseconds = None
        return kept

    def percentile(self, percent: int) -> float | None:
        """The seconds that so many percent of them did not exceed.

        That of nearest rank lies in the same bucket; where in it, is told as if those in it were spread evenly.
        """
        timed = {bucket: number for bucket, number in self.numbers.items() if bucket != UNTIMED and number}
        rank = max(1, -(-sum(timed.values()) * percent // 100))
        for bucket, number in sorted(timed.items()):
            if rank <= number:
                low, high = bounds_of(bucket)
                return round(low + (high - low) * rank / number, 3)
            rank -= number
        return None


def bounds_of(bucket: int) -> tuple[int, int]:
    """The ends of a bucket in seconds, the upper one belonging to it; the last one has only a lower one."""
    low = ENDS_S[bucket - 1] if bucket else 0
    return low, ENDS_S[bucket] if bucket < len(ENDS_S) else low
