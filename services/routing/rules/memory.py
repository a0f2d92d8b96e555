"""What was worked out already: the same condition on the same values, the working hours around a moment.

A decision asks one condition about every rep, and the next lead is often from the same country: what a condition reads
tells all that it can come to. Nothing here changes what is decided, only how often it is computed.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from services.routing.reps.calendar import Calendar
from services.routing.reps.domain import Rep
from shared.ids import RepId
from shared.rules import Evaluation, Expression

MOST = 20_000
"""So many answers of a kind are remembered; then it begins anew."""
REP = "rep"
CHANGING = "open_leads"
"""What changes of a rep with every lead."""
_MISSING = object()


class Memory:
    """Answers by what they depend on, for one run over leads among the same reps, of whom only `CHANGING` changes."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, ...], tuple[bool, str]] = {}
        self._fitting: dict[tuple[str, ...], dict[tuple[RepId, int], bool]] = {}
        self._working: dict[int, tuple[Calendar, list[datetime], list[tuple[datetime, bool]]]] = {}

    def holds(self, expression: Expression, case: "Values") -> tuple[bool, str]:
        """Whether a condition on the lead holds, and why not."""
        key = case.read_by(expression)
        answer = self._answers.get(key)
        if answer is None:
            _make_room(self._answers)
            answer = self._answers[key] = expression.holds(case.evaluation)
        return answer

    def fitting(self, expression: Expression, case: "Values") -> Callable[[Rep], bool]:
        """Tells of each rep whether a condition on reps and this lead holds."""
        key = case.read_by(expression)
        known = self._fitting.get(key)
        if known is None:
            _make_room(self._fitting)
            known = self._fitting[key] = {}
        answers = known
        changing = expression.reads(REP, CHANGING)

        def fits(rep: Rep) -> bool:
            place = (rep.rep_id, rep.open_leads if changing else 0)
            answer = answers.get(place)
            if answer is None:
                answer = answers[place] = _tried(expression, rep, case)
            return answer

        return fits

    def works_at(self, calendar: Calendar, at: datetime) -> bool:
        """Whether a moment is working time; asked of moments near each other, it is looked up."""
        if id(calendar) not in self._working:
            self._working[id(calendar)] = (calendar, [], [])
        _, starts, spans = self._working[id(calendar)]
        place = bisect_right(starts, at) - 1
        if place >= 0 and at < spans[place][0]:
            return spans[place][1]
        until, works = _around(calendar, at)
        starts.insert(place + 1, at)
        spans.insert(place + 1, (until, works))
        return works


class Values:
    """The variables of one decision, converted for expressions only when one has to be computed."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self._evaluation: Evaluation | None = None
        self._read: dict[str, tuple[str, ...]] = {}

    @property
    def evaluation(self) -> Evaluation:
        """The values as expressions take them."""
        if self._evaluation is None:
            self._evaluation = Evaluation(self.values)
        return self._evaluation

    def read_by(self, expression: Expression) -> tuple[str, ...]:
        """An expression and all that it reads of the lead, written out: texts differ where values or types do."""
        known = self._read.get(expression.source)
        if known is None:
            paths = (path for path in expression.references if path[0] != REP)
            told = (repr(_at(self.values, path)) for path in paths)
            known = self._read[expression.source] = (expression.source, *told)
        return known


def _at(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = values
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return _MISSING
        found = found[name]
    return found


def _tried(expression: Expression, rep: Rep, case: Values) -> bool:
    # Making an evaluation costs more than using it, and most conditions read two fields.
    read = {path[0] for path in expression.references}
    given = {name: value for name, value in {**case.values, REP: rep.values()}.items() if name in read}
    return expression.holds(given)[0]


def _make_room(answers: dict[tuple[str, ...], Any]) -> None:
    if len(answers) >= MOST:
        answers.clear()


def _around(calendar: Calendar, at: datetime) -> tuple[datetime, bool]:
    """Until when it stays as it is at a moment, and whether that is working time."""
    window = next(calendar.windows(at), None)
    if window is None:
        return at + timedelta(hours=1), False
    return (window.end, True) if window.start == at else (window.start, False)
