"""Whose a deal of a CRM is that names no contact: the only person's of its account, or nobody's until it is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from shared.ids import AccountId, LeadId

Reason = Literal["contact", "by_hand", "only_person", "no_account", "unknown_account", "no_people", "several_people"]
WORDS: dict[Reason, str] = {
    "contact": "the CRM says so",
    "by_hand": "somebody said so",
    "only_person": "the only person of its account",
    "no_account": "it names neither a contact nor an account",
    "unknown_account": "it names no contact, and its account is not known here or not clear",
    "no_people": "it names no contact, and nobody of its account is known here",
    "several_people": "it names no contact, and several persons are of its account",
}


@dataclass(frozen=True, slots=True)
class Clues:
    """What a deal says of its company: the CRM's own id of it, and its name."""

    account: str | None = None
    company: str | None = None

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.account or self.company)


@dataclass(frozen=True, slots=True)
class Tie:
    """Whose a deal is, and why; nobody's, and why not."""

    lead_id: LeadId | None
    reason: Reason
    account_id: AccountId | None = None


def tie(clues: Clues, account_id: AccountId | None, people: Sequence[LeadId]) -> Tie:
    """Whose a deal without a contact is, by the people of its account. Nobody guesses among several."""
    if account_id is None:
        return Tie(None, "unknown_account" if clues else "no_account")
    match people:
        case []:
            return Tie(None, "no_people", account_id)
        case [only]:
            return Tie(only, "only_person", account_id)
        case _:
            return Tie(None, "several_people", account_id)
