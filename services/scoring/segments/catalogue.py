"""The segments, compiled: what a version says never changes, so it is read and compiled once in a process."""

from services.scoring.segments import queries
from services.scoring.segments.document import Segment, compile_segment
from services.scoring.segments.domain import Live
from services.scoring.segments.queries import KIND, Kept
from shared.db import Connection
from shared.ids import SegmentId
from shared.rules import CompiledVersions, DocumentStore

SEGMENTS = DocumentStore(KIND)
_KEPT = 2_000
_NOTHING = Live((), ())


class Catalogue:
    """Segments by id and version, and those that are live."""

    def __init__(self) -> None:
        self._versions = CompiledVersions(
            lambda segment_id, version, document: compile_segment(SegmentId(segment_id), version, document), _KEPT
        )
        self._live: tuple[tuple[tuple[SegmentId, int | None, int | None], ...], Live] = ((), _NOTHING)

    async def segment(self, connection: Connection, segment_id: SegmentId, version: int) -> Segment:
        """One version of a segment; raises NoSuchVersion."""
        return await self._versions.get(connection, SEGMENTS, segment_id, version)

    async def live(self, connection: Connection) -> Live:
        """What serves and what is being built, as it stays to the end of the transaction.

        Where there is no segment at all, one look at an empty table is all that it costs.
        """
        if not await queries.segments_at_work(connection):
            return _NOTHING
        await queries.share_versions(connection)
        rows = await queries.segments_at_work(connection)
        key = tuple((row.segment_id, row.serving, row.building) for row in rows)
        if self._live[0] != key:
            self._live = (key, await self._compile(connection, rows))
        return self._live[1]

    async def _compile(self, connection: Connection, rows: list[Kept]) -> Live:
        serving = [await self.segment(connection, row.segment_id, row.serving) for row in rows if row.serving]
        building = [await self.segment(connection, row.segment_id, row.building) for row in rows if row.building]
        return Live(serving, building)
