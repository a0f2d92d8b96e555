"""A message as an email: headers that cannot be injected into, text and HTML, ways to leave."""

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime
from html import escape

from services.nurture.sequences.document import Purpose
from services.nurture.templates.rendering import Rendered
from services.nurture.tracking.links import Links
from shared.consents import needs_consent
from shared.ids import MessageId, SequenceId

_PIXEL = '<img src="{}" width="1" height="1" alt="" style="display:block">'
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_VERBATIM = frozenset({"list-unsubscribe", "message-id", "list-id", "x-throughline-message"})


class NotMailable(Exception):
    """This message can never be an email: a header or an address is not what it claims to be."""


class _Policy(EmailPolicy):
    """Strict; the headers that hold our own long tokens stay in one piece, for folding would encode them."""

    def fold(self, name: str, value: str) -> str:
        return f"{name}: {value}\r\n" if name.lower() in _VERBATIM else super().fold(name, value)

    def fold_binary(self, name: str, value: str) -> bytes:
        return self.fold(name, value).encode("ascii") if name.lower() in _VERBATIM else super().fold_binary(name, value)


_POLICY = _Policy(raise_on_defect=True, linesep="\r\n")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who it is from and to, and the bytes that go over the wire."""

    sender: str
    recipient: str
    content: bytes


def one_line(text: str, what: str) -> str:
    """Text for a header. Raises NotMailable when it holds a line break of any kind."""
    if _BREAKS.search(text):
        raise NotMailable(f"{what} holds a line break or a control character")
    return unicodedata.normalize("NFC", text).strip()


def name_and_address(sender: str) -> tuple[str, str]:
    """The two parts of `Name <address>`; a name may hold what it likes."""
    name, bracket, rest = sender.rpartition("<")
    return (name.strip().strip('"'), rest.strip().removesuffix(">")) if bracket else ("", sender.strip())


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


def tracked_html(rendered: Rendered, links: Links, message_id: MessageId) -> str:
    """The HTML with our addresses in place of the markers, and the open pixel."""
    html = re.sub(
        re.escape(rendered.marker) + r"(\d+)\.",
        lambda match: links.address("c", message_id, int(match[1])),
        rendered.html,
    )
    pixel = _PIXEL.format(links.address("o", message_id))
    head, closing, rest = html.rpartition("</body>")
    return f"{head}{pixel}{closing}{rest}" if closing else f"<!doctype html><html><body>{html}{pixel}</body></html>"


def plain_html(rendered: Rendered) -> str:
    """The HTML with its links as they were written, and nothing that tells of an open."""
    links = rendered.links
    html = re.sub(re.escape(rendered.marker) + r"(\d+)\.", lambda match: escape(links[int(match[1])]), rendered.html)
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
    message = EmailMessage(policy=_POLICY)
    try:
        message["From"] = Address(name, from_address.username, from_address.domain)
        message["To"] = to_address
        message["Subject"] = one_line(rendered.subject, "the subject")
        message["Date"] = format_datetime(at)
        message["Message-ID"] = f"<{message_id}@{from_address.domain}>"
        message["X-Throughline-Message"] = message_id
        message["List-Id"] = f"<{sequence_id}.{from_address.domain}>"
        if needs_consent(purpose):
            message["List-Unsubscribe"] = f"<{links.address('u', message_id)}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(rendered.text, cte="quoted-printable")
        html = tracked_html(rendered, links, message_id) if tracked else plain_html(rendered)
        message.add_alternative(html, subtype="html", cte="quoted-printable")
        content = message.as_bytes()
    except (MessageError, ValueError) as exc:
        raise NotMailable(f"the message cannot be written as an email: {type(exc).__name__}") from exc
    return Envelope(from_address.addr_spec, to_address.addr_spec, content)
