"""Scoring, asked about segments; and who should be in which, worked out from nothing but what is known now."""

from typing import Any

from services.scoring.parts import make_parts
from services.scoring.segments.domain import holds
from services.scoring.segments.handlers import look, seen
from services.scoring.segments.queries import people_after
from shared.events import SegmentEntered, SegmentLeft
from shared.ids import LeadId, SegmentId
from shared.rules import Evaluation
from tests.service.scoring_world import World


class Segments(World):
    """Scoring, asked about segments."""

    async def ask(self, method: str, path: str, status: int, **request: Any) -> Any:
        """The answer to a request, which must have this status."""
        response = await self.scoring.client.request(method, f"/v1/{path}", **request)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def save(self, segment_id: str, when: str, status: int = 201) -> Any:
        """Make a dynamic segment and have it computed."""
        body = {"segment_id": segment_id, "name": segment_id.title(), "kind": "dynamic", "when": when}
        answer = await self.ask("POST", "segments", status, json=body)
        await self.scoring.run_timers()
        return answer

    async def members(self, segment_id: str) -> set[str]:
        """Who is in a segment."""
        page = await self.ask("GET", f"segments/{segment_id}/members?limit=200", 200)
        assert page["next_cursor"] is None
        return {one["lead_id"] for one in page["items"]}

    async def moves(self, segment_id: str) -> list[tuple[str, str, int, bool]]:
        """What was told about a segment, in order."""
        told: list[SegmentEntered | SegmentLeft] = [
            *await self.scoring.told(SegmentEntered),
            *await self.scoring.told(SegmentLeft),
        ]
        return [
            ("in" if isinstance(one, SegmentEntered) else "out", one.lead_id, one.revision, one.initial)
            for one in sorted(told, key=lambda one: (one.occurred_at, one.lead_id, one.revision))
            if one.segment_id == segment_id
        ]

    async def from_scratch(self) -> dict[str, set[str]]:
        """Who is in which segment by what is known now, whatever was found before."""
        parts, runtime = make_parts(self.scoring.runtime), self.scoring.runtime
        async with runtime.database.transaction() as tx:
            live = await parts.segments.live(tx.connection)
            everybody = await people_after(tx.connection, LeadId(""), 10_000)
            people, stages = await seen(tx.connection, everybody)
            facts = await look(tx.connection, parts, live, live.every, people, stages, self.clock.now())
        found: dict[str, set[str]] = {segment.segment_id: set() for segment in live.serving}
        for person_id, known in facts.items():
            members: set[SegmentId] = set()
            for segment in live.serving:
                if holds(segment, known, members, Evaluation(known.values)):
                    members.add(segment.segment_id)
                    found[segment.segment_id].add(person_id)
        return found

    async def as_told(self) -> dict[str, set[str]]:
        """Who is in which segment to those who only hear what is told: of two words the higher revision counts."""
        told: list[SegmentEntered | SegmentLeft] = [
            *await self.scoring.told(SegmentEntered),
            *await self.scoring.told(SegmentLeft),
        ]
        revisions = [(one.segment_id, one.lead_id, one.revision) for one in told]
        assert len(set(revisions)) == len(revisions)
        newest = {(one.segment_id, one.lead_id): one for one in sorted(told, key=lambda one: one.revision)}
        found: dict[str, set[str]] = {}
        for (segment_id, lead_id), one in newest.items():
            members = found.setdefault(segment_id, set())
            if isinstance(one, SegmentEntered):
                members.add(lead_id)
        return found
