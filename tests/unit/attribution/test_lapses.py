"""Times are counted in buckets: limits are exact, percentiles right to their bucket, sums exact."""

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.attribution.pipeline.lapses import (
    DAY_S,
    ENDS_S,
    NAMED_S,
    SECOND,
    Lapses,
    bounds_of,
    bucket_of,
    lapse_between,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECONDS = st.integers(0, 400_000_000)


def lapses(seconds: list[int]) -> Lapses:
    made = Lapses()
    for each in seconds:
        made.add([(bucket_of(each), 1)], each * SECOND)
    return made


@given(st.integers(0, ENDS_S[-1]))
def test_a_time_lies_between_the_ends_of_its_bucket(seconds: int) -> None:
    low, high = bounds_of(bucket_of(seconds))
    assert low < seconds <= high or seconds == high == 0


def test_a_bucket_is_at_most_three_tenths_as_wide_as_its_end() -> None:
    ends = [end for end in ENDS_S if end > 30]
    assert all(high - low <= 0.3 * high for low, high in itertools.pairwise(ends))
    assert ENDS_S[-1] > 11 * 365 * DAY_S


@given(st.lists(SECONDS, max_size=60), st.sampled_from(NAMED_S))
def test_within_a_named_time_is_exact(seconds: list[int], limit: int) -> None:
    assert lapses(seconds).within(limit).total == sum(each <= limit for each in seconds)


@given(st.lists(SECONDS, min_size=1, max_size=60), st.sampled_from([50, 90, 100]))
def test_a_percentile_lies_in_the_bucket_of_the_one_of_nearest_rank(seconds: list[int], percent: int) -> None:
    rank = -(-len(seconds) * percent // 100)
    low, high = bounds_of(bucket_of(sorted(seconds)[rank - 1]))
    told = lapses(seconds).percentile(percent)
    assert told is not None
    assert low <= told <= high


@given(st.lists(SECONDS, min_size=1, max_size=60))
def test_the_mean_is_exact(seconds: list[int]) -> None:
    assert lapses(seconds).mean == round(sum(seconds) / len(seconds), 3)


@given(st.lists(SECONDS, max_size=30), st.lists(SECONDS, max_size=30))
def test_what_is_taken_away_again_was_never_there(kept: list[int], gone: list[int]) -> None:
    made = lapses(kept + gone)
    for each in gone:
        made.add([(bucket_of(each), -1)], -each * SECOND)
    there = lapses(kept)
    assert (made.percentile(50), made.mean, made.total) == (there.percentile(50), there.mean, there.total)


def test_nothing_has_neither_mean_nor_median() -> None:
    assert (Lapses().mean, Lapses().percentile(50), Lapses().total) == (None, None, 0)


def test_a_limit_is_exact_to_the_microsecond() -> None:
    limit, over = (lapse_between(NOON, NOON + timedelta(seconds=300, microseconds=more)) for more in (0, 1))
    assert bucket_of(limit / SECOND) + 1 == bucket_of(over / SECOND)


def test_a_lapse_is_exact_and_never_negative() -> None:
    assert lapse_between(NOON, NOON + timedelta(seconds=300, microseconds=1)) == 300 * SECOND + 1
    assert lapse_between(NOON, NOON - timedelta(days=1)) == 0
