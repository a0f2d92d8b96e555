"""Somebody sent a form: decide whether a person has to look at it first, else make the lead, the touch, the consent."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from services.capture.adapters.fields import person_of
from services.capture.consent.domain import ConsentWord
from services.capture.errors import NoSuchSubmission
from services.capture.facts.domain import encode_touch
from services.capture.facts.inputs import TouchFields
from services.capture.forms import queries
from services.capture.forms.confirming import ask_to_confirm, granted_already
from services.capture.forms.document import FormDocument, said
from services.capture.forms.domain import Answers, Context, Values, fingerprint_of, read_answers
from services.capture.forms.queries import NewSubmission
from services.capture.leads.domain import FIELDS
from services.capture.leads.handlers import Captured, LeadCall, capture_lead
from services.capture.leads.identifying import Named
from services.capture.leads.inputs import statements_of
from services.capture.leads.telling import Cause
from services.capture.settings import CaptureSettings
from services.capture.sites.domain import referrer_of, visit_of
from shared.db import Tx
from shared.events import ConsentEvidence
from shared.ids import derived_id, new_id
from shared.service import Runtime
from shared.telemetry import counter

SUBMISSIONS = counter("throughline_form_submissions_total", "What was sent with forms, by what became of it", ["state"])
SAME_WITHIN = timedelta(minutes=5)
MOST_CORRECTIONS = 3
REUSED = "sent_too_often"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What somebody sent: the form as they saw it, what they typed, and how they came there."""

    submission_id: str
    form_id: str
    version: int
    document: FormDocument
    values: Values
    context: Context
    language: str
    network: str | None
    user_agent: str | None
    received_at: datetime
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of it; `asked`: a link to confirm is on its way."""

    submission_id: str
    asked: bool


async def submit(sent: Submission, tx: Tx, runtime: Runtime, settings: CaptureSettings) -> Taken:
    """Take what was sent, once. The answers must be without faults.

    The same answers again within minutes are the same submission; other answers with the same form in hand correct it,
    a few times.
    """
    connection = tx.connection
    asked = _asks(sent)
    fingerprint = fingerprint_of(runtime.secrets.derive("form-answers"), sent.form_id, sent.values)
    await queries.take_turn(connection, fingerprint)
    if await queries.sent_lately(
        connection, fingerprint, sent.received_at - SAME_WITHIN, suspicious=bool(sent.reasons)
    ):
        SUBMISSIONS.labels("again").inc()
        return Taken(sent.submission_id, asked)
    standing = await queries.standing_of(connection, sent.submission_id)
    if standing is not None and (standing[1] > MOST_CORRECTIONS or standing[0] in ("released", "discarded")):
        sent = replace(sent, submission_id=new_id(), reasons=(*sent.reasons, REUSED))
    elif standing is not None and standing[0] == "accepted" and sent.reasons:
        sent = replace(sent, submission_id=new_id())
    state = "spam" if sent.reasons else "accepted"
    lead_id = _review_id(sent, runtime) if sent.reasons else (await _carry_out(sent, tx, runtime, settings)).lead_id
    sealed = _sealed(sent, runtime) if sent.reasons else None
    await queries.save_submission(
        connection,
        NewSubmission(
            submission_id=sent.submission_id,
            form_id=sent.form_id,
            version=sent.version,
            state=state,
            reasons=sent.reasons,
            fingerprint=fingerprint,
            lead_id=lead_id,
            sealed=sealed,
            received_at=sent.received_at,
        ),
    )
    SUBMISSIONS.labels(state).inc()
    return Taken(sent.submission_id, asked)


async def release(  # noqa: PLR0913  # what is released, by whom
    form_id: str, submission_id: str, actor: str, tx: Tx, runtime: Runtime, settings: CaptureSettings
) -> None:
    """Carry out a submission after all: somebody looked at it. Raises NoSuchSubmission."""
    sent = await _in_review(form_id, submission_id, tx, runtime)
    captured = await _carry_out(sent, tx, runtime, settings)
    await tx.connection.execute(queries.DECIDE, submission_id, "released", None, captured.lead_id)
    await tx.connection.execute(queries.AUDIT, actor, "submission.released", f"{form_id}/{submission_id}", {})
    SUBMISSIONS.labels("released").inc()


async def discard(  # noqa: PLR0913  # what is given up, by whom, why
    form_id: str, submission_id: str, actor: str, reason: str, tx: Tx, runtime: Runtime
) -> None:
    """Give up on a submission. Who did it and why is kept, what was typed is not. Raises NoSuchSubmission."""
    await _in_review(form_id, submission_id, tx, runtime)
    await tx.connection.execute(queries.DECIDE, submission_id, "discarded", reason, None)
    detail = {"reason": reason}
    await tx.connection.execute(queries.AUDIT, actor, "submission.discarded", f"{form_id}/{submission_id}", detail)
    SUBMISSIONS.labels("discarded").inc()


def opened_submission(sealed: str, submission_id: str, runtime: Runtime) -> dict[str, Any]:
    """What was sealed for a review."""
    return runtime.keys.open_request(sealed, f"submission/{submission_id}")


async def _in_review(form_id: str, submission_id: str, tx: Tx, runtime: Runtime) -> Submission:
    row = await tx.connection.fetchrow(queries.IN_REVIEW, form_id, submission_id)
    if row is None:
        raise NoSuchSubmission("there is no such submission of this form in review")
    document = await queries.form_at(tx.connection, form_id, row["version"])
    assert document is not None, "versions of forms are kept"
    kept = opened_submission(row["sealed"], submission_id, runtime)
    context: Any = kept["context"]
    values: Any = kept["values"]
    return Submission(
        submission_id=submission_id,
        form_id=form_id,
        version=row["version"],
        document=document,
        values=values,
        context=Context(**context),
        language=str(kept["language"]),
        network=_text(kept["network"]),
        user_agent=_text(kept["user_agent"]),
        received_at=row["received_at"],
    )


async def _carry_out(sent: Submission, tx: Tx, runtime: Runtime, settings: CaptureSettings) -> Captured:
    """The lead, the touch, and the consent of a submission, in the caller's transaction."""
    answers = read_answers(sent.document, sent.values)
    person = person_of(dict(answers.told), None)
    named = Named(
        email=person.email,
        phone=await _phone_to_name(person.email, person.phone, tx, runtime),
        anonymous_id=sent.context.anonymous_id,
        origin=sent.form_id,
    )
    fields = {name: getattr(person, name) for name in FIELDS}
    cause = Cause(sent.form_id, sent.received_at, sent.received_at)
    words = _words(sent, answers)
    call = LeadCall(named=named, told=dict(statements_of(fields, person.attributes, {})), cause=cause, consent=words)
    captured = await capture_lead(call, tx, runtime)
    assert captured is not None, "nobody is erased since a call that is answered now"
    await _tell_touch(sent, captured, tx, runtime)
    pending = [word for word in words if word.state == "pending"]
    if pending and person.email and not await granted_already(captured.lead_id, pending, tx, runtime.keys):
        await ask_to_confirm(
            sent.form_id,
            sent.version,
            sent.document.name,
            sent.submission_id,
            sent.language,
            captured.attached,
            person.email,
            pending,
            cause,
            tx,
            runtime,
            settings,
        )
    return captured


async def _phone_to_name(email: str | None, phone: str | None, tx: Tx, runtime: Runtime) -> str | None:
    """The phone number as an identifier: not one that is somebody's, beside an address that anybody may have typed."""
    if phone is None or email is None:
        return phone
    return None if await queries.is_taken(tx.connection, runtime.ids.of_phone(phone)) else phone


def _asks(sent: Submission) -> bool:
    return sent.document.double_opt_in and bool(read_answers(sent.document, sent.values).agreed)


def _words(sent: Submission, answers: Answers) -> Sequence[ConsentWord]:
    """What was agreed to, with the text as it was shown. A box that is left empty says nothing."""
    return [
        ConsentWord(
            channel=box.channel,
            state="pending" if sent.document.double_opt_in else "granted",
            purpose=box.purpose,
            evidence=ConsentEvidence(
                method="form",
                text=said(box.text, sent.language, sent.document.language),
                text_version=str(sent.version),
                form_id=sent.form_id,
                url=sent.context.url,
                ip=sent.network,
                user_agent=sent.user_agent,
                reference=f"submission {sent.submission_id}",
            ),
        )
        for box in sent.document.consents
        if box.id in answers.agreed
    ]


async def _tell_touch(sent: Submission, captured: Captured, tx: Tx, runtime: Runtime) -> None:
    context = sent.context
    visit = visit_of(context.url, context.session_url)
    touch = TouchFields.model_construct(
        touch_id=derived_id("form-touch", sent.submission_id, captured.attached),
        type=sent.document.touch_type,
        channel=None,
        source=visit.source,
        medium=visit.medium,
        campaign=visit.campaign,
        content=visit.content,
        url=context.url,
        referrer=referrer_of(context.url, context.referrer, context.session_referrer),
        occurred_at=None,
        properties=_properties(sent),
    )
    encoded = encode_touch(
        touch,
        lead_id=captured.attached,
        occurred_at=sent.received_at,
        received_at=sent.received_at,
        origin=sent.form_id,
        anonymous_id=context.anonymous_id,
        click_ids=visit.click_ids,
    )
    await runtime.keys.emit_drafts(tx, [encoded])


def _properties(sent: Submission) -> dict[str, Any]:
    return {
        "form_id": sent.form_id,
        "form_name": sent.document.name,
        "form_version": sent.version,
        "language": sent.language,
    }


def _review_id(sent: Submission, runtime: Runtime) -> str | None:
    """Whose data a submission in review may hold, so that an erasure finds it."""
    told = read_answers(sent.document, sent.values).told
    email, phone = told.get("email"), told.get("phone")
    if email:
        return runtime.ids.of_email(email)
    return runtime.ids.of_phone(phone) if phone else None


def _sealed(sent: Submission, runtime: Runtime) -> str:
    kept: dict[str, object] = {
        "values": {name: list(given) for name, given in sent.values.items() if not name.startswith("_")},
        "context": asdict(sent.context),
        "language": sent.language,
        "network": sent.network,
        "user_agent": sent.user_agent,
    }
    return runtime.keys.seal_request(kept, f"submission/{sent.submission_id}")


def _text(value: object) -> str | None:
    return None if value is None else str(value)
