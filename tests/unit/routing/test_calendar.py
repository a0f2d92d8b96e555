"""Working time is right in every zone, also on the days when clocks change."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.routing.availability.domain import stretches
from services.routing.reps.calendar import Calendar
from services.routing.reps.local_time import local_midnight
from services.routing.reps.spans import Span

BERLIN = ZoneInfo("Europe/Berlin")
NINE_TO_FIVE = ((540, 1020),)
OFFICE = Calendar(BERLIN, (NINE_TO_FIVE,) * 5 + ((), ()))
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


@pytest.mark.parametrize(
    ("at", "opens"),
    [
        ("2026-11-25T08:59", "2026-11-25T09:00"),
        ("2026-11-25T09:00", "2026-11-25T09:00"),
        ("2026-11-25T16:59", "2026-11-25T16:59"),
        ("2026-11-25T17:00", "2026-11-26T09:00"),
        ("2026-11-27T18:00", "2026-11-30T09:00"),
    ],
)
def test_the_next_working_moment_skips_evenings_and_weekends(at: str, opens: str) -> None:
    assert OFFICE.next_working(berlin(at)) == berlin(opens)


def test_nine_o_clock_stays_nine_o_clock_when_the_clocks_change() -> None:
    assert OFFICE.next_working(utc("2026-03-27T20:00")) == utc("2026-03-30T07:00")  # summer time from the 29th on
    assert OFFICE.next_working(utc("2026-10-23T20:00")) == utc("2026-10-26T08:00")  # winter time from the 25th on


def test_working_minutes_are_real_minutes_on_a_night_that_is_an_hour_short() -> None:
    nights = Calendar(BERLIN, (((0, 1440),),) * 7)
    assert nights.after_working(berlin("2026-03-29T00:00"), 23 * 60) == berlin("2026-03-30T00:00")
    assert nights.after_working(berlin("2026-10-25T00:00"), 25 * 60) == berlin("2026-10-26T00:00")


def test_hours_inside_the_hour_that_is_left_out_begin_where_the_clock_jumps() -> None:
    early = Calendar(BERLIN, (((150, 600),),) * 7)  # from 02:30, which 29 March does not have
    assert early.next_working(berlin("2026-03-29T00:00")) == utc("2026-03-29T01:00")
    gone = Calendar(BERLIN, (((130, 150),),) * 7)
    assert gone.next_working(berlin("2026-03-29T00:00")) == berlin("2026-03-30T02:10")


def test_hours_that_end_inside_the_repeated_hour_end_at_its_last_time() -> None:
    late = Calendar(BERLIN, (((0, 150),),) * 7)
    assert late.works_at(utc("2026-10-25T01:29"))  # 02:29 for the second time
    assert not late.works_at(utc("2026-10-25T01:30"))


def test_working_minutes_go_on_the_next_morning_and_after_leave() -> None:
    assert OFFICE.after_working(berlin("2026-11-25T16:45"), 30) == berlin("2026-11-26T09:15")
    leave = Calendar(BERLIN, OFFICE.hours, (Span(berlin("2026-11-26T00:00"), berlin("2026-11-28T00:00")),))
    assert leave.after_working(berlin("2026-11-25T16:45"), 30) == berlin("2026-11-30T09:15")


def test_without_hours_all_time_is_working_time_but_leave() -> None:
    off = Span(utc("2026-12-24T00:00"), utc("2026-12-27T00:00"))
    always = Calendar(BERLIN, None, (off,))
    assert always.works_at(utc("2026-12-23T23:59"))
    assert always.next_working(utc("2026-12-24T00:00")) == off.end
    assert always.after_working(utc("2026-12-23T23:00"), 90) == utc("2026-12-27T00:30")


def test_overlapping_leave_ends_with_the_last_of_it() -> None:
    spans = (
        Span(utc("2026-12-25T00:00"), utc("2027-01-02T00:00")),
        Span(utc("2026-12-24T00:00"), utc("2026-12-26T00:00")),
    )
    assert Calendar(BERLIN, None, spans).back_from_leave(utc("2026-12-24T12:00")) == utc("2027-01-02T00:00")


def test_leave_longer_than_the_horizon_has_no_next_working_moment() -> None:
    gone = Calendar(BERLIN, None, (Span(utc("2026-01-01T00:00"), utc("2099-01-01T00:00")),))
    assert gone.next_working(utc("2026-11-25T00:00")) is None
    assert gone.after_working(utc("2026-11-25T00:00"), 1) is None


def test_a_local_day_begins_at_its_own_midnight() -> None:
    assert local_midnight(date(2026, 7, 1), ZoneInfo("America/New_York")) == utc("2026-07-01T04:00")
    assert local_midnight(date(2026, 9, 6), ZoneInfo("America/Santiago")) == utc(
        "2026-09-06T04:00"
    )  # 00:00 is left out


def test_what_is_in_the_way_is_told_by_its_own_hours_also_where_it_reaches_out_of_working_time() -> None:
    """An hour around noon, where lunch is from twelve to half past."""
    hours = (((540, 720), (750, 1020)),) * 7
    rep = Calendar(BERLIN, hours, busy=(Span(berlin("2026-11-25T11:30"), berlin("2026-11-25T13:00")),))
    shown = stretches(rep, berlin("2026-11-25T11:00"), berlin("2026-11-25T14:00"))
    assert [(each.start, each.why_not) for each in shown] == [
        (berlin("2026-11-25T11:00"), None),
        (berlin("2026-11-25T11:30"), "busy by their calendar"),
        (berlin("2026-11-25T12:00"), "outside working hours"),
        (berlin("2026-11-25T12:30"), "busy by their calendar"),
        (berlin("2026-11-25T13:00"), None),
    ]
