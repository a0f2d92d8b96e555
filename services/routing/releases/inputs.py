"""What may be told about leads that wait."""

from typing import Annotated

from pydantic import Field

from services.routing.assignments.holds import Why
from shared.web import Input


class ReleaseIn(Input):
    """Try a lead again now. `ask_again` also asks those who passed it by since it came in."""

    ask_again: bool = False


class AssignIn(Input):
    """Who gets the lead, and why."""

    rep_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class ReleaseManyIn(Input):
    """Which leads are tried again: all that wait for this `reason`, as a hold states it, or for one of this kind.

    Leads that are open to be claimed only if that kind is named.
    """

    why: Why | None = None
    reason: Annotated[str, Field(min_length=1, max_length=2_000)] | None = None
