"""Routing rules that make sense: a document compiled, or every fault of it with its place."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.routing.people import domain as people
from services.routing.reps import domain as reps
from services.routing.rules.document import CatchAllShape, QueueShape, RoutingDocument, RuleShape, SlaShape, Strategy
from shared.errors import FieldError
from shared.ids import RepId
from shared.rules import Expression, ExpressionFault, InvalidDocument, Vocabulary, compile_expression

RE_ENTRY = "re-entry"
CATCH_ALL = "catch-all"
BY_HAND = "by-hand"
PROFILE = "profile"
RESERVED = frozenset({RE_ENTRY, CATCH_ALL, BY_HAND, PROFILE})
MAY_FIND_NOBODY: frozenset[Strategy] = frozenset({"account_owner", "previous_owner"})
CASE = Vocabulary(people.FIELDS)
MATCH = Vocabulary({**people.FIELDS, "rep": reps.FIELDS})


@dataclass(frozen=True, slots=True)
class Sla:
    """Working minutes until a lead must be accepted, and until the first touch; None: no such limit."""

    accept_minutes: int | None = None
    touch_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """Reps who share leads: by name with their weights (None: the rep's own), or those for whom `who` holds."""

    queue_id: str
    members: Mapping[RepId, int | None] | None = None
    who: Expression | None = None


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
class Rules:
    """One version of the rules, compiled."""

    version: int
    route_when: Expression
    rules: tuple[Rule, ...]
    catch_all: Rule

    @property
    def in_order(self) -> tuple[Rule, ...]:
        """All rules as they are tried."""
        return (*self.rules, self.catch_all)


def compile_rules(version: int, document: RoutingDocument) -> Rules:
    """Make sense of a document; raises InvalidDocument that lists every fault with its place."""
    compiler = _Compiler()
    route_when = compiler.expression(document.route_when, CASE, "/route_when")
    queues = {shape.id: compiler.queue(shape, f"/queues/{index}") for index, shape in enumerate(document.queues)}
    compiler.distinct([shape.id for shape in document.queues], "/queues")
    rules = tuple(compiler.rule(shape, queues, f"/rules/{index}") for index, shape in enumerate(document.rules))
    compiler.distinct([shape.id for shape in document.rules], "/rules")
    catch_all = compiler.catch_all(document.catch_all, queues)
    if compiler.faults:
        raise InvalidDocument(f"{len(compiler.faults)} parts of the rules cannot work", compiler.faults)
    assert route_when is not None
    return Rules(version, route_when, rules, catch_all)


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
        if shape.members is None:
            return Queue(shape.id, None, who)
        for index, rep_id in enumerate(shape.reps):
            if rep_id in shape.reps[:index]:
                self.faults.append(FieldError(f"{place}/members/{index}/rep_id", "is in this queue already"))
        return Queue(shape.id, {RepId(member.rep_id): member.weight for member in shape.members})

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
    return Sla() if shape is None else Sla(shape.accept_minutes, shape.touch_minutes)
