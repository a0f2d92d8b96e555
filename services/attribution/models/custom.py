"""Models that users write: a base model, multiplied for the touches that a CEL expression picks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import lcm, prod
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import Field, ValidationInfo, field_validator

from services.attribution.domain import LOOKBACK, Game, Model, Path, TotalsModel, Touch
from services.attribution.models.domain import (
    BUILT_IN,
    HALF_LIFE,
    MILESTONES,
    POSITIONS,
    by_milestones,
    by_position,
    time_decay,
)
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

TotalsBase = Literal["markov", "shapley"]
Base = Literal[
    "first_touch",
    "last_touch",
    "linear",
    "time_decay",
    "last_non_direct",
    "position_based",
    "j_shaped",
    "inverse_j",
    "u_shaped_lead",
    "w_shaped",
    "full_path",
    "participation",
    "markov",
    "shapley",
]
SHARES_OF_POSITIONS = ("first", "middle", "last")
SHARES_OF_MILESTONES = ("first", "lead", "deal", "close", "rest")
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
_OF_KIND = frozenset(("touch", name) for name in ("type", "channel", "source", "medium", "campaign", "content", "page"))
STORE = DocumentStore("attribution_model")
ENGAGED = "engaged"
"""The custom model that ships: what people did themselves counts for more than what was sent to them."""

_SCALE = 10**6


class Multiplier(Input):
    """Multiplies the weight of the touches for which `when` holds; 0 takes them out."""

    when: str
    multiply: Annotated[Decimal, Field(ge=0, le=1_000, decimal_places=6)]


class ModelDocument(Input):
    """A custom model. `lookback_days` null means that touches of any age may earn.

    `weights` are the shares of positions (`first`, `middle`, `last`; also as a list of three) or of milestones
    (`first`, `lead`, `deal`, `close`, `rest`), for bases that have such; one that is left out is zero, and only their
    proportions count. `order` goes with `markov`, `game` with `shapley`: these give totals by channel, which nothing
    can be multiplied into.
    """

    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    base: Base = "linear"
    half_life_days: Annotated[float, Field(ge=0.001, le=3_650)] = HALF_LIFE / timedelta(days=1)
    lookback_days: Annotated[float, Field(gt=0, le=36_500)] | None = LOOKBACK / timedelta(days=1)
    reset_after_conversion: bool = False
    weights: dict[str, Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9)]] | None = None
    rules: Annotated[list[Multiplier], Field(max_length=50)] = Field(default_factory=list)
    order: Annotated[int, Field(ge=1, le=4)] | None = None
    game: Game | None = None

    @field_validator("weights", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) != len(SHARES_OF_POSITIONS):
            raise ValueError("as a list it has three numbers: first, middle, last")
        return dict(zip(SHARES_OF_POSITIONS, value, strict=True))

    @field_validator("weights")
    @classmethod
    def _shares(cls, value: dict[str, Decimal] | None, info: ValidationInfo) -> dict[str, Decimal] | None:
        base = info.data.get("base")
        if value is None or base is None:
            return value
        names = SHARES_OF_POSITIONS if base in POSITIONS else SHARES_OF_MILESTONES if base in MILESTONES else ()
        if not names:
            raise ValueError(f"{base} has no shares to set; {', '.join([*POSITIONS, *MILESTONES])} have")
        if strange := sorted(value.keys() - set(names)):
            raise ValueError(f"{base} has the shares {', '.join(names)}, and not {', '.join(strange)}")
        if not any(value.values()):
            raise ValueError("one of the shares has to be above zero")
        return value

    @field_validator("lookback_days")
    @classmethod
    def _counted(cls, value: float | None, info: ValidationInfo) -> float | None:
        base, days = info.data.get("base"), LOOKBACK / timedelta(days=1)
        if base in get_args(TotalsBase) and value != days:
            raise ValueError(f"{base} follows from paths that are counted with the default look-back of {days:g} days")
        return value

    @field_validator("order", "game", "rules", "reset_after_conversion")
    @classmethod
    def _fits(cls, value: Any, info: ValidationInfo) -> Any:
        base, name = info.data.get("base"), info.field_name
        if base is None or not value:
            return value
        belongs = {"order": "markov", "game": "shapley"}.get(name or "")
        if belongs and base != belongs:
            raise ValueError(f"goes with the base {belongs}")
        if not belongs and base in get_args(TotalsBase):
            raise ValueError(f"{base} gives totals by channel and does not split single conversions")
        return value


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
    """A custom model that splits single conversions, compiled."""

    model_id: str
    version: int
    title: str
    base: Base
    weights: Callable[[Path], Sequence[int]]
    lookback: timedelta | None
    reset_after_conversion: bool
    rules: tuple[tuple[Expression, int], ...]
    half_life: timedelta
    looks_at_kind_alone: bool

    @property
    def whole(self) -> bool:
        """See `Model`."""
        return BUILT_IN[self.base].whole

    @property
    def rational(self) -> bool:
        """See `Model`."""
        return BUILT_IN[self.base].rational

    def weigh(self, path: Path) -> Sequence[int]:
        """See `Model`. Where the rules leave nothing, every touch weighs the same."""
        weights = self.weights(path)
        if not self.rules:
            return weights
        known: dict[Any, int] = {}  # of a long journey most touches are alike
        factors = []
        for index, weight in enumerate(weights):
            alike = self._alike(path.touches[index]) or index
            if weight and alike not in known:
                known[alike] = self._factor(path, index)
            factors.append(known[alike] if weight else 0)
        multiplied = [weight * factor for weight, factor in zip(weights, factors, strict=True)]
        if any(multiplied):
            return multiplied
        return weights if self.whole else [1] * len(weights)

    def _alike(self, touch: Touch) -> tuple[str | None, ...] | None:
        """What the factor of a touch follows from, where that is neither its place nor its time."""
        if not self.looks_at_kind_alone:
            return None
        return touch.type, touch.channel, touch.source, touch.medium, touch.campaign, touch.content, touch.page

    def _factor(self, path: Path, index: int) -> int:
        """The product of all rules, each counted in millionths whether it holds or not."""
        values = Evaluation(_values(path, index))
        return prod(factor if when.holds(values)[0] else _SCALE for when, factor in self.rules)


def compile_model(model_id: str, version: int, document: ModelDocument) -> Model | TotalsModel:
    """A document as a model. Raises InvalidDocument that points at each expression that cannot work."""
    title = document.title or model_id
    lookback = None if document.lookback_days is None else timedelta(days=document.lookback_days)
    if document.base in get_args(TotalsBase):
        base = cast(TotalsBase, document.base)
        return TotalsModel(
            model_id, title, base, version, document.order or 1, document.game or "subset_rate", lookback
        )
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
    return CustomModel(
        model_id,
        version,
        title,
        document.base,
        _weights(document),
        lookback,
        document.reset_after_conversion,
        tuple(rules),
        timedelta(days=document.half_life_days),
        all(_OF_KIND.issuperset(when.references) for when, _ in rules),
    )


def _weights(document: ModelDocument) -> Callable[[Path], Sequence[int]]:
    """The weights of the base, with what the document sets of them."""
    if document.base == "time_decay":
        half_life = timedelta(days=document.half_life_days)
        return lambda path: time_decay(path, half_life)
    if document.weights is None:
        return BUILT_IN[document.base].weights
    if document.base in POSITIONS:
        positions = _whole(document.weights, SHARES_OF_POSITIONS)
        return lambda path: by_position(path, positions)
    milestones = _whole(document.weights, SHARES_OF_MILESTONES)
    return lambda path: by_milestones(path, milestones)


def _whole(shares: Mapping[str, Decimal], names: Sequence[str]) -> dict[str, int]:
    """Shares as whole numbers in the same proportions."""
    fractions = {name: Fraction(shares.get(name, 0)) for name in names}
    scale = lcm(*(fraction.denominator for fraction in fractions.values()))
    return {name: int(fraction * scale) for name, fraction in fractions.items()}


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
