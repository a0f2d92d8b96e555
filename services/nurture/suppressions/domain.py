"""Entries of the list, and what files of other systems call them. Pure."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import orjson

from services.nurture.people.domain import Addresses
from shared.emails import LONGEST, parse_email
from shared.ids import LeadId
from shared.phones import parse_phone

Kind = Literal["lead", "address", "phone", "domain", "role"]
Reason = Literal["manual", "bounced", "complained", "unsubscribed"]
ListChannel = Literal["email", "sms", "whatsapp", "all"]
Format = Literal["csv", "ndjson"]
LONGEST_TEXT = 200
_HASH_DIGITS = 64
# What other systems call the columns and what they put into them.
_COLUMNS = {
    "email": "email",
    "email_address": "email",
    "email address": "email",
    "e-mail": "email",
    "address": "email",
    "recipient": "email",
    "emailaddress": "email",
    "phone": "phone",
    "phone_number": "phone",
    "domain": "domain",
    "role": "role",
    "lead_id": "lead_id",
    "address_hash": "address_hash",
    "channel": "channel",
    "reason": "reason",
    "suppressionreason": "reason",
    "since": "since",
    "created_at": "since",
    "createdat": "since",
    "origin": "origin",
}
_REASONS: Mapping[str, Reason] = {
    "manual": "manual",
    "manualsuppression": "unsubscribed",
    "bounce": "bounced",
    "bounced": "bounced",
    "hard_bounce": "bounced",
    "hardbounce": "bounced",
    "invalid": "bounced",
    "complaint": "complained",
    "complained": "complained",
    "spam": "complained",
    "spamcomplaint": "complained",
    "spam_report": "complained",
    "unsubscribe": "unsubscribed",
    "unsubscribed": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
}
_WHO = ("email", "phone", "domain", "role", "lead_id", "address_hash")


class NotAnEntry(ValueError):
    """A row that names nobody, or says something that means nothing here."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Whom nothing is sent to, on which channel, and why. `value` is what is not personal: a domain, a role."""

    kind: Kind
    lead_id: LeadId | None
    address_hash: str | None
    value: str | None
    channel: ListChannel
    reason: Reason
    since: datetime
    origin: str

    @property
    def about(self) -> str:
        """What the entry's id is made from."""
        return self.address_hash or self.lead_id or ""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What counts where a row does not say."""

    reason: Reason
    channel: ListChannel | None
    since: datetime
    origin: str


def entry_of(row: Mapping[str, Any], addresses: Addresses, defaults: Defaults) -> Entry:
    """A row as an entry. Raises NotAnEntry that says what is wrong."""
    said = {name: str(value).strip().removeprefix("'") for name, value in row.items() if value not in (None, "")}
    for name, text in said.items():
        if len(text) > LONGEST or not text.isprintable():
            raise NotAnEntry(f"{name} is too long, or holds characters that it cannot")
    named = [name for name in _WHO if said.get(name)]
    if "address_hash" in named and "lead_id" in named:
        named.remove("lead_id")
    if len(named) != 1:
        raise NotAnEntry(f"name one of {', '.join(_WHO)}" + (f", not {' and '.join(named)}" if named else ""))
    kind, address_hash, value = _who(named[0], said[named[0]], addresses)
    return Entry(
        kind=kind,
        lead_id=LeadId(said["lead_id"]) if "lead_id" in said else None,
        address_hash=address_hash,
        value=value,
        channel=_channel(said.get("channel"), defaults.channel, kind),
        reason=_reason(said.get("reason"), defaults.reason),
        since=_since(said.get("since"), defaults.since),
        origin=said.get("origin", defaults.origin)[:LONGEST_TEXT],
    )


def _who(name: str, said: str, addresses: Addresses) -> tuple[Kind, str | None, str | None]:
    """The kind of an entry, the hash it is found by, and what of it may stand in clear."""
    match name:
        case "email":
            if (email := parse_email(said)) is None:
                raise NotAnEntry("email is not an address that mail can go to")
            return "address", addresses.hash_of(email), None
        case "phone":
            if (phone := parse_phone(said)) is None:
                raise NotAnEntry("phone is not a number with its country code, such as +14155550140")
            return "phone", addresses.hash_of(phone), None
        case "domain":
            made = parse_email(f"x@{said.removeprefix('@')}")
            if made is None:
                raise NotAnEntry("domain is none, such as example.com")
            domain = made.removeprefix("x@")
            return "domain", addresses.hash_of(f"@{domain}"), domain
        case "role":
            made = parse_email(f"{said.removesuffix('@')}@example.org")
            if made is None:
                raise NotAnEntry("role is no part of an address before its @, such as info")
            role = made.removesuffix("@example.org")
            return "role", addresses.hash_of(f"{role}@"), role
        case "address_hash":
            if len(said) != _HASH_DIGITS or any(char not in "0123456789abcdef" for char in said):
                raise NotAnEntry("address_hash is not one of an export of this installation")
            return "address", said, None
        case _:
            return "lead", None, None


def _channel(said: str | None, default: ListChannel | None, kind: Kind) -> ListChannel:
    for channel in get_args(ListChannel):
        if said is not None and said.lower() == channel:
            return channel  # type: ignore[no-any-return]  # one of its words
    if said is not None:
        raise NotAnEntry(f"channel is one of {', '.join(get_args(ListChannel))}")
    return default or ("sms" if kind == "phone" else "email")


def _reason(said: str | None, default: Reason) -> Reason:
    if said is None:
        return default
    reason = _REASONS.get(said.lower().replace(" ", "_"))
    if reason is None:
        raise NotAnEntry(f"reason is one of {', '.join(get_args(Reason))}")
    return reason


def _since(said: str | None, default: datetime) -> datetime:
    if said is None:
        return default
    try:
        at = datetime.fromtimestamp(int(said), UTC) if said.isdigit() else datetime.fromisoformat(said)
    except (ValueError, OverflowError, OSError):
        raise NotAnEntry("since is no time, such as 2026-04-30T12:00:00Z") from None
    at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return min(at, default)


def rows_of(text: str, kind: Format) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """The rows of a file with their lines, by our names of the columns; a text is what is wrong with one.

    A CSV file whose first line names no column that is known has addresses alone, one a line.
    """
    yield from _csv_rows(text) if kind == "csv" else _ndjson_rows(text)


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names: list[str | None] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                known = [_COLUMNS.get(cell.strip().lower()) for cell in cells]
                names = known if any(name in _WHO for name in known) else ["email"]
                if names is known:
                    continue
            yield reader.line_num, {name: cell for name, cell in zip(names, cells, strict=False) if name}
    except csv.Error as exc:
        yield reader.line_num, f"cannot be read: {exc}"


def _ndjson_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            yield number, "is not valid JSON"
            continue
        if not isinstance(row, dict) or any(isinstance(value, dict | list) for value in row.values()):
            yield number, "is not an object of texts"
            continue
        yield number, {known: value for name, value in row.items() if (known := _COLUMNS.get(name.strip().lower()))}
