"""Which touch it was that moved a lead, of those that were heard of together."""

from collections.abc import Sequence
from typing import Any

from services.scoring.engagement.domain import EngagementRules
from services.scoring.people.domain import touch_of
from shared.events import TouchRecorded


def touch_behind(rules: EngagementRules, touches: Sequence[TouchRecorded]) -> dict[str, Any]:
    """The touch that raised a hand, else the one that gave most, else the newest: as it is kept with a stage change."""

    def weight(touch: TouchRecorded) -> tuple[bool, int, Any, str]:
        met = rules.met_by(touch_of(touch))
        raised = any(rule.hand_raise for rule in met)
        return raised, sum(rule.points for rule in met), touch.occurred_at, touch.event_id

    behind = max(touches, key=weight)
    return {
        "event_id": behind.event_id,
        "touch_id": behind.touch_id,
        "type": behind.type,
        "occurred_at": behind.occurred_at.isoformat(),
    }
