"""The statements about forms, what was sent with them, and what is to be confirmed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from services.capture.forms.document import FormDocument, stored_document
from services.capture.reading import looks_like_id
from shared.db import Connection, one

ADD_FORM = "INSERT INTO forms (form_id, version) VALUES ($1, 1)"
ADD_VERSION = "INSERT INTO form_versions (form_id, version, document, author) VALUES ($1, $2, $3, $4)"
NEXT_VERSION = """
UPDATE forms SET version = version + 1, updated_at = clock_timestamp() WHERE form_id = $1 RETURNING version
"""
FORM = """
SELECT form_id, version, document, author, forms.created_at, forms.updated_at
FROM forms JOIN form_versions USING (form_id, version) WHERE form_id = $1
"""
AT_VERSION = "SELECT document FROM form_versions WHERE form_id = $1 AND version = $2"
FORMS = """
SELECT form_id, version, document, author, forms.created_at, forms.updated_at
FROM forms JOIN form_versions USING (form_id, version) WHERE form_id > $1 ORDER BY form_id LIMIT $2
"""
TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtextextended('form-submission/' || $1, 0))"
SAME = """
SELECT submission_id FROM form_submissions
WHERE fingerprint = $1 AND received_at > $2 AND (state IN ('accepted', 'released') OR ($3 AND state = 'spam')) LIMIT 1
"""
SUBMISSION = "SELECT state, received FROM form_submissions WHERE submission_id = $1 FOR UPDATE"
ADD_SUBMISSION = """
INSERT INTO form_submissions (
    submission_id, form_id, version, state, reasons, fingerprint, lead_id, sealed, received_at
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (submission_id) DO UPDATE
SET state = excluded.state, reasons = excluded.reasons, fingerprint = excluded.fingerprint, lead_id = excluded.lead_id,
    sealed = excluded.sealed, received = form_submissions.received + 1, handled_at = clock_timestamp()
"""
IN_REVIEW = """
SELECT form_id, version, sealed, received_at FROM form_submissions
WHERE form_id = $1 AND submission_id = $2 AND state = 'spam' AND sealed IS NOT NULL FOR UPDATE
"""
DECIDE = """
UPDATE form_submissions SET state = $2, note = $3, lead_id = coalesce($4, lead_id), sealed = NULL,
    handled_at = clock_timestamp()
WHERE submission_id = $1
"""
SHOW = """
SELECT submission_id, version, state, reasons, received, lead_id, note, received_at, handled_at, sealed
FROM form_submissions WHERE form_id = $1 AND submission_id = $2
"""
SUBMISSIONS = """
SELECT submission_id, version, state, reasons, received, lead_id, note, received_at, handled_at FROM form_submissions
WHERE form_id = $1 AND ($2::text IS NULL OR state = $2)
  AND ($3::timestamptz IS NULL OR (received_at, submission_id) < ($3, $4))
ORDER BY received_at DESC, submission_id DESC LIMIT $5
"""
AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, $2, $3, $4)"
IS_TAKEN = "SELECT lead_id FROM identifiers WHERE own_id = $1"
ASKED_SINCE = "SELECT count(*) FROM optins WHERE address_hash = $1 AND requested_at > $2 AND confirmed_at IS NULL"
ADD_WORDS = "UPDATE optins SET sealed = $2 WHERE optin_id = $1"
ADD_OPTIN = """
INSERT INTO optins (optin_id, form_id, version, submission_id, lead_id, address_hash, sealed, requested_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING RETURNING optin_id
"""
OPTIN = """
SELECT optin_id, form_id, version, submission_id, lead_id, sealed, requested_at, expires_at, confirmed_at FROM optins
WHERE optin_id = $1
"""
LOCK_OPTIN = OPTIN + " FOR UPDATE"
FRESH_OPTIN = """
SELECT optin_id, form_id, version, submission_id, lead_id, sealed, requested_at, expires_at, confirmed_at FROM optins
WHERE address_hash = $1 AND form_id = $2 AND lead_id = $3 AND requested_at > $4 AND confirmed_at IS NULL
    AND sealed IS NOT NULL
ORDER BY requested_at DESC LIMIT 1 FOR UPDATE
"""
CONFIRM = "UPDATE optins SET confirmed_at = $2, sealed = NULL WHERE optin_id = $1"
EMPTY_SUBMISSIONS = """
UPDATE form_submissions SET sealed = NULL, note = 'nobody looked at it in time' WHERE sealed IS NOT NULL
  AND received_at < $1
"""
EMPTY_OPTINS = "UPDATE optins SET sealed = NULL WHERE sealed IS NOT NULL AND expires_at <= $1"


@dataclass(frozen=True, slots=True)
class FormRow:
    """A form as it is now."""

    form_id: str
    version: int
    document: FormDocument
    author: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewSubmission:
    """What was sent, as it is written down."""

    submission_id: str
    form_id: str
    version: int
    state: str
    reasons: Sequence[str]
    fingerprint: str
    lead_id: str | None
    sealed: str | None
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Optin:
    """Consent that was asked for by a link."""

    optin_id: str
    form_id: str
    version: int
    submission_id: str
    lead_id: str
    sealed: str | None
    requested_at: datetime
    expires_at: datetime
    confirmed_at: datetime | None


async def add_form(connection: Connection, form_id: str, document: Mapping[str, Any], author: str) -> FormRow:
    """Add a form, at version 1."""
    await connection.execute(ADD_FORM, form_id)
    await connection.execute(ADD_VERSION, form_id, 1, document, author)
    return _row(await one(connection, FORM, form_id))


async def save_form(connection: Connection, form_id: str, document: Mapping[str, Any], author: str) -> FormRow | None:
    """Save the next version of a form; None if there is no such form."""
    version = await connection.fetchval(NEXT_VERSION, form_id) if looks_like_id(form_id) else None
    if version is None:
        return None
    await connection.execute(ADD_VERSION, form_id, version, document, author)
    return _row(await one(connection, FORM, form_id))


async def form(connection: Connection, form_id: str) -> FormRow | None:
    """A form as it is now, None if there is none."""
    row = await connection.fetchrow(FORM, form_id) if looks_like_id(form_id) else None
    return _row(row) if row else None


async def form_at(connection: Connection, form_id: str, version: int) -> FormDocument | None:
    """A form as it was at a version."""
    document = await connection.fetchval(AT_VERSION, form_id, version) if looks_like_id(form_id) else None
    return stored_document(document) if document else None


async def forms(connection: Connection, after: str, limit: int) -> list[FormRow]:
    """Forms after one, by their ids."""
    return [_row(row) for row in await connection.fetch(FORMS, after, limit)]


async def take_turn(connection: Connection, fingerprint: str) -> None:
    """Wait for whoever is sending the same at this moment."""
    await connection.execute(TAKE_TURN, fingerprint)


async def sent_lately(connection: Connection, fingerprint: str, since: datetime, *, suspicious: bool) -> bool:
    """Whether the same answers came a moment ago; suspicious ones then count as the same for suspicious ones only."""
    return await connection.fetchrow(SAME, fingerprint, since, suspicious) is not None


async def standing_of(connection: Connection, submission_id: str) -> tuple[str, int] | None:
    """How a submission stands and how often it came, locked; None if it did not."""
    row = await connection.fetchrow(SUBMISSION, submission_id)
    return (row["state"], row["received"]) if row else None


async def save_submission(connection: Connection, new: NewSubmission) -> None:
    """Write down a submission, or what was sent in place of it."""
    await connection.execute(
        ADD_SUBMISSION,
        new.submission_id,
        new.form_id,
        new.version,
        new.state,
        list(new.reasons),
        new.fingerprint,
        new.lead_id,
        new.sealed,
        new.received_at,
    )


async def is_taken(connection: Connection, own_id: str) -> bool:
    """Whether an identifier, by its own id, is somebody's."""
    return await connection.fetchval(IS_TAKEN, own_id) is not None


async def asked_since(connection: Connection, address_hash: str, since: datetime) -> int:
    """How many links an address was sent that nobody followed."""
    return int(await connection.fetchval(ASKED_SINCE, address_hash, since))


async def fresh_optin(
    connection: Connection, address_hash: str, form_id: str, lead_id: str, since: datetime
) -> Optin | None:
    """A link of this form that was sent to an address a moment ago, locked."""
    row = await connection.fetchrow(FRESH_OPTIN, address_hash, form_id, lead_id, since)
    return Optin(**dict(row)) if row else None


async def add_optin(connection: Connection, new: Optin, address_hash: str) -> bool:
    """Write down what a link will confirm. False if that is written down already."""
    added = await connection.fetchval(
        ADD_OPTIN,
        new.optin_id,
        new.form_id,
        new.version,
        new.submission_id,
        new.lead_id,
        address_hash,
        new.sealed,
        new.requested_at,
        new.expires_at,
    )
    return added is not None


async def optin(connection: Connection, optin_id: str, *, lock: bool = False) -> Optin | None:
    """What a link confirms; None if that is forgotten."""
    row = await connection.fetchrow(LOCK_OPTIN if lock else OPTIN, optin_id)
    return Optin(**dict(row)) if row else None


async def empty_old(connection: Connection, reviewed_before: datetime, now: datetime) -> None:
    """Forget what nobody looked at, and what nobody confirmed."""
    await connection.execute(EMPTY_SUBMISSIONS, reviewed_before)
    await connection.execute(EMPTY_OPTINS, now)


def _row(row: asyncpg.Record) -> FormRow:
    fields = dict(row)
    return FormRow(**{**fields, "document": stored_document(fields["document"])})
