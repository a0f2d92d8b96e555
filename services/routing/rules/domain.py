"""Routing rules that make sense: a document compiled, or every fault of it with its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.routing.people import domain as people
from services.routing.reps import domain as reps
from services.routing.rules.document import (
    Audience,
    CatchAllShape,
    OnBreach,
    QueueShape,
    ReEntryShape,
    RoutingDocument,
    RuleShape,
    SlaShape,
    Strategy,
    TerritoryShape,
)
from services.routing.rules.territories import NO_TERRITORIES, Territories, territories_of
from shared.errors import FieldError
from shared.ids import RepId
from shared.rules import TEXT, Expression, ExpressionFault, InvalidDocument, Vocabulary, compile_expression

RE_ENTRY = "re-entry"
CATCH_ALL = "catch-all"
BY_HAND = "by-hand"
PROFILE = "profile"
RESERVED = frozenset({RE_ENTRY, CATCH_ALL, BY_HAND, PROFILE})
MAY_FIND_NOBODY: frozenset[Strategy] = frozenset({"account_owner", "deal_owner", "previous_owner"})
ENTRY = Vocabulary(people.FIELDS)
CASE = Vocabulary({**people.FIELDS, "territory": TEXT})
MATCH = Vocabulary({**people.FIELDS, "territory": TEXT, "rep": reps.FIELDS})


@dataclass(frozen=True, slots=True)
class Escalation:
    """Who is told at a share of the time, in per cent, and whether the lead goes to another rep then."""

    at: int
    notify: tuple[Audience, ...] = ()
    reroute: bool = False


@dataclass(frozen=True, slots=True)
class Sla:
    """Working minutes until a lead must be accepted, and until the first touch; None: no such limit.

    `remind_at` are per cent of that; what is None is as `sla/domain.py` has it.
    """

    accept_minutes: int | None = None
    touch_minutes: int | None = None
    remind_at: tuple[int, ...] | None = None
    on_breach: OnBreach | None = None
    escalate: tuple[Escalation, ...] | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """Reps who share leads: by name with their weights (None: the rep's own), or those for whom `who` holds.

    `makes_up_limits` says that members at their own limit go on earning, `monthly` that the books end with the month.
    With `claim` a lead is open to all of them first, for so many working minutes of whoever works first.
    """

    queue_id: str
    members: Mapping[RepId, int | None] | None = None
    who: Expression | None = None
    makes_up_limits: bool = False
    monthly: bool = False
    claim: bool = False
    claim_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the rules; the catch-all is one whose `when` is absent."""

    rule_id: str
    strategy: Strategy
    queue: Queue
    when: Expression | None = None
    who: Expression | None = None
    available: bool = False
    sla: Sla = Sla()


@dataclass(frozen=True, slots=True)
class ReEntry:
    """How long a lead that comes back goes to the rep who took it last, and (None: always) when."""

    days: int
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """One version of the rules, compiled. `queues` are those of the document and those that rules without one make.

    Without `re_entry` a lead that comes back always goes to its rep first.
    """

    version: int
    route_when: Expression
    rules: tuple[Rule, ...]
    catch_all: Rule
    queues: Mapping[str, Queue] = field(default_factory=dict)
    re_entry: ReEntry | None = None
    territories: Territories = NO_TERRITORIES

    @property
    def in_order(self) -> tuple[Rule, ...]:
        """All rules as they are tried."""
        return (*self.rules, self.catch_all)

    @property
    def queue_ids(self) -> frozenset[str]:
        """The queues that leads can get into."""
        return frozenset(rule.queue.queue_id for rule in self.in_order)


def sla_of_queue(rules: Rules, rule_id: str) -> Sla:
    """The limits of a rule, as far as there is one of this name."""
    return next((rule.sla for rule in rules.in_order if rule.rule_id == rule_id), Sla())


def compile_rules(version: int, document: RoutingDocument) -> Rules:
    """Make sense of a document; raises InvalidDocument that lists every fault with its place."""
    compiler = _Compiler()
    route_when = compiler.expression(document.route_when, ENTRY, "/route_when")
    queues = {shape.id: compiler.queue(shape, f"/queues/{index}") for index, shape in enumerate(document.queues)}
    compiler.distinct([shape.id for shape in document.queues], "/queues")
    rules = tuple(compiler.rule(shape, queues, f"/rules/{index}") for index, shape in enumerate(document.rules))
    compiler.distinct([shape.id for shape in document.rules], "/rules")
    catch_all = compiler.catch_all(document.catch_all, queues)
    re_entry = compiler.re_entry(document.re_entry)
    territories = compiler.territories(document.territories or ())
    if compiler.faults:
        raise InvalidDocument(f"{len(compiler.faults)} parts of the rules cannot work", compiler.faults)
    assert route_when is not None
    made = {rule.queue.queue_id: rule.queue for rule in (*rules, catch_all)}
    return Rules(version, route_when, rules, catch_all, {**queues, **made}, re_entry, territories)


class _Compiler:
    """Compiles the parts of a document and gathers all its faults."""

    def __init__(self) -> None:
        self.faults: list[FieldError] = []

    def expression(self, source: str | None, vocabulary: Vocabulary, pointer: str) -> Expression | None:
        if source is None:
            return None
        try:
            return compile_expression(source, vocabulary, pointer)
        except ExpressionFault as fault:
            self.faults.append(FieldError(fault.pointer, fault.detail, fault.column))
            return None

    def who(self, source: str | None, place: str) -> Expression | None:
        """A condition on reps; None when it holds for everybody, so that it need not be tried on each."""
        who = self.expression(source, MATCH, place)
        return None if who is not None and not who.references and who.holds({})[0] else who

    def queue(self, shape: QueueShape, place: str) -> Queue:
        who = self.who(shape.who, f"{place}/who")
        makes_up_limits, monthly = bool(shape.catch_up and shape.catch_up.capacity), shape.cycle is not None
        if shape.members is None:
            return Queue(shape.id, None, who, makes_up_limits, monthly, bool(shape.claim), shape.claim_minutes)
        for index, rep_id in enumerate(shape.reps):
            if rep_id in shape.reps[:index]:
                self.faults.append(FieldError(f"{place}/members/{index}/rep_id", "is in this queue already"))
        members = {RepId(member.rep_id): member.weight for member in shape.members}
        return Queue(shape.id, members, None, makes_up_limits, monthly, bool(shape.claim), shape.claim_minutes)

    def rule(self, shape: RuleShape, queues: Mapping[str, Queue], place: str) -> Rule:
        if shape.id in RESERVED:
            self.faults.append(FieldError(f"{place}/id", f"{shape.id} is a reserved word"))
        if shape.queue is None and shape.id in queues:
            detail = f"{shape.id} is a queue; name it as the rule's queue, or give the rule another id"
            self.faults.append(FieldError(f"{place}/id", detail))
        return Rule(
            rule_id=shape.id,
            strategy=shape.strategy,
            queue=self._queue_of(shape.queue, queues, place) or Queue(shape.id),
            when=self.expression(shape.when, CASE, f"{place}/when"),
            who=self.who(shape.who, f"{place}/who"),
            available=shape.available,
            sla=_sla(shape.sla),
        )

    def catch_all(self, shape: CatchAllShape, queues: Mapping[str, Queue]) -> Rule:
        if shape.strategy in MAY_FIND_NOBODY:
            detail = f"{shape.strategy} finds nobody for a new lead, and after the catch-all there is no other rule"
            self.faults.append(FieldError("/catch_all/strategy", detail))
        queue = self._queue_of(shape.queue, queues, "/catch_all") or Queue(CATCH_ALL)
        return Rule(CATCH_ALL, shape.strategy, queue, sla=_sla(shape.sla))

    def re_entry(self, shape: ReEntryShape | None) -> ReEntry | None:
        if shape is None:
            return None
        return ReEntry(shape.days, self.expression(shape.when, CASE, "/re_entry/when"))

    def territories(self, shapes: Sequence[TerritoryShape]) -> Territories:
        table, doubles = territories_of([(shape.wanted, shape.territory) for shape in shapes])
        for index, earlier in doubles:
            self.faults.append(FieldError(f"/territories/{index}", f"asks for the same as row {earlier}"))
        return table

    def distinct(self, ids: list[str], place: str) -> None:
        for index, one in enumerate(ids):
            if one in ids[:index]:
                self.faults.append(FieldError(f"{place}/{index}/id", f"{one} is the id of an earlier one as well"))

    def _queue_of(self, queue_id: str | None, queues: Mapping[str, Queue], place: str) -> Queue | None:
        if queue_id is not None and queue_id not in queues:
            known = ", ".join(queues)
            self.faults.append(FieldError(f"{place}/queue", f"there is no queue {queue_id}; there are {known}"))
        return queues.get(queue_id) if queue_id is not None else None


def _sla(shape: SlaShape | None) -> Sla:
    if shape is None:
        return Sla()
    ladder = None
    if shape.escalate is not None:
        ladder = tuple(Escalation(one.at, tuple(one.notify), one.reroute) for one in shape.escalate)
    remind_at = None if shape.remind_at is None else tuple(shape.remind_at)
    return Sla(shape.accept_minutes, shape.touch_minutes, remind_at, shape.on_breach, ladder)
