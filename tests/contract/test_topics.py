"""The topic table is true: it says who tells and who reads, and the services' own code says the same."""

import pytest

from shared.events import EVENT_OF, TOPICS, Event, Topic
from throughline.contracts.services import reacts_to, tells
from throughline.services import SERVICES

EACH = pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


@EACH
def test_a_topic_has_the_writers_that_the_table_names(topic: Topic) -> None:
    assert {service for service in SERVICES if tells(service) & set(topic.carries)} == topic.writers


@EACH
def test_a_topic_has_the_readers_that_the_table_names(topic: Topic) -> None:
    assert {service for service in SERVICES if reacts_to(service) & set(topic.carries)} == topic.readers


@EACH
def test_a_topic_has_writers_readers_and_facts(topic: Topic) -> None:
    assert topic.writers
    assert topic.readers or topic.outward
    assert topic.carries
    assert topic.writers | topic.readers <= set(SERVICES)


@pytest.mark.parametrize("kind", EVENT_OF.values(), ids=lambda kind: kind.ce_type)
def test_a_fact_is_told_by_somebody_and_travels_in_one_topic(kind: type[Event]) -> None:
    assert [service for service in SERVICES if kind in tells(service)]
    assert len([topic for topic in TOPICS if kind in topic.carries]) == 1
    assert kind.ce_type.startswith("throughline.")
    assert kind.ce_type.rpartition(".v")[2].isdigit()


def test_every_fact_that_is_defined_is_in_a_topic() -> None:
    defined = set()
    waiting: list[type[Event]] = [Event]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        defined |= {kind for kind in kinds if kind.__module__.startswith("shared.events")}
        waiting += kinds
    assert defined == set(EVENT_OF.values())
