"""A local mail server that keeps what it is given: what the leads would find in their inboxes."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

_CLICK = re.compile(r'href="([^"]*/nurture/c/[^"]+)"')


@dataclass(frozen=True)
class Mail:
    """A message as it arrived."""

    to: str
    message: EmailMessage
    arrived: float = field(default_factory=time.monotonic)

    @property
    def subject(self) -> str:
        """The subject line."""
        return str(self.message["subject"])

    @property
    def text(self) -> str:
        """The plain text part."""
        part = self.message.get_body(("plain",))
        return str(part.get_content()).strip() if part is not None else ""

    @property
    def first_link(self) -> str:
        """The first tracked link of the HTML part. Raises LookupError when there is none."""
        part = self.message.get_body(("html",))
        found = _CLICK.search(str(part.get_content())) if part is not None else None
        if found is None:
            raise LookupError("the message has no tracked link")
        return unescape(found.group(1))


class Inbox:
    """Everything that arrived, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mails: list[Mail] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  # aiosmtpd's name
        """Keep a message."""
        content = envelope.content or b""
        raw = content.encode() if isinstance(content, str) else content
        message = message_from_bytes(raw, policy=policy.default)
        with self._lock:
            self._mails.extend(Mail(recipient, message) for recipient in envelope.rcpt_tos)
        return "250 kept"

    def to(self, address: str) -> list[Mail]:
        """What arrived for an address."""
        with self._lock:
            return [mail for mail in self._mails if mail.to == address]

    def all(self) -> list[Mail]:
        """What arrived."""
        with self._lock:
            return list(self._mails)


@contextmanager
def inbox(host: str, port: int) -> Iterator[Inbox]:
    """A mail server for the length of a block."""
    kept = Inbox()
    controller = Controller(kept, hostname=host, port=port)
    controller.start()
    try:
        yield kept
    finally:
        controller.stop()
