"""What may be said about recycling in the scoring document."""

from typing import Annotated

from pydantic import Field

from services.scoring.decisions.domain import Recycling
from shared.web import Input

TouchType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
_SHIPPED = Recycling()


class RecyclingIn(Input):
    """When a lead is set aside by itself, and for how many days; the types of touches that tell of attempts."""

    after_days: int = Field(default=_SHIPPED.after_days, ge=1, le=1_095)
    attempts: int = Field(default=_SHIPPED.attempts, ge=1, le=100)
    working_days: int = Field(default=_SHIPPED.working_days, ge=0, le=260)
    attempt_types: list[TouchType] = Field(default=sorted(_SHIPPED.attempt_types), max_length=50)
    connected_types: list[TouchType] = Field(default=sorted(_SHIPPED.connected_types), max_length=50)

    def recycling(self) -> Recycling:
        """As stages use it."""
        return Recycling(
            self.after_days,
            self.attempts,
            self.working_days,
            frozenset(self.attempt_types),
            frozenset(self.connected_types),
        )
