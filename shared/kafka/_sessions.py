"""Fetch sessions (KIP-227): a broker is asked only for what changed, and answers only where there is news.

The client names every partition in every fetch, and is answered about each. Of a service that reads a dozen topics that
is most of what a fetch costs, on both sides. A broker that knows no sessions, or has no room for one, is asked in full.

A reader that nobody waits for may let its broker gather: what comes first after a silence is answered at once, and
after it the broker waits for more. A batch costs much the same whether it holds one fact or twenty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiokafka.protocol.fetch import FetchRequest

FIRST_WITH_SESSIONS = 7
FIRST_WITH_LEADER_EPOCH = 9
NONE, BEGIN = 0, 0
LAST_EPOCH = 2**31 - 1
SESSION_NOT_FOUND = 70
GATHERED_BYTES = 262_144
UNKNOWN_EPOCH = UNKNOWN_START = -1

Place = tuple[str, int]


@dataclass(slots=True)
class Session:
    """What a broker has been asked for last. With epoch `BEGIN` the next request is in full and opens a session.

    `flows` says that its last answer held records.
    """

    number: int = NONE
    epoch: int = BEGIN
    asked: dict[Place, int] = field(default_factory=dict)
    flows: bool = False

    def changes(self, wanted: dict[Place, int]) -> tuple[dict[Place, int], list[Place]]:
        """Offsets that the broker does not know yet, and places that it is to forget."""
        if self.epoch == BEGIN:
            return wanted, []
        fresh = {place: offset for place, offset in wanted.items() if self.asked.get(place) != offset}
        return fresh, [place for place in self.asked if place not in wanted]

    def answered(self, wanted: dict[Place, int], number: int, error_code: int) -> None:
        """The broker answered a request for these offsets."""
        if error_code:
            self.lost(NONE if error_code == SESSION_NOT_FOUND else self.number)
        elif number == NONE:
            self.lost(NONE)
        else:
            self.number, self.asked = number, wanted
            self.epoch = 1 if self.epoch == LAST_EPOCH else self.epoch + 1

    def lost(self, number: int) -> None:
        """It is not known any more what the broker knows: begin anew, and end the session of this number."""
        self.number, self.epoch, self.asked = number, BEGIN, {}


class _SessionRequest(FetchRequest):  # type: ignore[misc]  # untyped in aiokafka
    """A fetch within a session."""

    def __init__(self, whole: Any, session: Session, gather_ms: int) -> None:
        self.__dict__.update(whole.__dict__)
        self._session = session
        if gather_ms and session.flows:
            self._max_wait_ms, self._min_bytes = gather_ms, GATHERED_BYTES
        self.wanted = {(topic, one[0]): one[1] for topic, partitions in whole.topics for one in partitions}

    def build(self, request_struct_class: Any) -> Any:
        version = request_struct_class.API_VERSION
        if version < FIRST_WITH_SESSIONS:
            return super().build(request_struct_class)
        fresh, forgotten = self._session.changes(self.wanted)
        epoch = (UNKNOWN_EPOCH,) if version >= FIRST_WITH_LEADER_EPOCH else ()
        topics = []
        for topic, partitions in self._topics:
            asked = [
                (partition, *epoch, offset, UNKNOWN_START, limit)
                for partition, offset, limit in partitions
                if (topic, partition) in fresh
            ]
            if asked:
                topics.append((topic, asked))
        limits = (self._max_wait_ms, self._min_bytes, self._max_bytes, self._isolation_level)
        rack = (self._rack_id,) if version >= 11 else ()
        told = (self._session.number, self._session.epoch, topics, _by_topic(forgotten))
        return request_struct_class(-1, *limits, *told, *rack)


def _by_topic(places: list[Place]) -> list[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in places:
        topics.setdefault(topic, []).append(partition)
    return list(topics.items())


def fetch_in_sessions(client: Any, gather_ms: int = 0) -> None:
    """Let a client of aiokafka keep a fetch session with each broker, which gathers for so long while records flow."""
    send = client.send
    sessions: dict[int, Session] = {}

    async def send_in_session(node_id: int, request: Any, **options: Any) -> Any:
        if not isinstance(request, FetchRequest):
            return await send(node_id, request, **options)
        session = sessions.setdefault(node_id, Session())
        fetch = _SessionRequest(request, session, gather_ms)
        try:
            response = await send(node_id, fetch, **options)
        except BaseException:
            session.lost(session.number)
            raise
        session.flows = any(one[-1] for _, partitions in response.topics for one in partitions)
        if response.API_VERSION >= FIRST_WITH_SESSIONS:
            session.answered(fetch.wanted, response.session_id, response.error_code)
        return response

    client.send = send_in_session
