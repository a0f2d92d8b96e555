"""Kafka: topics as code, routes, and consumers whose truth lies in PostgreSQL."""

from shared.kafka._batch import Processor, Superseded, topics_of
from shared.kafka._clients import started
from shared.kafka._consumer import Consumer
from shared.kafka._groups import forget_group
from shared.kafka._guard import Guard
from shared.kafka._keys import KeysProcessor
from shared.kafka._positions import Fenced
from shared.kafka._probe import Probe, probe
from shared.kafka._reader import Reader, reading_from
from shared.kafka._routes import Route, on, on_batch
from shared.kafka._topics import Drift, apply_topics, topic_drift

__all__ = [
    "Consumer",
    "Drift",
    "Fenced",
    "Guard",
    "KeysProcessor",
    "Probe",
    "Processor",
    "Reader",
    "Route",
    "Superseded",
    "apply_topics",
    "forget_group",
    "on",
    "on_batch",
    "probe",
    "reading_from",
    "started",
    "topic_drift",
    "topics_of",
]
