"""A message shown as somebody would get it, without sending it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.nurture.errors import NoSuchLead
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.sending.mail import plain_html, sender_name
from services.nurture.templates.document import Utm, Words
from services.nurture.templates.findings import Finding, findings
from services.nurture.templates.rendering import CannotRender
from shared.db import Connection
from shared.identity import find_by_email, resolve
from shared.ids import LeadId


@dataclass(frozen=True, slots=True)
class Preview:
    """A message as it would be, or the reason why it cannot be."""

    language: str
    subject: str = ""
    text: str = ""
    html: str = ""
    links: tuple[str, ...] = ()
    warnings: tuple[Finding, ...] = ()
    fault: str | None = None


async def lead_by(
    connection: Connection, parts: Parts, lead_id: str | None, email: str | None
) -> Mapping[str, Any] | None:
    """What messages may say of a real lead; None when none is named. Raises NoSuchLead."""
    if email is not None:
        person_id = await find_by_email(connection, parts.runtime.ids, email)
    elif lead_id is not None:
        person_id = await resolve(connection, LeadId(lead_id))
    else:
        return None
    person = await people.load_person(connection, parts.addresses, parts.runtime.keys, person_id)
    if not person.known or person.erased:
        raise NoSuchLead(f"nothing is known of a lead {lead_id or 'with this address'}")
    values: Mapping[str, Any] = person.values().get("lead", {})
    return {name: value for name, value in values.items() if name != "consent"}


async def preview(  # noqa: PLR0913  # what a message is made of
    parts: Parts, words: Words, lead: Mapping[str, Any], *, sequence: str, utm: Utm | None, needs_leave: bool
) -> Preview:
    """The message to a lead; where a value is missing its name stands in its place."""
    context = {
        "lead": lead,
        "sequence": {"name": sequence},
        "sender": {"name": sender_name(parts.runtime.settings.mail_from)},
        "site_url": parts.site_url,
        "unsubscribe_url": f"{parts.runtime.settings.public_url.rstrip('/')}/nurture/u/…",
    }
    try:
        rendered = await parts.renderer.render(words, context, footer=needs_leave, utm=utm, lenient=True)
    except CannotRender as exc:
        return Preview(words.language, fault=str(exc))
    html = plain_html(rendered)
    found = tuple(findings(rendered, html, needs_leave=needs_leave))
    return Preview(words.language, rendered.subject, rendered.text, html, rendered.links, found)
