"""Facts about scores: what leads and accounts are worth, stages, segments."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from shared.events._event import Event, Moment
from shared.ids import AccountId, SegmentId

Stage = Literal["subscriber", "lead", "mql", "sal", "sql", "opportunity", "customer", "disqualified", "recycled"]
Grade = Literal["A", "B", "C", "D", "F"]


class LeadScored(Event):
    """A lead's scores after they changed: a whole snapshot, the highest `revision` wins.

    `engagement` is exact at `occurred_at` and decays after it; `total` is engagement plus fit. `scores` are those that
    the scoring document names beside them, by id; absent when it names none.
    """

    ce_type: ClassVar[str] = "throughline.lead.scored.v1"
    calm: ClassVar[bool] = True

    revision: int
    engagement: float
    fit: int
    total: float
    grade: Grade
    stage: Stage
    rules_version: int
    scores: dict[str, float] | None = None


class AccountScored(Event):
    """An account's scores after they changed: a whole snapshot, the highest `revision` wins.

    `lead_id` holds the account's id. `engagement` is exact at `occurred_at` and decays after it; `people` are those of
    the account, `engaged_people` those of them who count as engaged. Of one merged into another all is 0.
    """

    ce_type: ClassVar[str] = "throughline.account.scored.v1"

    account_id: AccountId
    revision: int
    engagement: float
    fit: int
    total: float
    grade: Grade
    people: int
    engaged_people: int
    rules_version: int


class SegmentMove(BaseModel):
    """A segment entered, or left (`member` false), as `SegmentEntered` and `SegmentLeft` tell it too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    segment_id: SegmentId
    revision: int
    member: bool


class StageChanged(Event):
    """A lead entered another lifecycle stage; the highest `revision` wins. Carries the scores that decided.

    `profile_revision` is that of the newest `LeadCaptured` of the person that scoring had read (0: none), so that who
    decides upon the stage can wait for that profile. `segments` are those entered and left at the same moment: of these
    too whoever decides upon the stage would hear later. `move` says what kind of change it is: `advanced`, `fell_back`,
    `disqualified`, `requalified`, `recycled`, `returned` or `set_by_hand`; `until` when a lead that was set aside
    returns at the latest. `quiet` is set when the stage follows from a change of the rules that is not to be acted
    upon.
    """

    ce_type: ClassVar[str] = "throughline.stage.changed.v1"

    revision: int
    stage: Stage
    previous: Stage | None = None
    reason: str
    engagement: float
    fit: int
    total: float
    grade: Grade
    rules_version: int
    profile_revision: int | None = None
    segments: tuple[SegmentMove, ...] = ()
    scores: dict[str, float] | None = None
    move: str | None = None
    until: Moment | None = None
    quiet: bool | None = None


class SegmentEntered(Event):
    """A person is in a segment from now on; of entering and leaving the highest `revision` wins.

    `initial`: because the segment was saved, changed or deleted, not because of anything that the person did.
    """

    ce_type: ClassVar[str] = "throughline.segment.entered.v1"

    segment_id: SegmentId
    segment_version: int
    revision: int
    initial: bool = False


class SegmentLeft(Event):
    """A person is no more in a segment; see `SegmentEntered`."""

    ce_type: ClassVar[str] = "throughline.segment.left.v1"

    segment_id: SegmentId
    segment_version: int
    revision: int
    initial: bool = False
