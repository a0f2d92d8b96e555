"""Who has a claim on a lead: the rep who had it, the owner of its account or of one above it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Any

from services.routing.reps.domain import Rep
from services.routing.rules.domain import ReEntry
from services.routing.rules.memory import Values
from shared.ids import RepId

MATCHED_BY = {
    "hand": "chosen by hand",
    "domain": "by the domain of its email address",
    "name": "by the name of its company",
    "close_name": "by a close name and a second sign",
}
MOST_PASSED_OVER = 5


def return_refused(re_entry: ReEntry | None, previous_at: datetime | None, at: datetime, values: Values) -> str | None:
    """Why a lead that comes back does not go to its rep, by what the rules say of that; None when it does."""
    if re_entry is None:
        return None
    if previous_at is not None and at - previous_at > timedelta(days=re_entry.days):
        return f"its rep took it or was done with it on {previous_at:%Y-%m-%d}, more than {re_entry.days} days ago"
    holds, why = (True, "") if re_entry.when is None else re_entry.when.holds(values.evaluation)
    return None if holds else f"the condition of re_entry does not hold: {why}"


def cannot_return(rep: Rep | None, passed_by: AbstractSet[RepId], at: datetime) -> str | None:
    """Why a lead that comes back cannot go to the rep who had it (None: not active); None when it can."""
    if rep is None:
        return "the rep who had this lead is deactivated"
    if rep.rep_id in passed_by:
        return "the rep who had this lead passed it by"
    return "the rep who had this lead is on leave" if rep.calendar.on_leave(at) else None


def account_owner(reps: Sequence[Rep], inputs: Mapping[str, Any]) -> tuple[Rep, str] | None:
    """The owner of the lead's account, else of the nearest one above it, who is among these; and why."""
    for owner in inputs.get("account_owners", ()):
        rep = _named(reps, owner)
        if rep is not None:
            up = owner["levels_up"]
            whose = "the lead's account" if up == 0 else f"{up} above the lead's account"
            matched_by = MATCHED_BY.get(inputs.get("account_match", {}).get("matched_by"))
            return rep, f"owns {owner['account_id']}, {whose}" + (f", {matched_by}" if matched_by else "")
    return None


def passed_over(considered: Sequence[tuple[Rep, str | None]], inputs: Mapping[str, Any], chosen: Rep | None) -> str:
    """Why the owners of accounts nearer than the chosen one's do not get the lead; empty where there are none.

    `considered` are the reps of the queue, each with what keeps them from this lead.
    """
    out = {rep.rep_id: why for rep, why in considered}
    reps = [rep for rep, _ in considered]
    said: list[str] = []
    for owner in inputs.get("account_owners", ()):
        rep = _named(reps, owner)
        if rep is not None and rep is chosen:
            break
        why = "not among the active reps of the queue" if rep is None else out[rep.rep_id]
        said.append(f"; the owner of {owner['account_id']} is {why}")
    return "".join(said[:MOST_PASSED_OVER])


def _named(reps: Sequence[Rep], owner: Mapping[str, Any]) -> Rep | None:
    """The rep whom an account names as its owner, by id or by email address."""
    named = str(owner["owner_id"]).strip().casefold()
    return next((rep for rep in reps if named in (rep.rep_id.casefold(), rep.email.casefold())), None)
