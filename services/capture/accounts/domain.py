"""Which account somebody belongs to, and what a hierarchy allows: every decision, pure.

What counts, in this order: what somebody chose by hand; the registrable domain of the email address; the company's
name, if it is exactly one account's; a name that is close to one account's, if something else says the same. Free and
throw-away mailboxes say nothing. Where several accounts have the name, the country decides, then the hierarchy; where
neither does, nobody guesses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rapidfuzz import fuzz

from services.capture.accounts.names import company_key, domain_key
from shared.emails import company_domain, is_free
from shared.ids import AccountId, LeadId
from shared.phones import country_of

MatchedBy = Literal["hand", "domain", "name", "close_name"]
MadeBy = Literal["api", "leads"]
CLOSE = 90
NAME_BEGINS = 4
DEEPEST = 16


@dataclass(frozen=True, slots=True)
class Account:
    """A company. `made_by` leads it was made from a domain alone, until somebody says something about it."""

    account_id: AccountId
    revision: int
    name: str
    domains: tuple[str, ...] = ()
    external_id: str | None = None
    parent_id: AccountId | None = None
    owner_id: str | None = None
    industry: str | None = None
    employees: int | None = None
    annual_revenue: int | None = None
    country: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    made_by: MadeBy = "api"
    merged_into: AccountId | None = None


@dataclass(frozen=True, slots=True)
class Clues:
    """What says which company somebody belongs to. `phone_country` is where their phone number is from."""

    name: str | None = None
    name_key: str | None = None
    domain: str | None = None
    country: str | None = None
    phone_country: str | None = None
    free_mail: bool = False

    @property
    def name_begin(self) -> str | None:
        """The first letters of the name, which a close name must share to be found."""
        return self.name_key[:NAME_BEGINS] if self.name_key else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An account that could be meant. `parents` are those above it, the nearest first."""

    account_id: AccountId
    name: str
    name_key: str | None
    country: str | None = None
    domains: tuple[str, ...] = ()
    parents: tuple[AccountId, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """The account that somebody belongs to, by what, and why; none, and why not."""

    account_id: AccountId | None
    matched_by: MatchedBy | None
    reason: str


@dataclass(frozen=True, slots=True)
class Weighed:
    """A candidate, and why it stayed or was left out."""

    candidate: Candidate
    kept: bool
    why: str
    likeness: int = 100


@dataclass(frozen=True, slots=True)
class Naming:
    """What a name comes to: the account, if any; how; everything that was weighed; the tie-breaker that decided."""

    match: Match
    weighed: tuple[Weighed, ...] = ()
    tie_breaker: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is kept of a lead's account: enough to see whether it is another one now."""

    lead_id: LeadId
    match: Match
    domain: str | None
    name_key: str | None


def clues_of(email: str | None, company: str | None, country: str | None, phone: str | None) -> Clues:
    """What a person's profile says about their company."""
    domain = company_domain(email) if email else None
    return Clues(
        name=company,
        name_key=company_key(company) if company else None,
        domain=domain,
        country=country.upper() if country else None,
        phone_country=country_of(phone) if phone and not domain else None,
        free_mail=bool(email) and is_free(email or ""),
    )


def by_name(clues: Clues, candidates: Sequence[Candidate]) -> Naming:
    """The account that a name means, among those that have it or a close one."""
    if clues.name_key is None:
        return Naming(Match(None, None, _no_clue(clues)))
    exact = [candidate for candidate in candidates if candidate.name_key == clues.name_key]
    if exact:
        return _unambiguous(clues, exact)
    return _close(clues, [candidate for candidate in candidates if candidate.name_key])


def has_name_and_site(clues: Clues, candidates: Sequence[Candidate]) -> Candidate | None:
    """The one account of this name that has no domain yet, if the domain itself says the name: `acme.com`, Acme."""
    if clues.name_key is None or clues.domain is None:
        return None
    exact = [candidate for candidate in candidates if candidate.name_key == clues.name_key]
    says_the_name = domain_key(clues.domain) == clues.name_key.replace(" ", "")
    return exact[0] if len(exact) == 1 and not exact[0].domains and says_the_name else None


def by_domain(account_id: AccountId, domain: str) -> Match:
    """Somebody whose mailbox is at a domain of the account."""
    return Match(account_id, "domain", f"the email address is at {domain}")


def by_hand(account_id: AccountId | None) -> Match:
    """Somebody chose it, or chose that there is none."""
    return Match(account_id, "hand", "chosen by hand" if account_id else "none, chosen by hand")


def _unambiguous(clues: Clues, exact: Sequence[Candidate]) -> Naming:
    if len(exact) == 1:
        weighed = (Weighed(exact[0], True, "has this name"),)
        return Naming(Match(exact[0].account_id, "name", f"{clues.name!r} is its name"), weighed)
    left, gone = list(exact), list[Weighed]()
    for tie_breaker, keeps in (("country", _same_country), ("hierarchy", _above_all)):
        kept = keeps(clues, left)
        if kept and len(kept) < len(left):
            why = f"has this name, left out by {tie_breaker}"
            gone += [Weighed(one, False, why) for one in left if one not in kept]
            left = kept
        if len(left) == 1:
            reason = f"{clues.name!r} is its name, one of {len(exact)} accounts of this name chosen by {tie_breaker}"
            decided = (Weighed(left[0], True, f"has this name, chosen by {tie_breaker}"), *gone)
            return Naming(Match(left[0].account_id, "name", reason), decided, tie_breaker)
    open_ones = tuple(Weighed(one, True, "has this name") for one in left)
    reason = f"{len(left)} accounts are named {clues.name!r}, and nothing says which is meant"
    return Naming(Match(None, None, reason), (*open_ones, *gone))


def _same_country(clues: Clues, candidates: Sequence[Candidate]) -> list[Candidate]:
    country = clues.country or clues.phone_country
    return [one for one in candidates if country is not None and one.country == country]


def _above_all(_clues: Clues, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The one that all others are below."""
    return [one for one in candidates if all(other is one or one.account_id in other.parents for other in candidates)]


def _close(clues: Clues, candidates: Sequence[Candidate]) -> Naming:
    """A close name counts with a second sign that it is the same company."""
    assert clues.name_key is not None
    weighed: list[Weighed] = []
    for one in candidates:
        likeness = int(fuzz.token_sort_ratio(clues.name_key, one.name_key or ""))
        if likeness >= CLOSE:
            sign = _second_sign(clues, one)
            weighed.append(Weighed(one, sign is not None, sign or "nothing but the name is alike", likeness))
    kept = sorted((one for one in weighed if one.kept), key=lambda one: (-one.likeness, one.candidate.account_id))
    left_out = [one for one in weighed if not one.kept]
    in_order = (*kept, *sorted(left_out, key=lambda one: -one.likeness))
    if not kept:
        why = "only a close name, and nothing else says the same" if weighed else "no account has this name or domain"
        return Naming(Match(None, None, f"{clues.name!r}: {why}"), in_order)
    if len(kept) > 1 and kept[0].likeness == kept[1].likeness:
        return Naming(Match(None, None, f"several accounts have a name close to {clues.name!r}"), in_order)
    best = kept[0]
    reason = f"{clues.name!r} is close to {best.candidate.name!r} ({best.likeness}), and {best.why}"
    return Naming(
        Match(best.candidate.account_id, "close_name", reason), in_order, "closest name" if len(kept) > 1 else None
    )


def is_close(name_key: str, other: str) -> bool:
    """Whether two names could be meant for one; a second sign has to say the same."""
    return fuzz.token_sort_ratio(name_key, other, score_cutoff=CLOSE) > 0


def _second_sign(clues: Clues, one: Candidate) -> str | None:
    if one.country is not None and one.country == clues.country:
        return f"the country is the same, {one.country}"
    if one.country is not None and one.country == clues.phone_country:
        return f"the phone number is from its country, {one.country}"
    if clues.domain and domain_key(clues.domain) in {domain_key(domain) for domain in one.domains}:
        return f"{clues.domain} is named like a domain of it"
    return None


def _no_clue(clues: Clues) -> str:
    if clues.free_mail:
        return "the email address is at a free or throw-away mailbox, and no company is named"
    return "no email address at a company, and no company is named"


def circle(account: Account, upwards: Sequence[tuple[AccountId, str]]) -> str | None:
    """The circle that a parent would close, as a path of names; `upwards` are the parent and those above it."""
    names = [account.name]
    for account_id, name in upwards:
        names.append(name)
        if account_id == account.account_id:
            return " → ".join(names)
    return None


def united(kept: Account, gone: Account) -> dict[str, Any]:
    """What the account that stays learns from the one merged into it: only what it did not know."""
    names = ("owner_id", "industry", "employees", "annual_revenue", "country")
    learnt = {name: getattr(gone, name) for name in names if getattr(kept, name) is None}
    return {name: value for name, value in learnt.items() if value is not None} | {
        "attributes": {**gone.attributes, **kept.attributes}
    }


def stays(one: Account, other: Account, created: Mapping[AccountId, Any]) -> Account:
    """Which of two accounts stays: one that somebody made before one made from a domain, then the older one."""
    return min((one, other), key=lambda each: (each.made_by == "leads", created[each.account_id], each.account_id))


def changed_leads(before: Mapping[LeadId, Standing], now: Iterable[Standing]) -> list[Standing]:
    """The standings that are to be written."""
    return [standing for standing in now if before.get(standing.lead_id) != standing]
