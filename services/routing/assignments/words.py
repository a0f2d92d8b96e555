"""How it is said that no rep was found."""

from collections import Counter
from collections.abc import Sequence

from services.routing.reps.domain import Rep
from services.routing.rules.domain import Rule


def found_nobody(rule: Rule, candidates: int, absences: Counter[str]) -> str:
    """Why a rule placed no lead: so many could have had it, and so many could not for each reason."""
    if candidates:
        return f"its condition holds, but none of {candidates} is the one that {rule.strategy} asks for"
    return f"its condition holds, but nobody is left in {rule.queue.queue_id}: {_listed(absences)}"


def hold_reason(reps: Sequence[Rep], absences: Counter[str]) -> str:
    """Why a lead waits: what keeps the reps of the last rule from it."""
    if not reps:
        return "there are no active reps"
    return f"nobody can take it: {_listed(absences)}"


def _listed(absences: Counter[str]) -> str:
    return ", ".join(f"{count} {why}" for why, count in sorted(absences.items())) or "it has no members"
