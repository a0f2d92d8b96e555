"""The AsyncAPI document: topics as channels, facts as messages, and what each service sends and receives."""

from collections.abc import Iterable
from typing import Any

import orjson

from shared.events import TOPICS, WATERMARK_TYPE, Event, Topic
from shared.settings import Settings
from throughline.contracts.samples import sample_of
from throughline.contracts.services import reacts_to, tells
from throughline.services import SERVICES

_SETTINGS = {name: field.default for name, field in Settings.model_fields.items()}
_BINDINGS = "0.5.0"
_ABOUT = """\
Facts travel as CloudEvents 1.0 in Kafka's binary mode: the attributes are `ce_*` headers, the value is the fact as
JSON. Delivery is at least once; `ce_id` is the same for the same fact, and facts with one key stay in order. Within a
version a fact only gains optional fields: ignore fields you do not know. Topic names begin with the installation's
prefix, here `throughline.`. Personal data stands encrypted in `personal`, with a key per person.
"""
_HEADERS: dict[str, Any] = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_dataschema"],
    "properties": {
        "ce_specversion": {"type": "string", "const": "1.0"},
        "ce_id": {"type": "string", "description": "The fact's id: the same however often it arrives."},
        "ce_type": {"type": "string", "description": "The kind of fact and its version."},
        "ce_source": {"type": "string", "description": "Who tells it.", "examples": ["/throughline/capture"]},
        "ce_time": {"type": "string", "format": "date-time", "description": "When it happened, UTC."},
        "ce_subject": {
            "type": "string",
            "minLength": 1,
            "description": "The lead's id, else what the fact is about; absent where there is no one such thing.",
        },
        "ce_dataschema": {"type": "string", "description": "The `$id` of the value's JSON Schema."},
        "content-type": {"type": "string", "const": "application/json"},
        "traceparent": {
            "type": "string",
            "description": "W3C trace context of the request or fact that caused it, if one did.",
        },
    },
}


def asyncapi() -> dict[str, Any]:
    """The document."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Throughline facts",
            "version": "1.0.0",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": "{address}",
                "protocol": "kafka",
                "description": "The installation's Kafka, `THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS`.",
                "variables": {"address": {"default": "127.0.0.1:9092"}},
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": dict(_operations()),
        "components": {
            "messages": {
                **{kind.__name__: _message(kind) for topic in TOPICS for kind in topic.carries},
                "Watermark": _watermark(),
            },
            "messageTraits": {"CloudEvent": {"contentType": "application/json", "headers": _HEADERS}},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    names = [*(kind.__name__ for kind in topic.carries), "Watermark"]
    address = _SETTINGS["topic_prefix"] + topic.name
    return {
        "address": address,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "kafka": {
                "topic": address,
                "partitions": _SETTINGS["topic_partitions"],
                "replicas": _SETTINGS["topic_replication_factor"],
                "topicConfiguration": {name: _configured(name, value) for name, value in topic.config.items()},
                "bindingVersion": _BINDINGS,
            }
        },
    }


def _configured(name: str, value: str) -> Any:
    return value.split(",") if name == "cleanup.policy" else int(value)


def _operations() -> Iterable[tuple[str, dict[str, Any]]]:
    for service in SERVICES:
        told, read = tells(service), reacts_to(service)
        for topic in TOPICS:
            if sent := [kind for kind in topic.carries if kind in told]:
                yield f"{service}.send.{topic.name}", _operation("send", service, topic, sent)
            if received := [kind for kind in topic.carries if kind in read]:
                yield f"{service}.receive.{topic.name}", _operation("receive", service, topic, received)


def _operation(action: str, service: str, topic: Topic, kinds: list[type[Event]]) -> dict[str, Any]:
    group = f"{service}-keys" if topic.name == "keys" else service
    received = {"groupId": {"type": "string", "const": group}} if action == "receive" else {}
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "tags": [{"name": service}],
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{kind.__name__}"} for kind in kinds],
        "bindings": {"kafka": {**received, "bindingVersion": _BINDINGS}},
    }


def _message(kind: type[Event]) -> dict[str, Any]:
    key = kind.key.__doc__ or ""
    return {
        "name": kind.ce_type,
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").partition("\n")[0],
        "traits": [{"$ref": "#/components/messageTraits/CloudEvent"}],
        "payload": {"$ref": f"./events/schemas/{kind.ce_type}.json"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": _BINDINGS}},
        "examples": [{"payload": orjson.loads(sample_of(kind))}],
    }


def _watermark() -> dict[str, Any]:
    return {
        "name": WATERMARK_TYPE,
        "title": "Watermark",
        "summary": "Every fact that `source` recorded before `at` stands before this record in its partition. No fact.",
        "headers": {
            "type": "object",
            "required": ["ce_specversion", "ce_id", "ce_type", "ce_source"],
            "properties": {
                "ce_specversion": {"type": "string", "const": "1.0"},
                "ce_id": {"type": "string"},
                "ce_type": {"type": "string", "const": WATERMARK_TYPE},
                "ce_source": {"type": "string"},
                "content-type": {"type": "string", "const": "application/json"},
            },
        },
        "payload": {
            "type": "object",
            "required": ["source", "at"],
            "properties": {
                "source": {"type": "string"},
                "at": {"type": "string", "format": "date-time"},
                "repair": {
                    "type": "array",
                    "description": "How often the source found that Kafka had lost records of this partition, and the "
                    "offset from which they were told again.",
                    "items": {"type": "integer"},
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        },
    }
