"""A message as an email: headers that cannot be injected into, text and HTML, ways to leave."""

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import format_datetime
from html import escape

from services.nurture.sending.mime import BREAKS, header, mailbox, words, written
from services.nurture.sequences.document import Purpose
from services.nurture.templates.rendering import Rendered
from services.nurture.tracking.links import Links
from shared.consents import needs_consent
from shared.ids import MessageId, SequenceId
from shared.smtp import Envelope

_PIXEL = '<img src="{}" width="1" height="1" alt="" style="display:block">'
# Nobody sees it, and no reading aid tells of it: only what follows every address that it finds does.
_TRAP = '<a href="{}" rel="nofollow" tabindex="-1" aria-hidden="true" style="display:none"></a>'
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


class NotMailable(Exception):
    """This message can never be an email: a header or an address is not what it claims to be."""


def one_line(text: str, what: str) -> str:
    """Text for a header. Raises NotMailable when it holds a line break of any kind."""
    if BREAKS.search(text):
        raise NotMailable(f"{what} holds a line break or a control character")
    return unicodedata.normalize("NFC", text).strip()


def name_and_address(sender: str) -> tuple[str, str]:
    """The two parts of `Name <address>`; a name may hold what it likes."""
    name, bracket, rest = sender.rpartition("<")
    return (name.strip().strip('"'), rest.strip().removesuffix(">")) if bracket else ("", sender.strip())


def sender_name(sender: str) -> str:
    """How messages name their sender: by its name, or by its domain where it is an address alone."""
    name, address = name_and_address(sender)
    return name or address.rpartition("@")[2]


def address_of(email: str, what: str) -> Address:
    """One address, and nothing but one. Raises NotMailable."""
    local, _, domain = one_line(email, what).rpartition("@")
    try:
        host = domain.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not (_LOCAL.fullmatch(local) and _HOST.fullmatch(host)):
        raise NotMailable(f"{what} is not an address that mail can go to")
    return Address(username=local, domain=host)


def with_addresses(written: str, marker: str, address: Callable[[int], str]) -> str:
    """What was written with an address in place of each marker, which ends with a number and a full stop."""
    first, *rest = written.split(marker)
    parts = (part.partition(".") for part in rest)
    return first + "".join(address(int(number)) + after for number, _, after in parts)


def tracked_html(rendered: Rendered, links: Links, message_id: MessageId) -> str:
    """The HTML with our addresses in place of the markers, the link that nobody sees, and the open pixel."""
    html = with_addresses(rendered.html, rendered.marker, lambda number: links.address("c", message_id, number))
    pixel = _TRAP.format(links.address("h", message_id)) if links.traps else ""
    pixel += _PIXEL.format(links.address("o", message_id))
    head, closing, rest = html.rpartition("</body>")
    return f"{head}{pixel}{closing}{rest}" if closing else f"<!doctype html><html><body>{html}{pixel}</body></html>"


def plain_html(rendered: Rendered) -> str:
    """The HTML with its links as they were written, and nothing that tells of an open."""
    links = rendered.links
    html = with_addresses(rendered.html, rendered.marker, lambda number: escape(links[number]))
    return html if "<html" in html.lower() else f"<!doctype html><html><body>{html}</body></html>"


def compose(  # noqa: PLR0913  # what an email is made of
    rendered: Rendered,
    links: Links,
    *,
    message_id: MessageId,
    sequence_id: SequenceId,
    purpose: Purpose,
    sender: str,
    recipient: str,
    at: datetime,
    tracked: bool = True,
) -> Envelope:
    """The email. Its Message-ID follows from the message's id. Raises NotMailable."""
    name, from_email = name_and_address(sender)
    from_address = address_of(from_email, "the sender")
    to_address = address_of(recipient, "the recipient")
    domain = from_address.domain
    try:
        headers = [
            mailbox("From", name, from_address.username, domain),
            words("To", to_address.addr_spec),
            words("Subject", one_line(rendered.subject, "the subject")),
            header("Date", format_datetime(at)),
            header("Message-ID", f"<{message_id}@{domain}>"),
            header("X-Throughline-Message", message_id),
            header("List-Id", f"<{sequence_id}.{domain}>"),
        ]
        if needs_consent(purpose):
            headers.append(header("List-Unsubscribe", f"<{links.address('u', message_id)}>"))
            headers.append(header("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
        html = tracked_html(rendered, links, message_id) if tracked else plain_html(rendered)
        content = written(headers, rendered.text, html)
    except (MessageError, ValueError) as exc:
        raise NotMailable(f"the message cannot be written as an email: {type(exc).__name__}") from exc
    return Envelope(from_address.addr_spec, to_address.addr_spec, content)
