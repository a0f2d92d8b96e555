"""The topic table: what each topic carries, who writes it and who reads it."""

from dataclasses import dataclass, field
from types import MappingProxyType

from shared.events._deals import DealChanged, DealRotted, HandoffTaskChanged, LeadHandedOff
from shared.events._decisions import (
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    CreditsChanged,
    EnrolmentEnded,
    EnrolmentStarted,
    ExperimentRuled,
    LeadAssigned,
    MessageClaimed,
    MessageReported,
    MessageSettled,
    PauseAsked,
    PauseEnded,
    SlaBreached,
    SlaKept,
    StepPerformed,
    VariantAssigned,
)
from shared.events._event import Event
from shared.events._leads import (
    AccountChanged,
    ConsentChanged,
    ConsentRequested,
    IdentityLinked,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    OptinRequested,
    PersonKeyCreated,
)
from shared.events._privacy import ErasureReported, ExportAnswered, ExportRequested
from shared.events._requests import AssignmentRequested, LeadUpdateRequested, RepNoticeRequested, WebhookRequested
from shared.events._scores import AccountScored, LeadScored, SegmentEntered, SegmentLeft, StageChanged
from shared.events._touches import (
    ConversionRecorded,
    CostRecorded,
    DeliveryReceived,
    RefundRecorded,
    TouchRecorded,
    TouchWithdrawn,
    VisitorIdentified,
)

DAY_MS = 86_400_000
EVERY_SERVICE = frozenset({"capture", "scoring", "routing", "nurture", "attribution"})
FOREVER = {"cleanup.policy": "delete", "retention.ms": "-1"}


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic. `name` is without the installation's prefix; `outward` says that others than services read it."""

    name: str
    carries: tuple[type[Event], ...]
    writers: frozenset[str]
    readers: frozenset[str]
    config: dict[str, str] = field(default_factory=lambda: dict(FOREVER))
    outward: bool = False


TOPICS = (
    Topic(
        name="keys",
        carries=(PersonKeyCreated,),
        writers=frozenset({"capture"}),
        readers=frozenset({"capture", "scoring", "routing", "nurture"}),
        config={"cleanup.policy": "compact", "max.compaction.lag.ms": str(DAY_MS)},
    ),
    Topic(
        name="deliveries",
        carries=(DeliveryReceived, VisitorIdentified),
        writers=frozenset({"capture"}),
        readers=frozenset({"capture"}),
        config={"cleanup.policy": "delete", "retention.ms": str(14 * DAY_MS)},
    ),
    Topic(
        name="leads",
        carries=(
            LeadCaptured,
            IdentityLinked,
            LeadMerged,
            LeadUnmerged,
            ConsentChanged,
            ConsentRequested,
            OptinRequested,
            LeadErased,
        ),
        writers=frozenset({"capture", "nurture"}),
        readers=frozenset({"capture", "scoring", "routing", "nurture", "attribution"}),
    ),
    Topic(
        name="accounts",
        carries=(AccountChanged,),
        writers=frozenset({"capture"}),
        readers=frozenset({"capture", "scoring", "routing", "nurture", "attribution"}),
    ),
    Topic(
        name="touches",
        carries=(TouchRecorded, TouchWithdrawn),
        writers=frozenset({"capture", "routing", "nurture"}),
        readers=frozenset({"scoring", "routing", "nurture", "attribution"}),
    ),
    Topic(
        name="conversions",
        carries=(ConversionRecorded, RefundRecorded),
        writers=frozenset({"capture", "routing"}),
        readers=frozenset({"nurture", "attribution"}),
    ),
    Topic(
        name="costs",
        carries=(CostRecorded,),
        writers=frozenset({"capture"}),
        readers=frozenset({"attribution"}),
    ),
    Topic(
        name="scores",
        carries=(LeadScored, StageChanged),
        writers=frozenset({"scoring"}),
        readers=frozenset({"routing", "nurture", "attribution"}),
    ),
    Topic(
        name="segments",
        carries=(SegmentEntered, SegmentLeft),
        writers=frozenset({"scoring"}),
        readers=frozenset({"routing", "nurture"}),
    ),
    Topic(
        name="account_scores",
        carries=(AccountScored,),
        writers=frozenset({"scoring"}),
        readers=frozenset(),
        outward=True,
    ),
    Topic(
        name="assignments",
        carries=(LeadAssigned, AssignmentAccepted, AssignmentRejected, AssignmentExpired, SlaKept, SlaBreached),
        writers=frozenset({"routing"}),
        readers=frozenset({"scoring", "routing", "nurture", "attribution"}),
    ),
    Topic(
        name="deals",
        carries=(DealChanged, DealRotted, LeadHandedOff, HandoffTaskChanged),
        writers=frozenset({"routing"}),
        readers=frozenset({"scoring", "routing", "nurture", "attribution"}),
    ),
    Topic(
        name="messages",
        carries=(
            EnrolmentStarted,
            EnrolmentEnded,
            MessageClaimed,
            MessageSettled,
            VariantAssigned,
            ExperimentRuled,
            StepPerformed,
            PauseAsked,
            PauseEnded,
        ),
        writers=frozenset({"nurture"}),
        readers=frozenset({"nurture"}),
    ),
    Topic(
        name="message_reports",
        carries=(MessageReported,),
        writers=frozenset({"capture"}),
        readers=frozenset({"nurture"}),
    ),
    Topic(
        name="requests",
        carries=(LeadUpdateRequested, RepNoticeRequested, WebhookRequested, AssignmentRequested),
        writers=frozenset({"nurture"}),
        readers=frozenset({"capture", "routing"}),
    ),
    Topic(
        name="credits",
        carries=(CreditsChanged,),
        writers=frozenset({"attribution"}),
        readers=frozenset({"nurture"}),
        outward=True,
    ),
    Topic(
        name="erasures",
        carries=(ErasureReported,),
        writers=EVERY_SERVICE,
        readers=frozenset({"capture"}),
    ),
    Topic(
        name="exports",
        carries=(ExportRequested, ExportAnswered),
        writers=EVERY_SERVICE,
        readers=EVERY_SERVICE,
        config={"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)},
    ),
)
TOPIC_OF = MappingProxyType({kind: topic.name for topic in TOPICS for kind in topic.carries})
EVENT_OF = MappingProxyType({kind.ce_type: kind for topic in TOPICS for kind in topic.carries})
WATERMARK_TYPE = "throughline.watermark.v1"
