"""What callers send about accounts, and what they get."""

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.capture.accounts.domain import MatchedBy
from services.capture.facts.inputs import IdText, Name
from services.capture.leads.inputs import Text, Whole
from services.capture.reading import FreeObject, Strict
from shared.emails import Email, is_free, registrable_domain
from shared.ids import AccountId
from shared.phones import Phone

MOST_DOMAINS = 100
LONGEST_DOMAIN = 2_000
_HOST = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63})+")


def parse_domain(text: str) -> str:
    """The registrable domain of a domain, host name or site. Raises ValueError for none, and for that of mailboxes."""
    host = text.strip().lower().rpartition("://")[2].partition("/")[0].partition("?")[0].partition(":")[0].rstrip(".")
    try:
        plain = ".".join(
            label.encode().decode("idna") if label.startswith("xn--") else label for label in host.split(".")
        )
        plain.encode("idna")
    except UnicodeError:
        plain = ""
    domain = registrable_domain(plain) if _HOST.fullmatch(plain) else None
    if domain is None:
        raise ValueError("is not a domain that somebody registered, such as acme.com")
    if is_free(f"x@{domain}"):
        raise ValueError(f"{domain} gives mailboxes to everybody, so it names no company")
    return domain


def _upper(text: str) -> str:
    return text.strip().upper() if len(text.strip()) == 2 else text.strip()  # an ISO 3166 code


Domain = Annotated[str, Field(max_length=LONGEST_DOMAIN, examples=["acme.com"]), AfterValidator(parse_domain)]
Country = Annotated[Text, AfterValidator(_upper), Field(description="ISO 3166 code", examples=["DE"])]
FilledText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class AccountFields(Strict):
    """What may be said about an account."""

    name: FilledText | None = None
    domains: Annotated[list[Domain], Field(max_length=MOST_DOMAINS)] | None = None
    external_id: Name | None = None
    parent_id: IdText | None = None
    owner_id: Annotated[FilledText | None, Field(description="A rep's id or email address")] = None
    industry: Text | None = None
    employees: Whole | None = None
    annual_revenue: Annotated[Whole | None, Field(description="In whole units of the company's currency")] = None
    country: Country | None = None
    attributes: FreeObject | None = None


class AccountInput(AccountFields):
    """A company. Whichever is known by the external id, else by a domain, is updated; domains are added to its own.

    A field that is absent or null says nothing.
    """


class AccountPatch(AccountFields):
    """What is to be changed. Null takes a field back; `domains` and `attributes` are replaced as a whole."""


class AccountMergeInput(Strict):
    """The account that is the same company; `into` says which of the two stays."""

    into: IdText | None = None
    with_account: Annotated[IdText, Field(alias="with")]


class MatchInput(Strict):
    """What is known about somebody's company."""

    name: Text | None = None
    domain: Annotated[str | None, Field(max_length=LONGEST_DOMAIN)] = None
    email: Email | None = None
    country: Country | None = None
    phone: Phone | None = None


class ChoiceInput(Strict):
    """The account that a lead belongs to from now on, whatever matches."""

    account_id: IdText


class AccountRef(BaseModel):
    """An account by name."""

    account_id: AccountId
    name: str


class AccountOut(BaseModel):
    """A company. `parents` are those above it, the nearest first; `made_by` leads it came from a domain alone."""

    model_config = ConfigDict(frozen=True)

    account_id: AccountId
    name: str
    domains: list[str]
    external_id: str | None
    parent_id: AccountId | None
    ultimate_parent_id: AccountId
    parents: list[AccountRef]
    owner_id: str | None
    industry: str | None
    employees: int | None
    annual_revenue: int | None
    country: str | None
    attributes: dict[str, Any]
    made_by: str
    revision: int
    created_at: datetime
    updated_at: datetime


class OneAccountOut(AccountOut):
    """A company with those directly below it, at most 200; `GET /accounts?parent_id=` lists all."""

    children: list[AccountRef]


class CandidateOut(BaseModel):
    """An account that was weighed: whether it stayed, and why; `likeness` of the names, 0 to 100."""

    account_id: AccountId
    name: str
    kept: bool
    why: str
    likeness: int


class MatchOut(BaseModel):
    """The account somebody would belong to, and why; none where nothing decides. With `makes_account` a new one."""

    account: AccountRef | None
    matched_by: MatchedBy | None
    reason: str
    makes_account: bool
    tie_breaker: str | None
    candidates: list[CandidateOut]
