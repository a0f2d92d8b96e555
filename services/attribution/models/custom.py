"""Models that users write: a base model, multiplied for the touches that a CEL expression picks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field

from services.attribution.domain import LOOKBACK, Path
from services.attribution.models.domain import BUILT_IN, HALF_LIFE, time_decay
from shared.rules import (
    INTEGER,
    NUMBER,
    TEXT,
    TEXTS,
    TIME,
    DocumentStore,
    Evaluation,
    Expression,
    ExpressionFault,
    Vocabulary,
    compile_expression,
    invalid_document,
    present,
)
from shared.web import Input

Base = Literal[
    "first_touch",
    "last_touch",
    "linear",
    "time_decay",
    "last_non_direct",
    "position_based",
    "w_shaped",
    "full_path",
]
VOCABULARY = Vocabulary(
    {
        "touch": {
            "type": TEXT,
            "channel": TEXT,
            "source": TEXT,
            "medium": TEXT,
            "campaign": TEXT,
            "content": TEXT,
            "page": TEXT,
            "occurred_at": TIME,
        },
        "index": INTEGER,
        "count": INTEGER,
        "from_end": INTEGER,
        "age_days": NUMBER,
        "milestones": TEXTS,
    }
)
STORE = DocumentStore("attribution_model")
ENGAGED = "engaged"
"""The custom model that ships: what people did themselves counts for more than what was sent to them."""

_SCALE = 10**6


class Multiplier(Input):
    """Multiplies the weight of the touches for which `when` holds; 0 takes them out."""

    when: str
    multiply: Annotated[Decimal, Field(ge=0, le=1_000, decimal_places=6)]


class ModelDocument(Input):
    """A custom model. `lookback_days` null means that touches of any age may earn."""

    title: Annotated[str, Field(min_length=1, max_length=200)]
    base: Base = "linear"
    half_life_days: Annotated[float, Field(gt=0, le=3_650)] = HALF_LIFE / timedelta(days=1)
    lookback_days: Annotated[float, Field(gt=0, le=36_500)] | None = LOOKBACK / timedelta(days=1)
    rules: Annotated[list[Multiplier], Field(max_length=50)] = Field(default_factory=list)


DEFAULT_MODELS: dict[str, dict[str, Any]] = {
    ENGAGED: {
        "title": "Engaged: what the lead did outweighs what was sent",
        "base": "linear",
        "lookback_days": 90,
        "rules": [
            {
                "when": "touch.type in ['demo_requested', 'meeting_booked', 'meeting_held']",
                "multiply": 4,
            },
            {
                "when": (
                    "touch.type in ['form_submitted', 'content_downloaded', 'webinar_registered', 'webinar_attended', "
                    "'email_replied', 'sms_replied', 'chat_started', 'call_connected', 'store_visited']"
                ),
                "multiply": 2,
            },
            {"when": "touch.type == 'email_opened'", "multiply": 0.25},
            {"when": "touch.type in ['unsubscribed', 'complained']", "multiply": 0},
        ],
    }
}


@dataclass(frozen=True, slots=True)
class CustomModel:
    """A custom model, compiled."""

    model_id: str
    version: int
    title: str
    base: Base
    half_life: timedelta
    lookback: timedelta | None
    rules: tuple[tuple[Expression, int], ...]
    reset_after_conversion: bool = False
    whole: bool = False

    def weigh(self, path: Path) -> Sequence[int]:
        """See `Model`. Where the rules leave nothing, every touch weighs the same."""
        weights = time_decay(path, self.half_life) if self.base == "time_decay" else BUILT_IN[self.base].weigh(path)
        factors = [self._factor(path, index) if weight else 0 for index, weight in enumerate(weights)]
        weights = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
        return weights if any(weights) else [1] * len(weights)

    def _factor(self, path: Path, index: int) -> int:
        """The product of all rules, each counted in millionths whether it holds or not."""
        if not self.rules:
            return 1
        values = Evaluation(_values(path, index))
        return prod(factor if when.holds(values)[0] else _SCALE for when, factor in self.rules)


def compile_model(model_id: str, version: int, document: ModelDocument) -> CustomModel:
    """A document as a model. Raises InvalidDocument that points at each expression that cannot work."""
    rules: list[tuple[Expression, int]] = []
    faults: list[ExpressionFault] = []
    for index, rule in enumerate(document.rules):
        try:
            when = compile_expression(rule.when, VOCABULARY, f"/rules/{index}/when")
            rules.append((when, int(rule.multiply * _SCALE)))
        except ExpressionFault as fault:
            faults.append(fault)
    if faults:
        raise invalid_document(faults)
    lookback = None if document.lookback_days is None else timedelta(days=document.lookback_days)
    half_life = timedelta(days=document.half_life_days)
    return CustomModel(
        model_id,
        version,
        document.title,
        document.base,
        half_life,
        lookback,
        tuple(rules),
    )


def _values(path: Path, index: int) -> dict[str, Any]:
    touch = path.touches[index]
    return {
        "touch": present(
            type=touch.type,
            channel=touch.channel,
            source=touch.source,
            medium=touch.medium,
            campaign=touch.campaign,
            content=touch.content,
            page=touch.page,
            occurred_at=touch.occurred_at,
        ),
        "index": index + 1,
        "count": len(path.touches),
        "from_end": len(path.touches) - index,
        "age_days": (path.at - touch.occurred_at) / timedelta(days=1),
        "milestones": list(path.milestones(index)),
    }
