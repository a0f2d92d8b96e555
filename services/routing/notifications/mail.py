"""What a rep is told, as an email."""

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parseaddr

from services.routing.notifications.domain import Told
from shared.smtp import Envelope


def compose(notification_id: str, sender: str, recipient: str, message: Told) -> Envelope:
    """The email; its id is the notification's, so that one that arrives twice can be seen to."""
    _, address = parseaddr(sender)
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = message.subject
    mail["Message-ID"] = f"<{notification_id}@{address.rpartition('@')[2] or 'localhost'}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(f"{message.text}\n\n{message.link}\n")
    return Envelope(address, recipient, mail.as_bytes())
