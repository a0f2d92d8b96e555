"""From a cell of a report about paths to the conversions behind it, which count there whole."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from services.attribution.paths import queries
from services.attribution.paths.domain import Sequenced, Wanted
from services.attribution.paths.queries import Way
from services.attribution.reports.asking import Asked, NameQuery, asked_plainly, asked_types
from services.attribution.reports.drilling import Behind, address, days, page_of, place_after
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page

PATH = "/v1/reports/paths/conversions"
CURSOR = "path-conversions"
MOST = 2**31 - 1
SequenceId = Annotated[int | None, Query(ge=-(2**63), le=2**63 - 1, description="As in the `drill_url` of a sequence")]
Number = Annotated[int | None, Query(ge=0, le=MOST)]


class OnTheWay(Behind):
    """A conversion, by how many touches, and so many whole days after the first of them; null: there was none.

    It counts whole: `share` is 1, `credited_minor` its value.
    """

    share: float = 1.0
    touches: int
    days: int | None


@dataclass(frozen=True, slots=True)
class Links:
    """Makes the addresses of the conversions behind the cells of one report."""

    wanted: Wanted

    def to(self, **cell: str | int) -> str:
        """The address of the conversions in a cell."""
        wanted = self.wanted
        named = [*cell.items(), *days(wanted.period)]
        return address(PATH, named, wanted.period.zone.key, wanted.currency, wanted.types)

    def to_sequence(self, key_id: int, subject: Sequenced) -> str:
        """The address of the conversions that came by a sequence."""
        return self.to(sequence_id=key_id) if subject == "path" else self.to(sequence_id=key_id, collapse="true")

    def to_lag(self, days: int | None) -> str:
        """The address of the conversions so many days after the first touch; None: without a touch."""
        return self.to(touches=0) if days is None else self.to(days=days)


def router(runtime: Runtime) -> APIRouter:
    """The endpoint of the conversions behind a cell."""
    made = Endpoints()

    @made.get(PATH)
    async def conversions(  # noqa: PLR0913  # what a cell can be named by
        common: Annotated[Asked, Depends(asked_plainly)],
        types: Annotated[tuple[str, ...], Depends(asked_types)],
        sequence_id: SequenceId = None,
        collapse: Annotated[bool, Query(description="Whether a run of one channel is one visit")] = False,
        touches: Annotated[Number, Query(description="So many touches on the path")] = None,
        days: Annotated[Number, Query(description="So many whole days after the first touch")] = None,
        assisted_by: Annotated[NameQuery | None, Query(description="This channel on any touch but the last")] = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Page[OnTheWay]:
        """The conversions behind a cell of a report about paths, the newest first."""
        subject: Sequenced = "route" if collapse else "path"
        way = Way(subject, sequence_id, touches, days, assisted_by)
        after = place_after(runtime.secrets, CURSOR, cursor)
        wanted = Wanted(common.period, types, common.currency)
        async with runtime.database.reading() as connection:
            found = await queries.conversions_by(connection, wanted, way, after=after, limit=limit + 1)
        return page_of(runtime.secrets, CURSOR, found, limit, lambda row: OnTheWay(**row))

    return made
