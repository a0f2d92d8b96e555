"""What a broker is asked within a fetch session: everything at first, then what changed."""

from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v4, FetchRequest_v11

from shared.kafka._sessions import (  # noqa: TID251  # it stands between a client and its broker
    GATHERED_BYTES,
    fetch_in_sessions,
)

NOT_FOUND, WRONG_EPOCH = 70, 71
Offsets = dict[tuple[str, int], int]


class Broker:
    """A client whose broker writes down what it was asked, and answers with a session."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.session_id = 7
        self.error_code = 0
        self.version: Any = FetchRequest_v11
        self.away = False
        self.topics: list[Any] = []

    async def send(self, node_id: int, request: FetchRequest) -> Any:
        self.asked.append(request.build(self.version))
        if self.away:
            raise KafkaConnectionError
        session = (self.error_code, self.session_id) if self.version is FetchRequest_v11 else ()
        return self.version.RESPONSE_TYPE(0, *session, self.topics)


@pytest.fixture
def broker() -> Broker:
    made = Broker()
    fetch_in_sessions(made)
    return made


async def fetch(broker: Broker, offsets: Offsets) -> tuple[int, int, Offsets, list[tuple[str, list[int]]]]:
    """Fetch from these offsets; answers the session, its epoch, what was sent, and what is to be forgotten."""
    topics: dict[str, list[tuple[int, int, int]]] = {}
    for (topic, partition), offset in offsets.items():
        topics.setdefault(topic, []).append((partition, offset, 1_000))
    await broker.send(1, FetchRequest(500, 1, 10_000, 0, list(topics.items())))
    asked = broker.asked[-1]
    sent = {(topic, one[0]): one[2] for topic, partitions in asked.topics for one in partitions}
    return asked.session_id, asked.session_epoch, sent, asked.forgotten_topics_data


ALL: Offsets = {("touches", 0): 5, ("touches", 1): 9, ("leads", 0): 2}


async def test_after_the_first_fetch_only_what_changed_is_sent(broker: Broker) -> None:
    assert await fetch(broker, ALL) == (0, 0, ALL, [])
    assert await fetch(broker, ALL) == (7, 1, {}, [])
    assert await fetch(broker, ALL | {("touches", 1): 12}) == (7, 2, {("touches", 1): 12}, [])


async def test_a_partition_that_is_not_wanted_is_forgotten_and_sent_again_when_it_is(broker: Broker) -> None:
    await fetch(broker, ALL)
    fewer = {place: offset for place, offset in ALL.items() if place != ("leads", 0)}
    assert await fetch(broker, fewer) == (7, 1, {}, [("leads", [0])])
    assert await fetch(broker, ALL) == (7, 2, {("leads", 0): 2}, [])


async def test_a_session_that_the_broker_does_not_know_begins_anew(broker: Broker) -> None:
    await fetch(broker, ALL)
    broker.error_code, broker.session_id = NOT_FOUND, 0
    await fetch(broker, ALL)
    broker.error_code, broker.session_id = 0, 8
    assert await fetch(broker, ALL) == (0, 0, ALL, [])
    broker.error_code = WRONG_EPOCH
    await fetch(broker, ALL)
    assert await fetch(broker, ALL) == (8, 0, ALL, [])


async def test_a_fetch_without_an_answer_ends_the_session(broker: Broker) -> None:
    await fetch(broker, ALL)
    broker.away = True
    with pytest.raises(KafkaConnectionError):
        await fetch(broker, ALL | {("leads", 0): 3})
    broker.away = False
    assert await fetch(broker, ALL | {("leads", 0): 3}) == (7, 0, ALL | {("leads", 0): 3}, [])


async def test_a_broker_without_room_for_sessions_is_asked_in_full(broker: Broker) -> None:
    broker.session_id = 0
    for _ in range(2):
        assert await fetch(broker, ALL) == (0, 0, ALL, [])


async def test_a_broker_that_knows_no_sessions_is_asked_in_full(broker: Broker) -> None:
    broker.version = FetchRequest_v4
    for _ in range(2):
        await broker.send(1, FetchRequest(500, 1, 10_000, 0, [("touches", [(0, 5, 1_000)])]))
        assert broker.asked[-1].topics == [("touches", [(0, 5, 1_000)])]


async def test_a_broker_gathers_only_while_records_flow() -> None:
    broker = Broker()
    fetch_in_sessions(broker, gather_ms=80)
    waits = []
    for records in (b"", b"some", b"more", b"", b""):
        broker.topics = [("touches", [(0, 0, 9, 9, 0, [], -1, records)])]
        await fetch(broker, ALL)
        waits.append((broker.asked[-1].max_wait_time, broker.asked[-1].min_bytes))
    assert waits == [(500, 1), (500, 1), (80, GATHERED_BYTES), (80, GATHERED_BYTES), (500, 1)]
