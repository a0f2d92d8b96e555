"""Golden records: what was told once can be read for ever, and means the same."""

import orjson
import pytest

from shared.events import EVENT_OF, Event, with_position
from throughline.contracts.documents import SCHEMAS
from throughline.contracts.samples import SAMPLES, sample_of

KINDS = pytest.mark.parametrize("kind", EVENT_OF.values(), ids=lambda kind: kind.ce_type)


def test_every_fact_has_a_sample_and_no_sample_lost_its_fact() -> None:
    assert {path.stem for path in SAMPLES.glob("*.json")} == EVENT_OF.keys()


@KINDS
def test_a_sample_decodes_and_encodes_to_itself(kind: type[Event]) -> None:
    sample = sample_of(kind)
    fact = kind.decode(sample)
    assert orjson.loads(with_position(fact.encode(), fact.position)) == orjson.loads(sample)


@KINDS
def test_a_sample_is_complete(kind: type[Event]) -> None:
    assert orjson.loads(sample_of(kind)).keys() == kind.model_fields.keys()


@KINDS
def test_a_record_with_only_what_is_required_decodes(kind: type[Event]) -> None:
    required = orjson.loads((SCHEMAS / f"{kind.ce_type}.json").read_bytes())["required"]
    sample = orjson.loads(sample_of(kind))
    fact = kind.decode(orjson.dumps({name: sample[name] for name in required}))
    assert fact.event_id == sample["event_id"]


@KINDS
def test_a_field_of_tomorrow_is_passed_over(kind: type[Event]) -> None:
    sample = orjson.loads(sample_of(kind))
    assert kind.decode(orjson.dumps({**sample, "field_of_tomorrow": {"deep": [1]}})) == kind.decode(sample_of(kind))
