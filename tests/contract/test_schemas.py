"""The documents in `docs/` are those of the code, and a schema can only gain optional fields."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from shared.events import EVENT_OF, Event
from throughline.contracts.documents import SCHEMAS, documents, in_step, write
from throughline.contracts.samples import sample_of
from throughline.contracts.schemas import Broken, breaks, refuse_breaks, schemas

Schema = dict[str, Any]


def test_what_is_in_docs_is_what_the_code_says() -> None:
    assert in_step(documents()) == {}


def test_no_schema_is_left_whose_fact_is_gone() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == schemas().keys()


@pytest.mark.parametrize("kind", EVENT_OF.values(), ids=lambda kind: kind.ce_type)
def test_a_sample_is_valid_by_its_committed_schema(kind: type[Event]) -> None:
    schema = orjson.loads((SCHEMAS / f"{kind.ce_type}.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        orjson.loads(sample_of(kind))
    )


def _without(schema: Schema, name: str) -> None:
    del schema["properties"][name]
    schema["required"] = [each for each in schema["required"] if each != name]


def _renamed(schema: Schema) -> None:
    schema["properties"]["score_fit"] = schema["properties"].pop("fit")
    schema["required"] = [{"fit": "score_fit"}.get(name, name) for name in schema["required"]]


def _retyped(schema: Schema) -> None:
    schema["properties"]["fit"] = {"type": "string"}


def _narrowed(schema: Schema) -> None:
    schema["properties"]["grade"]["enum"].remove("F")


def _widened(schema: Schema) -> None:
    schema["properties"]["grade"]["enum"].append("E")


def _nullable(schema: Schema) -> None:
    schema["properties"]["fit"] = {"anyOf": [{"type": "integer"}, {"type": "null"}]}


def _another_default(schema: Schema) -> None:
    schema["properties"]["position"]["default"] = 1


def _new_and_required(schema: Schema) -> None:
    schema["properties"]["model"] = {"type": "string"}
    schema["required"].append("model")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda schema: _without(schema, "fit"), "fit is gone"),
        (lambda schema: _without(schema, "position"), "position is gone"),
        (_renamed, "fit is gone"),
        (_retyped, "fit has another type or default"),
        (_narrowed, "grade has another type or default"),
        (_widened, "grade has another type or default"),
        (_nullable, "fit has another type or default"),
        (_another_default, "position has another type or default"),
        (lambda schema: schema["required"].append("position"), "position became required"),
        (lambda schema: schema["required"].remove("fit"), "fit became optional"),
        (_new_and_required, "model is new and required"),
    ],
)
def test_a_change_that_old_facts_or_readers_do_not_survive_is_named(
    change: Callable[[Schema], None], fault: str
) -> None:
    old = schemas()["throughline.lead.scored.v1"]
    new = deepcopy(old)
    change(new)
    assert fault in breaks(old, new)


def test_an_optional_field_and_another_wording_break_nothing() -> None:
    old = schemas()["throughline.lead.scored.v1"]
    new = deepcopy(old)
    new["properties"]["model"] = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    new["properties"]["fit"] |= {"title": "How well it fits", "description": "Points."}
    new["description"] = "Said better."
    assert breaks(old, new) == []


def test_a_type_behind_a_reference_counts_too() -> None:
    old = {"$defs": {"Kind": {"enum": ["a", "b"]}}, "properties": {"kind": {"$ref": "#/$defs/Kind"}}}
    new = {"$defs": {"Kind": {"enum": ["a"]}}, "properties": {"kind": {"$ref": "#/$defs/Kind"}}}
    assert breaks(old, new) == ["kind has another type or default"]


def test_a_breaking_schema_is_not_written_over_the_one_that_is_there(tmp_path: Path) -> None:
    made = schemas()
    write({tmp_path / f"{name}.json": orjson.dumps(schema).decode() for name, schema in made.items()})
    _retyped(made["throughline.lead.scored.v1"])
    del made["throughline.cost.recorded.v1"]
    with pytest.raises(Broken) as caught:
        refuse_breaks(tmp_path, made)
    assert "throughline.lead.scored.v1: fit has another type or default" in str(caught.value)
    assert "throughline.cost.recorded.v1: nothing has this schema any more" in str(caught.value)
