"""Files of entries in and out."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson

from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.suppressions import queries
from services.nurture.suppressions.domain import Defaults, Entry, Format, NotAnEntry, entry_of, rows_of
from shared.db import Tx
from shared.ids import LeadId

MOST_SHOWN = 100
PAGE = 500
EXPORTED = ("kind", "email", "domain", "role", "address_hash", "lead_id", "channel", "reason", "since", "origin")


@dataclass(slots=True)
class Taken:
    """What became of a file: its rows, how many of them are new entries, and those that mean nothing here."""

    rows: int = 0
    added: int = 0
    rejected: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)


async def take_in(tx: Tx, parts: Parts, text: str, kind: Format, defaults: Defaults) -> Taken:
    """Enter the rows of a file; a bad one is told and stops no other."""
    taken, entries = await asyncio.to_thread(_read, text, kind, parts, defaults)
    taken.added = await queries.put(tx.connection, entries)
    return taken


def _read(text: str, kind: Format, parts: Parts, defaults: Defaults) -> tuple[Taken, list[Entry]]:
    taken, entries = Taken(), []
    for line, row in rows_of(text, kind):
        taken.rows += 1
        try:
            if isinstance(row, str):
                raise NotAnEntry(row)
            entries.append(entry_of(row, parts.addresses, defaults))
        except NotAnEntry as exc:
            taken.rejected += 1
            if len(taken.faults) < MOST_SHOWN:
                taken.faults.append({"line": line, "detail": str(exc)})
    return taken, entries


async def give_out(parts: Parts, kind: Format, channel: str | None, reason: str | None) -> AsyncIterator[bytes]:
    """The whole list as a file that can be read in again, piece by piece.

    An address is in it where the entry is of a lead whose profile still has it, else only the hash.
    """
    if kind == "csv":
        yield _csv_line(EXPORTED)
    after = ""
    while True:
        async with parts.runtime.database.reading() as connection:
            rows = await queries.listed(
                connection, hashes=None, channel=channel, reason=reason, origin=None, after=after, limit=PAGE
            )
            leads = sorted({LeadId(row["lead_id"]) for row in rows if row["lead_id"]})
            profiles = await people.profiles_of(connection, parts.runtime.keys, leads)
        for row in rows:
            profile = profiles.get(row["lead_id"])
            email = profile.fields.get("email") if profile else None
            known = email if email and parts.addresses.hash_of(email) == row["address_hash"] else None
            line = _exported(row, known)
            if kind == "csv":
                yield _csv_line(["" if line.get(name) is None else line[name] for name in EXPORTED])
            else:
                yield orjson.dumps({name: value for name, value in line.items() if value is not None}) + b"\n"
        if len(rows) < PAGE:
            return
        after = rows[-1]["suppression_id"]


def _exported(row: asyncpg.Record, email: str | None) -> dict[str, Any]:
    """One entry by one name: an address, a domain or a role, else the hash, else the lead."""
    named = email or row["value"]
    return {
        "kind": row["kind"] or ("address" if row["address_hash"] else "lead"),
        "email": email,
        "domain": row["value"] if row["kind"] == "domain" else None,
        "role": row["value"] if row["kind"] == "role" else None,
        "address_hash": None if named else row["address_hash"],
        "lead_id": None if named else row["lead_id"],
        "channel": row["channel"],
        "reason": row["reason"],
        "since": row["since"].isoformat(),
        "origin": row["origin"],
    }


def _csv_line(cells: Any) -> bytes:
    # What a spreadsheet would take for a formula is a text.
    safe = [f"'{cell}" if str(cell)[:1] in ("=", "+", "-", "@") else cell for cell in cells]
    out = io.StringIO()
    csv.writer(out).writerow(safe)
    return out.getvalue().encode()
