"""Double opt-in: consent that counts once somebody who reads the mailbox followed a link and pressed its button."""

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta

import orjson

from services.capture.consent.domain import ConsentWord
from services.capture.consent.handlers import tell_words_of
from services.capture.consent.queries import consents_of
from services.capture.errors import NoSuchConfirmation
from services.capture.forms import queries
from services.capture.forms.queries import Optin
from services.capture.forms.tokens import FormTokens
from services.capture.leads.telling import Cause
from services.capture.leads.views import family_of
from services.capture.settings import CaptureSettings
from shared.consents import latest_consents
from shared.db import Connection, Tx
from shared.events import ConsentEvidence, OptinPersonal, OptinRequested
from shared.ids import EventId, LeadId, derived_id
from shared.personal import Draft, PersonKeys
from shared.service import Runtime

METHOD = "double_opt_in"


async def granted_already(lead_id: LeadId, words: Sequence[ConsentWord], tx: Tx, keys: PersonKeys) -> bool:
    """Whether a person allows all of this anyway, so that there is nothing to confirm."""
    members = sorted((await family_of(tx.connection, lead_id, keys)).members)
    known = latest_consents(await consents_of(tx.connection, members))
    found = [known.get((word.channel, word.purpose)) for word in words]
    return all(consent is not None and consent.state == "granted" for consent in found)


async def ask_to_confirm(  # noqa: PLR0913  # what was asked for, of whom, and by which form
    form_id: str,
    version: int,
    form_name: str,
    submission_id: str,
    language: str,
    lead_id: LeadId,
    email: str,
    words: Sequence[ConsentWord],
    cause: Cause,
    tx: Tx,
    runtime: Runtime,
    settings: CaptureSettings,
) -> None:
    """Have one message sent with a link that confirms; no other while that is fresh, and few in a day."""
    now = cause.received_at
    address_hash = hmac.digest(runtime.secrets.derive("optin-addresses"), email.encode(), "sha256").hex()
    await queries.take_turn(tx.connection, f"optin/{address_hash}")
    fresh = await queries.fresh_optin(tx.connection, address_hash, form_id, lead_id, now - settings.optin_pause)
    if fresh is not None:  # the link that is on its way confirms this as well
        before, _ = words_in(fresh, runtime)
        known = {(word.channel, word.purpose) for word in words}
        both = [*(word for word in before if (word.channel, word.purpose) not in known), *words]
        sealed = _sealed(fresh.optin_id, both, language, runtime)
        await tx.connection.execute(queries.ADD_WORDS, fresh.optin_id, sealed)
        return
    if await queries.asked_since(tx.connection, address_hash, now - timedelta(days=1)) >= settings.optin_daily:
        return  # nobody can fill a stranger's mailbox
    optin_id = derived_id("optin", submission_id, lead_id)
    expires_at = now + settings.optin_valid_for
    new = Optin(
        optin_id=optin_id,
        form_id=form_id,
        version=version,
        submission_id=submission_id,
        lead_id=lead_id,
        sealed=_sealed(optin_id, words, language, runtime),
        requested_at=now,
        expires_at=expires_at,
        confirmed_at=None,
    )
    if not await queries.add_optin(tx.connection, new, address_hash):
        return
    base = runtime.settings.public_url.rstrip("/")
    link = f"{base}/capture/confirm/{FormTokens(runtime.secrets).link_token(optin_id)}"
    fact = OptinRequested(
        event_id=EventId(derived_id("optin-requested", optin_id)),
        lead_id=lead_id,
        occurred_at=cause.occurred_at,
        received_at=now,
        optin_id=optin_id,
        form_id=form_id,
        form_name=form_name,
        language=language,
        expires_at=expires_at,
    )
    personal = OptinPersonal(email=email, confirm_url=link).model_dump_json().encode()
    await runtime.keys.emit_drafts(tx, [Draft(fact, personal)])


async def to_confirm(connection: Connection, token: str, runtime: Runtime, now: datetime) -> Optin:
    """What a link confirms or has confirmed. Raises NoSuchConfirmation."""
    optin_id = FormTokens(runtime.secrets).read_link_token(token)
    found = await queries.optin(connection, optin_id) if optin_id else None
    if found is None or not _is_valid(found, now):
        raise NoSuchConfirmation("this link was not made here, or it is too old")
    return found


async def confirm(  # noqa: PLR0913  # by which link, from where
    token: str, network: str | None, user_agent: str | None, now: datetime, tx: Tx, runtime: Runtime
) -> Optin:
    """Grant what a link confirms, with how that can be proven; again changes nothing. Raises NoSuchConfirmation."""
    asked = await to_confirm(tx.connection, token, runtime, now)
    found = await queries.optin(tx.connection, asked.optin_id, lock=True)
    if found is None or not _is_valid(found, now):
        raise NoSuchConfirmation("this link is too old")
    if found.confirmed_at is not None:
        return found
    words, _ = words_in(found, runtime)
    granted = [_granted(word, found, network, user_agent) for word in words]
    cause = Cause(found.form_id, now, now, reason=f"{METHOD} {found.optin_id}")
    await tell_words_of(LeadId(found.lead_id), granted, cause, tx, runtime)
    await tx.connection.execute(queries.CONFIRM, found.optin_id, now)
    return found


def words_in(found: Optin, runtime: Runtime) -> tuple[list[ConsentWord], str]:
    """What was agreed to, to be confirmed, and the language it was read in; nothing after it was confirmed."""
    if found.sealed is None:
        return [], ""
    kept = runtime.keys.open_request(found.sealed, f"optin/{found.optin_id}")
    told = orjson.loads(orjson.dumps(kept["words"]))
    words = [
        ConsentWord(each["channel"], "pending", each["purpose"], ConsentEvidence(**each["evidence"])) for each in told
    ]
    return words, str(kept["language"])


def _is_valid(found: Optin, now: datetime) -> bool:
    if found.confirmed_at is not None:
        return True
    return found.sealed is not None and now < found.expires_at


def _sealed(optin_id: str, words: Sequence[ConsentWord], language: str, runtime: Runtime) -> str:
    told = [
        {
            "channel": word.channel,
            "purpose": word.purpose,
            "evidence": word.evidence.model_dump(exclude_none=True) if word.evidence else {"method": "form"},
        }
        for word in words
    ]
    return runtime.keys.seal_request({"words": told, "language": language}, f"optin/{optin_id}")


def _granted(word: ConsentWord, found: Optin, network: str | None, user_agent: str | None) -> ConsentWord:
    asked = word.evidence or ConsentEvidence(method=METHOD)
    note = f"asked for at {found.requested_at.isoformat()}"
    evidence = asked.model_copy(update={"method": METHOD, "ip": network, "user_agent": user_agent, "note": note})
    return ConsentWord(word.channel, "granted", word.purpose, evidence)
