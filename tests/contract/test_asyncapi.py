"""The AsyncAPI document holds together: references lead somewhere and examples are valid."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import yaml
from jsonschema import Draft202012Validator

from shared.events import EVENT_OF, TOPICS
from throughline.contracts.documents import DOCS


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
    return read


def references(part: Any) -> Iterator[str]:
    match part:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for value in part.values():
                yield from references(value)
        case list():
            for value in part:
                yield from references(value)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for target in set(references(document)):
        file, _, pointer = target.partition("#/")
        place: Any = orjson.loads((DOCS / file).read_bytes()) if file else document
        for step in pointer.split("/") if pointer else ():
            place = place[step]
        assert place


def test_every_topic_is_a_channel_and_every_fact_a_message(document: dict[str, Any]) -> None:
    assert document["channels"].keys() == {topic.name for topic in TOPICS}
    names = {message["name"] for message in document["components"]["messages"].values()}
    assert names == {*EVENT_OF, "throughline.watermark.v1"}


def test_every_example_is_valid(document: dict[str, Any]) -> None:
    for message in document["components"]["messages"].values():
        for example in message.get("examples", ()):
            schema = orjson.loads((DOCS / message["payload"]["$ref"]).read_bytes())
            Draft202012Validator(schema).validate(example["payload"])


def test_an_operation_names_messages_of_its_own_channel(document: dict[str, Any]) -> None:
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert operation["messages"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
