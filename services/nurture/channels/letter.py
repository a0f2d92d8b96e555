"""An email taken apart again, for providers that want its parts and not its bytes."""

from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr

from shared.smtp import Envelope

OUR_ID = "throughline_message_id"
"""The name under which our id of a message travels through a provider and back by its webhooks."""
_OURS = "X-Throughline-Message"
_OF_THEIR_OWN = ("Message-ID", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", _OURS)


@dataclass(frozen=True, slots=True)
class Letter:
    """The parts of an email. `headers` are those that must reach the reader as they are."""

    message_id: str
    internet_id: str
    sender: str
    sender_name: str
    sender_address: str
    recipient: str
    subject: str
    text: str
    html: str
    headers: dict[str, str]


def letter_of(envelope: Envelope) -> Letter:
    """The parts of an email that we have composed."""
    message = message_from_bytes(envelope.content, policy=default)
    assert isinstance(message, EmailMessage)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    name, address = parseaddr(str(message["From"]))
    return Letter(
        message_id=str(message[_OURS]),
        internet_id=str(message["Message-ID"]).strip("<>"),
        sender=str(message["From"]),
        sender_name=name,
        sender_address=address,
        recipient=envelope.recipient,
        subject=str(message["Subject"]),
        text=text.get_content() if text else "",
        html=html.get_content() if html else "",
        headers={header: str(message[header]) for header in _OF_THEIR_OWN if message[header]},
    )
