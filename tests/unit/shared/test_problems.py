"""Where a fault stands is said by what was sent, not by how it was looked at."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from shared.errors import FieldError
from shared.web import Input, invalid


class EveryDays(Input):
    days: int


class Asked(Input):
    again: Literal["never"] | EveryDays
    to: list[Annotated[str, Field(pattern="@", max_length=9)] | EveryDays] = Field(default_factory=list)
    named: dict[str, int] = Field(default_factory=dict)


def faults(model: type[BaseModel], sent: object) -> list[FieldError]:
    try:
        model.model_validate(sent)
    except ValidationError as exc:
        return list(invalid(exc).errors)
    return []


def test_a_place_that_takes_one_of_several_shapes_is_named_as_it_was_sent() -> None:
    found = faults(Asked, {"again": {"days": "x"}, "to": ["somebody"], "named": {"a/b": "y"}})
    assert {fault.pointer for fault in found} == {"/again", "/again/days", "/to/0", "/named/a~1b"}
    assert len(found) == len(set(found))


def test_what_should_be_an_object_is_told_so() -> None:
    assert faults(Asked, []) == faults(EveryDays, 1) == [FieldError("", "is not an object")]
