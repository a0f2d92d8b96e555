"""Facts about a person's rights: what an erasure did, and what is known of somebody who asks."""

from typing import ClassVar

from pydantic import Field

from shared.events._event import Event
from shared.ids import LeadId


class ErasureReported(Event):
    """What one service did when one id of a person was erased: how many rows of what it erased and kept, and why.

    An erasure is done when every service has reported for every id. Told once for each receipt, service and id.
    """

    ce_type: ClassVar[str] = "throughline.erasure.reported.v1"
    waits_behind_parked: ClassVar[bool] = False

    receipt_id: str
    service: str
    erased: dict[str, int]
    kept: dict[str, int] = Field(default_factory=dict)
    why_kept: dict[str, str] = Field(default_factory=dict)


class ExportRequested(Event):
    """Somebody wants to know all that is known of a person: each service tells its part.

    `lead_ids` are their ids, without the browsers they used: to whom those belonged when, every service knows.
    """

    ce_type: ClassVar[str] = "throughline.export.requested.v1"
    waits_behind_parked: ClassVar[bool] = False

    export_id: str
    lead_ids: list[LeadId]


class ExportAnswered(Event):
    """One chunk of one service's part of an export: chunk `chunk` of `chunks`, counted from 0.

    `personal` opens to base64 text; or that text is `plain`, where nothing of the part is personal. The texts of all
    chunks in their order are the part as JSON, compressed with zlib.
    """

    ce_type: ClassVar[str] = "throughline.export.answered.v1"
    waits_behind_parked: ClassVar[bool] = False

    export_id: str
    service: str
    chunk: int = 0
    chunks: int = 1
    plain: str | None = None
    personal: str | None = None
