"""Times in requests are written out; what only looks like one to a parser is refused."""

from datetime import UTC, date, datetime

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from shared.web import CalendarDay, Input, Instant


class Strict(Input):
    model_config = ConfigDict(strict=True)

    at: Instant


class StrictDay(Input):
    model_config = ConfigDict(strict=True)

    on: CalendarDay


INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)
DAY: TypeAdapter[date] = TypeAdapter(CalendarDay)


@pytest.mark.parametrize(
    "text", ["2026-11-27T10:00:00Z", "2026-11-27t10:00:00z", "2026-11-27T12:00+02:00", "2026-11-27 10:00:00.000Z"]
)
def test_a_time_with_an_offset_is_that_moment(text: str) -> None:
    then = datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert INSTANT.validate_python(text) == INSTANT.validate_python(then) == then
    assert Strict.model_validate_json(f'{{"at": "{text}"}}').at == then


@pytest.mark.parametrize(
    "told", ["20261127", "1764237600", "-5", "12", "1764237600.5", "20261127T100000Z", "", 1764237600, 12.5, True, None]
)
def test_digits_are_no_seconds_since_1970(told: object) -> None:
    with pytest.raises(ValidationError, match="is not a time such as"):
        INSTANT.validate_python(told)


@pytest.mark.parametrize("text", ["1900-01-01", "2026-11-27", "2999-12-31"])
def test_a_day_is_written_out(text: str) -> None:
    day = date.fromisoformat(text)
    assert DAY.validate_python(text) == DAY.validate_python(day) == day
    assert StrictDay.model_validate_json(f'{{"on": "{text}"}}').on == day


@pytest.mark.parametrize(
    "told",
    [
        *("20261127", "1764201600", "0", "2026-W48-5", "2026-11-27T00:00:00Z", "2026-11-7", " 2026-11-27", ""),
        *(1_764_201_600, 0, 12.5, True, None, datetime(2026, 11, 27, tzinfo=UTC)),
    ],
)
def test_what_a_day_is_not_written_as_is_refused(told: object) -> None:
    with pytest.raises(ValidationError, match="is not a day such as"):
        DAY.validate_python(told)


@pytest.mark.parametrize("text", ["0001-01-01", "1899-12-31", "3000-01-01", "9999-12-31"])
def test_a_day_lies_within_the_years_of_times(text: str) -> None:
    with pytest.raises(ValidationError, match="lies outside of the years 1900 to 2999"):
        DAY.validate_python(text)
