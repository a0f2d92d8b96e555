"""An export as its callers see it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from shared.ids import LeadId

State = Literal["running", "done"]


class ExportOut(BaseModel):
    """What every service holds about a person: `held`, by service and table, once all have answered.

    Each answers with what it has read by then. `lead_ids` are all ids of the person but those of browsers.
    """

    model_config = ConfigDict(frozen=True)

    export_id: str
    lead_id: LeadId
    lead_ids: list[LeadId]
    state: State
    services: dict[str, State]
    requested_at: datetime
    expires_at: datetime
    held: dict[str, Any] | None = None
