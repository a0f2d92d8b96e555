"""Times in requests are written out; what only looks like one to a parser is refused."""

from datetime import UTC, datetime

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from shared.web import Input, Instant


class Strict(Input):
    model_config = ConfigDict(strict=True)

    at: Instant


INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


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
