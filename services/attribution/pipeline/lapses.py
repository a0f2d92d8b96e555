"""Times between two moments, counted in buckets that can be added and subtracted: pure.

A bucket is at most a fifth as wide as the times in it are long. Its upper end belongs to it, and the named times (five
minutes, an hour, whole days) are such ends: so "within an hour" is exact, and a percentile is right to its bucket.
"""

from bisect import bisect_left
from collections import Counter
from datetime import datetime, timedelta

DAY_S = 86_400
WITHIN_DAYS = (*range(1, 32), 45, 60, 90, 120, 180, 270, 365, 730)
"""The days within which something can be asked to have happened."""
NAMED_S = (60, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, *(days * DAY_S for days in WITHIN_DAYS))
ENDS_S = tuple(sorted({0, *NAMED_S, *(round(2 ** (step / 4)) for step in range(115))}))
"""The upper ends of the buckets in seconds: four to an octave up to twelve years, and the named times."""
UNTIMED = -1
"""The bucket of what took no time that could be told."""


def lapse_between(earlier: datetime, later: datetime) -> int:
    """Whole seconds from one moment to another, rounded up, so that limits in seconds are exact; never negative."""
    return max(0, -((earlier - later) // timedelta(seconds=1)))


def bucket_of(seconds: int) -> int:
    """The bucket that a time is counted in."""
    return bisect_left(ENDS_S, seconds)


class Lapses:
    """How long something took, many times: numbers by bucket, and the sum of the seconds where it is known."""

    def __init__(self) -> None:
        self.numbers: Counter[int] = Counter()
        self.seconds: int | None = 0

    def add(self, bucket: int, number: int, seconds: int) -> None:
        """So many more in a bucket."""
        self.numbers[bucket] += number
        self.seconds = (self.seconds or 0) + seconds

    @property
    def total(self) -> int:
        """How many there are, those without a time included."""
        return sum(self.numbers.values())

    @property
    def mean(self) -> float | None:
        """The mean in seconds, exact; None where there is none to tell."""
        timed = self.total - self.numbers[UNTIMED]
        return round(self.seconds / timed, 3) if timed and self.seconds is not None else None

    def within(self, seconds: int) -> "Lapses":
        """Those that took at most this long, one of the ends of the buckets; what has no time took none.

        Their mean is not known: the seconds are summed of all together.
        """
        last = bucket_of(seconds)
        kept = Lapses()
        kept.numbers.update({bucket: number for bucket, number in self.numbers.items() if bucket <= last})
        kept.seconds = None
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
