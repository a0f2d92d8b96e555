"""The scoring document: what may stand in it, and the compiled rule set that it becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal, get_args

import orjson
from pydantic import Field

from services.scoring.accounts.domain import AccountRules, FitWay, Way
from services.scoring.decisions.inputs import RecyclingIn
from services.scoring.engagement.domain import EngagementRules
from services.scoring.engagement.domain import Rule as EngagementRule
from services.scoring.fit.domain import Fit, FitRules
from services.scoring.fit.domain import Rule as FitRule
from services.scoring.stages.domain import Rule as StageRule
from services.scoring.stages.domain import StageRules
from shared.errors import FieldError
from shared.events import Stage
from shared.rules import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    OPEN,
    TEXT,
    TEXTS,
    Expression,
    ExpressionFault,
    InvalidDocument,
    Vocabulary,
    compile_expression,
)
from shared.web import Input

DAY = 86_400_000_000
EVENT = Vocabulary(
    {
        "event": {
            **dict.fromkeys(("type", "origin", "channel", "source", "medium", "campaign", "content"), TEXT),
            **dict.fromkeys(("page", "path", "referrer_host"), TEXT),
            "automated": BOOLEAN,
            "properties": OPEN,
        }
    }
)
PERSONAL = ("email", "email_domain", "phone", "first_name", "last_name", "title", "attributes")
LEAD = {
    **dict.fromkeys(("company", "country", "region", "industry", "use_case", "origin"), TEXT),
    **dict.fromkeys(("employees", "annual_revenue"), INTEGER),
    **dict.fromkeys(("email", "email_domain", "phone", "first_name", "last_name", "title"), TEXT),
    "free_mail": BOOLEAN,
    "attributes": OPEN,
    "consent": dict.fromkeys(("email", "sms", "whatsapp"), TEXT),
}
PROFILE = Vocabulary({"lead": LEAD})
STANDING = {
    "lead": LEAD,
    "score": {
        **dict.fromkeys(("engagement", "fit", "total"), NUMBER),
        "grade": TEXT,
        "hand_raise": BOOLEAN,
    },
    "stage": TEXT,
    "touch_types": TEXTS,
    "assignment": {"state": TEXT},
    "deal": {"status": TEXT},
}
RuleId = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
Points = Field(ge=-10_000, le=10_000)


class EngagementRuleIn(Input):
    """Points for each touch that meets `when`, an expression over `event`."""

    id: str = RuleId
    when: str
    points: int = Points
    group: str | None = None
    per_day: int | None = Field(default=None, ge=1, le=10_000)
    once: bool = False
    half_life_days: float | None = Field(default=None, ge=0.00001, le=36_500, allow_inf_nan=False)
    hand_raise: bool = False
    description: str | None = None


class EngagementIn(Input):
    """Points for what a person did."""

    half_life_days: float = Field(default=30, ge=0.00001, le=36_500, allow_inf_nan=False)
    limit: int = Field(default=100, ge=1, le=1_000_000)
    groups: dict[str, int] = Field(default_factory=dict)
    rules: list[EngagementRuleIn] = Field(default_factory=list, max_length=500)


class NamedScoreIn(EngagementIn):
    """A score beside the main one: points for what a person did, counted, limited and decaying for itself."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    title: str | None = Field(default=None, max_length=200)


class FitRuleIn(Input):
    """Points for a profile that meets `when`, an expression over `lead`."""

    id: str = RuleId
    when: str
    points: int = Points
    description: str | None = None


class GradesIn(Input):
    """The fewest fit points of each grade; D is all below, F whoever `exclude` names."""

    A: int = 70
    B: int = 50
    C: int = 30


class FitIn(Input):
    """Points for who a person is."""

    rules: list[FitRuleIn] = Field(default_factory=list, max_length=500)
    exclude: str | None = None
    grades: GradesIn = GradesIn()


class AccountIn(Input):
    """How the people of an account are added up; see `accounts.domain`."""

    engagement: Way = "sum"
    top: int = Field(default=5, ge=1, le=10_000)
    limit: int = Field(default=1_000, ge=1, le=1_000_000)
    engaged_from: float = Field(default=10, ge=0.01, le=1_000_000, allow_inf_nan=False)
    min_people: int = Field(default=0, ge=0, le=10_000)
    children: bool = True
    fit: FitWay = "best"


class StageIn(Input):
    """A stage counts while `when` holds, and with `leave_when` until that holds; the last that counts is taken."""

    stage: Stage
    when: str
    leave_when: str | None = None
    description: str | None = None


class ScoringDocument(Input):
    """How leads are scored."""

    engagement: EngagementIn
    scores: list[NamedScoreIn] = Field(default_factory=list, max_length=20)
    fit: FitIn = FitIn()
    account: AccountIn = AccountIn()
    stages: list[StageIn] = Field(default_factory=list, max_length=len(get_args(Stage)))
    recycling: RecyclingIn = RecyclingIn()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A version of the scoring document, ready to judge. `titles` are those of the named scores."""

    version: int
    engagement: EngagementRules
    fit: FitRules
    stages: StageRules
    nobody: Fit
    titles: Mapping[str, str]
    accounts: AccountRules

    @property
    def reads_personal(self) -> bool:
        """Whether fit or a stage depends on what is personal in a profile."""
        paths = {path for expression in self.fit.expressions for path in expression.references}
        return any(path[1] in PERSONAL for path in paths) or self.stages_read_personal

    @property
    def stages_read_personal(self) -> bool:
        """Whether a stage depends on what is personal in a profile."""
        return any(name in PERSONAL for name in self.stages.lead_fields)


def shipped_document() -> dict[str, Any]:
    """The document that a new installation starts with."""
    document: dict[str, Any] = orjson.loads(resources.files(__package__).joinpath("default.json").read_bytes())
    return document


def rule_set(version: int, document: dict[str, Any]) -> RuleSet:
    """Compile a document.

    Raises pydantic.ValidationError for its shape and InvalidDocument for its expressions, each fault with its pointer.
    """
    parsed = ScoringDocument.model_validate(document)
    faults = _shape_faults(parsed)

    def expression(source: str, vocabulary: Vocabulary, pointer: str) -> Expression | None:
        try:
            return compile_expression(source, vocabulary, pointer)
        except ExpressionFault as fault:
            faults.append(FieldError(fault.pointer, fault.detail, fault.column))
            return None

    named = {
        score.id: _engagement(score, None, expression, f"/scores/{index}", score.id)
        for index, score in enumerate(parsed.scores)
    }
    engagement_rules = _engagement(parsed.engagement, parsed.recycling, expression, named=named)
    fit_rules = _fit(parsed.fit, expression)
    standing = Vocabulary({**STANDING, "scores": dict.fromkeys(named, NUMBER)})
    for index, score_id in enumerate(named):
        expression(f"scores.{score_id} >= 0.0", standing, f"/scores/{index}/id")  # must not be a word of the language
    stage_rules = _stages(parsed, engagement_rules, standing, expression)
    if faults:
        raise InvalidDocument(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults)
    titles = {score.id: score.title or score.id for score in parsed.scores}
    accounts = AccountRules(**parsed.account.model_dump())
    return RuleSet(version, engagement_rules, fit_rules, stage_rules, fit_rules.judge({}), titles, accounts)


Compile = Callable[[str, Vocabulary, str], Expression | None]


def _engagement(  # noqa: PLR0913  # what a score is made of
    parsed: EngagementIn,
    recycling: RecyclingIn | None,
    compiled: Compile,
    place: str = "/engagement",
    score_id: str = "",
    named: Mapping[str, EngagementRules] | None = None,
) -> EngagementRules:
    rules = []
    for index, rule in enumerate(parsed.rules):
        if when := compiled(rule.when, EVENT, f"{place}/rules/{index}/when"):
            half_life = round((rule.half_life_days or parsed.half_life_days) * DAY)
            rules.append(
                EngagementRule(
                    rule.id,
                    when,
                    rule.points,
                    half_life,
                    rule.group or "",
                    rule.per_day,
                    rule.once,
                    rule.hand_raise,
                    score_id,
                )
            )
    contacts = recycling.recycling() if recycling is not None else None
    return EngagementRules(
        rules,
        parsed.groups,
        parsed.limit,
        named,
        attempts=contacts.attempt_types if contacts else frozenset(),
        connections=contacts.connected_types if contacts else frozenset(),
    )


def _fit(parsed: FitIn, compiled: Compile) -> FitRules:
    rules = []
    for index, rule in enumerate(parsed.rules):
        if when := compiled(rule.when, PROFILE, f"/fit/rules/{index}/when"):
            rules.append(FitRule(rule.id, when, rule.points))
    exclude = compiled(parsed.exclude, PROFILE, "/fit/exclude") if parsed.exclude is not None else None
    return FitRules(rules, exclude, parsed.grades.model_dump())


def _stages(
    parsed: ScoringDocument, engagement_rules: EngagementRules, standing: Vocabulary, compiled: Compile
) -> StageRules:
    rules = []
    for index, rule in enumerate(parsed.stages):
        when = compiled(rule.when, standing, f"/stages/{index}/when")
        leave = None
        if rule.leave_when is not None:
            leave = compiled(rule.leave_when, standing, f"/stages/{index}/leave_when")
        if when:
            rules.append(StageRule(rule.stage, when, leave))
    return StageRules(rules, engagement_rules, parsed.recycling.recycling())


def _shape_faults(parsed: ScoringDocument) -> list[FieldError]:
    """What the types cannot say: unknown groups, ids used twice, points of nothing, grades out of order."""
    faults = [
        *_engagement_faults(parsed.engagement, "/engagement"),
        *_twice([score.id for score in parsed.scores], "/scores", "id"),
        *_twice([rule.id for rule in parsed.fit.rules], "/fit/rules", "id"),
        *_twice([rule.stage for rule in parsed.stages], "/stages", "stage"),
    ]
    for index, score in enumerate(parsed.scores):
        faults += _engagement_faults(score, f"/scores/{index}")
        faults += [
            FieldError(f"/scores/{index}/rules/{place}/hand_raise", "a hand is raised by a rule of engagement")
            for place, rule in enumerate(score.rules)
            if rule.hand_raise
        ]
    grades = parsed.fit.grades
    if not grades.A > grades.B > grades.C:
        faults.append(FieldError("/fit/grades", "A needs more points than B, and B more than C"))
    return faults


def _engagement_faults(parsed: EngagementIn, place: str) -> list[FieldError]:
    faults = _twice([rule.id for rule in parsed.rules], f"{place}/rules", "id")
    for name, cap in parsed.groups.items():
        if not name:
            faults.append(FieldError(f"{place}/groups", "a group has a name"))
        if cap <= 0:
            faults.append(FieldError(f"{place}/groups/{name}", "a group's limit is more than 0"))
    for index, rule in enumerate(parsed.rules):
        pointer = f"{place}/rules/{index}"
        if rule.group is not None and rule.group not in parsed.groups:
            faults.append(FieldError(f"{pointer}/group", f"there is no group {rule.group}"))
        if rule.points == 0 and (rule.per_day is not None or rule.once):
            faults.append(FieldError(f"{pointer}/points", "a limit on 0 points limits nothing"))
        if rule.per_day is not None and rule.points and rule.per_day / abs(rule.points) > 1_000:
            faults.append(FieldError(f"{pointer}/per_day", "a day pays at most 1,000 touches of a rule"))
    return faults


def _twice(names: Sequence[str], pointer: str, field: Literal["id", "stage"]) -> list[FieldError]:
    return [
        FieldError(f"{pointer}/{index}/{field}", f"{name} is used before")
        for index, name in enumerate(names)
        if name in names[:index]
    ]
