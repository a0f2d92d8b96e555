"""Times in facts: what was accepted once stays in the log, and has to be read."""

from datetime import UTC, date, datetime

import pytest

from shared.events import EVENT_OF, CostRecorded, TouchRecorded


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0001-01-01T00:00:00Z", datetime(1900, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", datetime(1900, 1, 1, tzinfo=UTC)),
        ("1900-01-01T00:00:00Z", datetime(1900, 1, 1, tzinfo=UTC)),
        ("2026-11-20T12:00:00Z", datetime(2026, 11, 20, 12, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(2999, 12, 31, tzinfo=UTC)),
    ],
)
def test_a_time_of_any_year_is_read_as_one_that_can_be_stored(written: str, read: datetime) -> None:
    value = b'{"event_id":"e","lead_id":"l","occurred_at":"%s","received_at":"%s","touch_id":"t","type":"x"}'
    fact = TouchRecorded.decode(value % (written.encode(), written.encode()))
    assert (fact.occurred_at, fact.received_at) == (read, read)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0001-01-01", date(1900, 1, 1)),
        ("1900-01-01", date(1900, 1, 1)),
        ("2026-11-20", date(2026, 11, 20)),
        ("9999-12-31", date(2999, 12, 31)),
    ],
)
def test_a_day_of_any_year_is_read_as_one_that_can_be_stored(written: str, read: date) -> None:
    value = (
        b'{"event_id":"e","occurred_at":"2026-11-20T12:00:00Z","received_at":"2026-11-20T12:00:00Z",'
        b'"date":"%s","channel":"Email","amount_minor":1,"currency":"EUR"}'
    )
    assert CostRecorded.decode(value % written.encode()).date == read


def test_every_time_and_every_day_in_a_fact_is_read_so() -> None:
    plain = [
        f"{kind.__name__}.{name}"
        for kind in set(EVENT_OF.values())
        for name, field in kind.model_fields.items()
        if "datetime.date" in str(field.annotation) and "within_years" not in f"{field.annotation} {field.metadata}"
    ]
    assert plain == []
