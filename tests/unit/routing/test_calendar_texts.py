"""Of a calendar only times are kept, and they come to what somebody who reads it would say."""

from datetime import UTC, date, datetime

import pytest

from services.routing.calendars.domain import MOST_EVENTS, NotACalendar, content_of, wait_after
from services.routing.calendars.reading import busy_times
from services.routing.reps.schedules import Stored, calendar_of

TODAY = date(2026, 11, 25)
ANN = "ann@sales.example.com"
BERLIN = """BEGIN:VTIMEZONE
TZID:Somewhere
BEGIN:STANDARD
DTSTART:19701025T030000
RRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:19700329T020000
RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
END:DAYLIGHT
END:VTIMEZONE
"""


def calendar(*events: str, zones: str = BERLIN) -> bytes:
    numbered = (f"BEGIN:VEVENT\nUID:{number}\n{event}\nEND:VEVENT\n" for number, event in enumerate(events))
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n{zones}{''.join(numbered)}END:VCALENDAR\n"
    return text.replace("\n", "\r\n").encode()


def busy(*events: str, since: date = TODAY, until: date = date(2027, 12, 31)) -> dict[str, list[tuple[str, str]]]:
    content = content_of(calendar(*events), ANN, TODAY)
    return busy_times(content.text.encode(), since, until)


def test_titles_places_and_guests_are_not_kept_and_folded_lines_are_understood() -> None:
    told = (
        "SUMMARY:Doctor\nDESCRIPTION:a long text that\n  goes on\nLOCATION:Clinic\nORGANIZER:mailto:boss@example.com\n"
        "ATTENDEE;PARTSTAT=ACCEPTED:mailto:ann@sales.example.com\nDTSTAMP:20261101T000000Z\n"
        "DTSTART;TZID=\n Somewhere:20261126T090000\nDTEND;TZID=Somewhere:20261126T100000\n"
        "BEGIN:VALARM\nACTION:DISPLAY\nTRIGGER:-PT5M\nDESCRIPTION:Doctor\nEND:VALARM"
    )
    content = content_of(calendar(told), ANN, TODAY)
    assert not [word for word in ("Doctor", "goes on", "Clinic", "boss", "ann@", "VALARM") if word in content.text]
    assert content.events == 1
    assert content.digest == content_of(calendar(told.replace("20261101", "20261102")), ANN, TODAY).digest
    assert busy(told) == {"away": [], "busy": [("2026-11-26T08:00:00+00:00", "2026-11-26T09:00:00+00:00")]}


def test_what_is_free_cancelled_or_declined_takes_no_time() -> None:
    at = "DTSTART:20261126T090000Z\nDTEND:20261126T100000Z\n"
    assert busy(
        f"{at}TRANSP:TRANSPARENT",
        f"{at}STATUS:CANCELLED",
        f"{at}X-MICROSOFT-CDO-BUSYSTATUS:FREE",
        f"{at}ATTENDEE;CN=Ann;PARTSTAT=DECLINED:mailto:Ann@Sales.example.com",
        "DTSTART:20261126T090000Z\nDTEND:20261126T090000Z",
        "DTEND:20261126T100000Z",
    ) == {"away": [], "busy": []}
    assert len(busy(f"{at}ATTENDEE;PARTSTAT=DECLINED:mailto:bob@sales.example.com")["busy"]) == 1


def test_whole_days_and_out_of_office_are_leave_and_local_to_the_rep() -> None:
    found = busy(
        "DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227",
        "DTSTART;VALUE=DATE:20261231",
        "DTSTART:20261201T080000Z\nDTEND:20261202T080000Z",
        "DTSTART:20261203T080000Z\nDURATION:PT2H\nX-MICROSOFT-CDO-BUSYSTATUS:OOF",
        "DTSTART:20261204T080000\nDTEND:20261204T090000",
    )
    assert found["away"] == [
        ("2026-12-01T08:00:00+00:00", "2026-12-02T08:00:00+00:00"),
        ("2026-12-03T08:00:00+00:00", "2026-12-03T10:00:00+00:00"),
        ("2026-12-24", "2026-12-27"),
        ("2026-12-31", "2027-01-01"),
    ]
    assert found["busy"] == [("2026-12-04T08:00:00", "2026-12-04T09:00:00")]
    tokyo = calendar_of(Stored("Asia/Tokyo", None, "[]", None, None, "x"), (), found)
    assert tokyo.on_leave(datetime(2026, 12, 23, 15, tzinfo=UTC))
    assert not tokyo.on_leave(datetime(2026, 12, 26, 15, tzinfo=UTC))
    assert tokyo.why_not(datetime(2026, 12, 3, 23, 30, tzinfo=UTC)) == "busy by their calendar"


def test_repeating_events_keep_their_local_hour_with_exceptions_and_moved_ones() -> None:
    series = (
        "DTSTART;TZID=Somewhere:20261019T090000\nDTEND;TZID=Somewhere:20261019T100000\n"
        "RRULE:FREQ=WEEKLY;COUNT=4\nEXDATE;TZID=Somewhere:20261102T090000"
    )
    content = calendar(series).replace(
        b"END:VCALENDAR",
        b"BEGIN:VEVENT\r\nUID:0\r\nRECURRENCE-ID;TZID=Somewhere:20261109T090000\r\n"
        b"DTSTART;TZID=Somewhere:20261110T140000\r\nDTEND;TZID=Somewhere:20261110T150000\r\nEND:VEVENT\r\nEND:VCALENDAR",
    )
    found = busy_times(content_of(content, ANN, TODAY).text.encode(), date(2026, 10, 1), date(2027, 1, 1))
    assert [start for start, _ in found["busy"]] == [
        "2026-10-19T07:00:00+00:00",
        "2026-10-26T08:00:00+00:00",  # summer time is over
        "2026-11-10T13:00:00+00:00",
    ]


def test_events_that_are_long_over_are_left_out_unless_they_repeat() -> None:
    old = "DTSTART:20200101T090000Z\nDTEND:20200101T100000Z"
    content = content_of(calendar(old, f"{old}\nRRULE:FREQ=DAILY"), ANN, TODAY)
    assert content.events == 1
    assert len(busy_times(content.text.encode(), TODAY, date(2026, 12, 1))["busy"]) == 6


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "no calendar"),
        (b"<html>log in</html>", "no calendar"),
        (calendar()[:-6], "not whole"),
        (calendar("BEGIN:VALARM"), "not well formed"),
        (b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nEND:VCALENDAR", "not whole"),
        (b"BEGIN:VCALENDAR\r\n" + b"x" * 5_000_001, "more than 5000000 bytes"),
        (calendar(*["DTSTART:20270101T090000Z"] * (MOST_EVENTS + 1)), f"more than {MOST_EVENTS} events"),
    ],
)
def test_what_is_no_calendar_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(NotACalendar, match=why):
        content_of(raw, ANN, TODAY)


def test_a_feed_that_fails_is_asked_rarer_and_never_sooner_than_it_wants() -> None:
    minutes = [wait_after(failures).total_seconds() / 60 for failures in (0, 1, 2, 3, 20, 10_000)]
    assert minutes == [5, 10, 20, 40, 360, 360]
    assert wait_after(1, 3_600).total_seconds() == 3_600


@pytest.mark.parametrize("written", ["TZID=Europe/Vienna:{}", "{}Z"])
def test_midnight_to_midnight_is_a_whole_day_also_when_clocks_take_an_hour_from_it(written: str) -> None:
    days = {
        "TZID=Europe/Vienna:{}": ("20270328T000000", "20270329T000000"),
        "{}Z": ("20270327T230000", "20270328T220000"),
    }
    start, end = (written.format(moment) for moment in days[written])
    mark = ";" if written.startswith("TZID") else ":"
    spans = busy(f"DTSTART{mark}{start}\nDTEND{mark}{end}", "DTSTART:20270329T080000Z\nDTEND:20270329T090000Z")
    rep = calendar_of(Stored("Europe/Vienna", None, "[]", None, None, None), busy=spans)
    assert [(span.start.isoformat(), span.end.isoformat()) for span in rep.off] == [
        ("2027-03-27T23:00:00+00:00", "2027-03-28T22:00:00+00:00")
    ]
    assert len(rep.busy) == 1
