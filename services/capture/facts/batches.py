"""Batches in which one bad item does not spoil the others."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from services.capture.facts.inputs import MOST_IN_A_BATCH
from services.capture.reading import may_hold_bad_text, text_faults
from shared.errors import FieldError, Invalid, Malformed, Rejected
from shared.web import faults_of, problem_body

Item = TypeVar("Item", bound=BaseModel)
Made = TypeVar("Made")
ACCEPTED = 202
JSON = "application/json"


class Accepted(BaseModel):
    """How many items were stored, and the problem of each that was not, with its place in the batch."""

    accepted: int
    rejected: list[dict[str, Any]]


class BatchReader(Generic[Item]):
    """Reads bodies that hold items under one name, or (`alone`) are one item.

    A body without faults is parsed once, whole. Only when that fails is each item looked at by itself.
    """

    def __init__(self, name: str, item: type[Item], batch: type[BaseModel], *, alone: bool) -> None:
        self._name = name
        self._item = item
        self._mark = f'"{name}"'.encode()
        self._one = item.__pydantic_validator__.validate_json
        self._all = batch.__pydantic_validator__.validate_json
        self._alone = alone

    def read(self, body: bytes) -> tuple[list[Item | Rejected], bool]:
        """The items or what is wrong with each, and whether they came in a batch. Raises Malformed, Invalid."""
        if not may_hold_bad_text(body):
            try:
                if not self._alone or self._mark in body:
                    return getattr(self._all(body), self._name), True
                return [self._one(body)], False
            except ValidationError:
                pass
        return self._read_each(body)

    def _read_each(self, body: bytes) -> tuple[list[Item | Rejected], bool]:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")]) from exc
        if self._alone and not (isinstance(content, dict) and self._name in content):
            return [self._read_one(content, "")], False
        place = f"/{self._name}"
        if not isinstance(content, dict):
            raise _invalid("", "is not an object")
        if others := sorted(content.keys() - {self._name}):
            raise _invalid(f"/{others[0][:100]}", "is not a field of this request")
        items = content.get(self._name)
        if not isinstance(items, list) or not 1 <= len(items) <= MOST_IN_A_BATCH:
            raise _invalid(place, f"is required: a list of 1 to {MOST_IN_A_BATCH} items")
        return [self._read_one(item, f"{place}/{index}") for index, item in enumerate(items)], True

    def _read_one(self, content: Any, place: str) -> Item | Rejected:
        if faults := list(text_faults(content, place)):
            return Invalid(f"look at {faults[0].pointer}", faults[:100])
        try:
            item: Item = self._one(json.dumps(content))
        except ValidationError as exc:
            faults = faults_of(exc, place)
            return Invalid(f"look at {faults[0].pointer or 'the body'}", faults)
        return item


def make_each(items: Sequence[Item | Rejected], make: Callable[[Item, str], Made], place: str) -> list[Made | Rejected]:
    """What becomes of each item; `make` gets the item and its place in the body, and may raise Rejected."""
    made: list[Made | Rejected] = []
    for index, item in enumerate(items):
        if isinstance(item, Rejected):
            made.append(item)
            continue
        try:
            made.append(make(item, f"{place}/{index}" if place else ""))
        except Rejected as exc:
            made.append(exc)
    return made


def answer(made: Sequence[Made | Rejected]) -> Response:
    """What was accepted and what was not."""
    rejected = [{"index": index, **problem_body(item)} for index, item in enumerate(made) if isinstance(item, Rejected)]
    return Response(
        orjson.dumps({"accepted": len(made) - len(rejected), "rejected": rejected}), ACCEPTED, media_type=JSON
    )


def refuse_if_all_bad(made: Sequence[Made | Rejected]) -> None:
    """Raise when there is nothing to store: the only item's own problem, or one with the faults of all."""
    problems = [item for item in made if isinstance(item, Rejected)]
    if not problems or len(problems) < len(made):
        return
    if len(problems) == 1:
        raise problems[0]
    faults = [fault for problem in problems for fault in problem.errors]
    raise Invalid("none of the items is valid", faults[:100])


def _invalid(pointer: str, detail: str) -> Invalid:
    return Invalid(f"look at {pointer or 'the body'}", [FieldError(pointer, detail)])
