"""When, how much and to whom: hours across changes of the clock, zones, pressure, the guard, files of entries."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.nurture.people.domain import Addresses
from services.nurture.permission.document import Guard, Pressure, checked, shipped
from services.nurture.permission.domain import Had, Standing, excess, room, too_many, why_pause
from services.nurture.permission.hours import WEEKDAYS, Window, closes_after, is_open, next_open
from services.nurture.permission.zones import main_zone, whereabouts
from services.nurture.preferences.tokens import PreferenceLinks
from services.nurture.suppressions.domain import Defaults, NotAnEntry, entry_of, rows_of
from shared.ids import LeadId

NOW = datetime(2026, 3, 11, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
NEW_YORK = ZoneInfo("America/New_York")
ADDRESSES = Addresses(b"k" * 32)
DEFAULTS = Defaults("manual", None, NOW, "import")


def daily(begins: str, ends: str) -> dict[str, list[Window]]:
    return {day: [Window(_minutes(begins), _minutes(ends))] for day in WEEKDAYS}


def _minutes(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def at(text: str, zone: ZoneInfo = NEW_YORK, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def test_a_window_that_begins_in_the_hour_that_is_left_out_begins_when_the_clock_has_jumped() -> None:
    assert next_open(daily("02:30", "05:00"), NEW_YORK, at("2026-03-08T01:00")) == at("2026-03-08T03:00")


def test_a_window_within_the_hour_that_is_left_out_is_the_next_days() -> None:
    assert next_open(daily("02:10", "02:50"), NEW_YORK, at("2026-03-08T01:00")) == at("2026-03-09T02:10")


def test_a_window_in_the_hour_that_occurs_twice_is_open_twice_and_closed_between() -> None:
    week = daily("01:30", "02:00")
    assert next_open(week, NEW_YORK, at("2026-11-01T00:30")) == at("2026-11-01T01:30")
    between = at("2026-11-01T01:10", fold=1)
    assert not is_open(week, NEW_YORK, between)
    assert next_open(week, NEW_YORK, between) == at("2026-11-01T01:30", fold=1)


def test_a_window_that_the_clock_is_set_back_into_is_open_again_in_its_middle() -> None:
    week = daily("00:45", "01:15")
    assert next_open(week, NEW_YORK, at("2026-11-01T01:20")) == at("2026-11-01T01:00", fold=1)
    assert closes_after(week, NEW_YORK, at("2026-11-01T01:00", fold=1)) == timedelta(minutes=15)


def test_a_window_out_of_which_the_clock_is_set_back_ends_there() -> None:
    assert closes_after(daily("01:30", "04:00"), NEW_YORK, at("2026-11-01T01:30")) == timedelta(minutes=30)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 5), ("2026-03-09", 6), ("2026-11-01", 7)])
def test_a_window_over_a_change_of_the_clock_is_as_long_as_it_really_is(day: str, hours: int) -> None:
    assert closes_after(daily("00:00", "06:00"), NEW_YORK, at(f"{day}T00:00")) == timedelta(hours=hours)


def test_friday_night_waits_for_monday_morning_there() -> None:
    week = checked(shipped()).weeks["email"]
    assert next_open(week, NEW_YORK, at("2026-03-06T20:00")) == at("2026-03-09T08:00")
    assert is_open(week, NEW_YORK, at("2026-03-06T19:59"))


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)),
    st.sampled_from(["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]),
    st.integers(0, 1_438),
    st.integers(1, 1_440),
)
def test_what_is_found_is_open_and_nothing_before_is(when: datetime, name: str, begins: int, length: int) -> None:
    zone, now = ZoneInfo(name), when.replace(tzinfo=UTC)
    week = {"tue": [Window(begins, min(begins + length, 1_440))]}
    found = next_open(week, zone, now)
    if found is None:
        return
    assert found >= now and is_open(week, zone, found)
    for step in range(1, 60):
        before = found - timedelta(minutes=step * 7, seconds=1)
        assert before < now or not is_open(week, zone, before)


@pytest.mark.parametrize(
    ("fields", "zone", "known_by"),
    [
        ({"attributes": {"time_zone": "Asia/Tokyo"}, "phone": "+4915112345678"}, "Asia/Tokyo", "the profile"),
        ({"attributes": {"time_zone": "Europe"}, "phone": "+4915112345678"}, "Europe/Berlin", "the phone number"),
        ({"phone": "+18005550140", "country": "US"}, "America/New_York", "the country"),
        ({"country": "AU"}, "Australia/Sydney", "the country"),
        ({"country": "../../etc"}, "UTC", "the default"),
        ({"attributes": {"time_zone": 7}, "phone": "none", "country": None}, "UTC", "the default"),
    ],
)
def test_a_zone_is_told_or_follows_from_the_number_or_the_country(
    fields: dict[str, Any], zone: str, known_by: str
) -> None:
    place = whereabouts(fields, "UTC")
    assert (place.zone.key, place.known_by) == (zone, known_by)


def test_every_country_has_a_zone() -> None:
    import pycountry

    without = {country.alpha_2 for country in pycountry.countries if main_zone(country.alpha_2) is None}
    assert without <= {"BV", "HM"}  # nobody lives there


def had(*hours_ago: float, channel: str = "email") -> list[Had]:
    return [Had(NOW - timedelta(hours=hours), channel, "Welcome", "hello") for hours in hours_ago]  # type: ignore[arg-type]


def test_what_is_over_a_limit_waits_until_the_limit_has_room_and_says_which_messages_fill_it() -> None:
    pressure = Pressure.model_validate(
        {
            "limits": [
                {"messages": 1, "days": 1},
                {"messages": 3, "days": 7},
                {"messages": 1, "days": 2, "channel": "sms"},
            ]
        }
    )
    over = excess(pressure, had(5, 30, 40), "email", NOW)
    assert over is not None and over.until == NOW - timedelta(hours=40) + 7 * DAY
    assert "at most 3 in 7 days" in over.why and over.why.count("Welcome/hello (email, ") == 3
    one = excess(pressure, had(5), "email", NOW)
    assert one is not None and one.until == NOW + timedelta(hours=19)
    assert excess(pressure, had(24), "email", NOW) is None
    sms = excess(pressure, had(30, channel="sms"), "sms", NOW)
    assert sms is not None and sms.until == NOW + timedelta(hours=18)
    assert excess(pressure, had(30, channel="sms"), "email", NOW) is None
    assert room(pressure, had(30), "email", NOW) == 1
    gap = excess(Pressure(gap_minutes=90), had(1), "sms", NOW)
    assert gap is not None and gap.until == NOW + timedelta(minutes=30)


def test_soft_bounces_count_within_a_span_in_whatever_order_they_come() -> None:
    times = [NOW, NOW - 9 * DAY, NOW - 3 * DAY]
    assert not too_many(times, 3, 7 * DAY)
    assert too_many([*times, NOW - 7 * DAY], 3, 7 * DAY)


@pytest.mark.parametrize(
    ("taken", "bounced", "complained", "paused"),
    [
        (1_000, 0, 3, True),
        (1_001, 0, 3, False),
        (99, 0, 50, False),
        (95, 5, 0, True),
        (96, 4, 0, False),
        (0, 100, 0, True),
    ],
)
def test_the_guard_pauses_at_its_limits(taken: int, bounced: int, complained: int, paused: bool) -> None:
    assert (why_pause(Guard(), Standing(taken, bounced, complained)) is not None) == paused


@pytest.mark.parametrize(
    "document",
    [
        {"hours": {"email": {}}},
        {"hours": {"email": {"mon": [["20:00", "08:00"]]}}},
        {"hours": {"email": {"mon": [["8:00", "20:00"]]}}},
        {"hours": {"fax": {"mon": [["08:00", "20:00"]]}}},
        {"default_time_zone": "Mars/Olympus"},
        {"pressure": {"limits": [{"messages": 0, "days": 1}]}},
        {"guard": {"complaint_percent": 0}},
        {"quiet": True},
    ],
)
def test_a_policy_that_cannot_work_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        checked(document)


def test_files_of_other_systems_are_understood_and_bad_rows_told() -> None:
    csv = "Email;Reason;Created_at\r\nAnn@Example.com;Bounce;1760000000\r\n\r\nnobody;spam;\r\nben@example.com;odd;\r\n"
    found = list(rows_of(csv, "csv"))
    first = entry_of(found[0][1], ADDRESSES, DEFAULTS)  # type: ignore[arg-type]
    assert (first.address_hash, first.reason, first.since.year) == (
        ADDRESSES.hash_of("ann@example.com"),
        "bounced",
        2025,
    )
    for line, row in found[1:]:
        with pytest.raises(NotAnEntry):
            entry_of(row, ADDRESSES, DEFAULTS)  # type: ignore[arg-type]
        assert line in (4, 5)
    assert [row for _, row in rows_of("a@example.com\nb@example.com\n", "csv")] == [
        {"email": "a@example.com"},
        {"email": "b@example.com"},
    ]
    lines = list(rows_of('{"domain": "Acme.com"}\n[1]\n{"role": "info"}\n{"phone": "+49 151 12345678"}', "ndjson"))
    entries = [entry_of(row, ADDRESSES, DEFAULTS) for _, row in lines if isinstance(row, dict)]
    assert [(entry.kind, entry.value, entry.channel) for entry in entries] == [
        ("domain", "acme.com", "email"),
        ("role", "info", "email"),
        ("phone", None, "sms"),
    ]
    assert lines[1][1] == "is not an object of texts"
    assert {entry.address_hash for entry in entries[:2]} <= set(ADDRESSES.hashes_of("info@mail.acme.com"))


def test_an_address_of_a_page_tells_nothing_and_cannot_be_altered() -> None:
    links, lead_id = PreferenceLinks(b"p" * 32, "https://x.test"), LeadId("3f1c9a52-7b0e-8d41-9c6a-52e0b7f4a913")
    token = links.address(lead_id).rpartition("/")[2]
    assert links.read(token) == lead_id
    assert lead_id.replace("-", "") not in token
    assert PreferenceLinks(b"q" * 32, "https://x.test").read(token) is None
    for number in range(0, len(token) - 1, 3):
        assert links.read(token[:number] + ("A" if token[number] != "A" else "B") + token[number + 1 :]) is None
    for odd in ("", "x", token + "AAAA", "é", token[:-4], "=" * 99, "a" * 10_000):
        assert links.read(odd) is None


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"email": "a@example.com", "phone": "+4915112345678"},
        {"email": "a@example.com", "origin": "a\x00b"},
        {"email": "a@example.com", "channel": "fax"},
        {"email": "a@example.com", "since": "yesterday"},
        {"email": "a@example.com", "since": "9" * 40},
        {"domain": "a b"},
        {"domain": "@"},
        {"role": "in fo"},
        {"phone": "12"},
        {"address_hash": "AB" * 32},
        {"lead_id": "x" * 255},
    ],
)
def test_a_row_that_means_nothing_here_is_refused_with_a_reason(row: dict[str, Any]) -> None:
    with pytest.raises(NotAnEntry) as refused:
        entry_of(row, ADDRESSES, DEFAULTS)
    assert str(refused.value)
