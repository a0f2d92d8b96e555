"""SMTP, with an eye on the one question that matters: can the server have taken the message?"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from services.nurture.sending.domain import Outcome, Phase, outcome_of_reply, outcome_of_silence
from services.nurture.sending.mail import Envelope

IDLE_S = 10.0
_SCHEMES = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Server:
    """A mail server, as `smtp://[user:password@]host:port` names it; `smtps` speaks TLS from the start."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None


def parse_server(url: str) -> Server:
    """The server that THROUGHLINE_SMTP_URL names; raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError("THROUGHLINE_SMTP_URL must look like smtp://host:port")
    return Server(
        parts.hostname,
        parts.port or _SCHEMES[parts.scheme],
        parts.scheme == "smtps",
        unquote(parts.username) if parts.username else None,
        unquote(parts.password) if parts.password else None,
    )


class Mailer:
    """Hands emails to one server, one after the other over one connection while that lasts."""

    def __init__(self, server: Server, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._smtp: SMTP | None = None
        self._used_at = 0.0

    async def deliver(self, envelope: Envelope, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand over one email. Never raises for what the server or the network does.

        `still_wanted` is asked at the last moment at which nothing has left yet.
        """
        phase: Phase = "envelope"
        try:
            async with asyncio.timeout(self._timeout_s):
                smtp = await self._begin(envelope.sender)
                phase = "recipient"
                await smtp.rcpt(envelope.recipient)
                if not still_wanted():
                    await self.close()
                    return Outcome("planned", "the claim ran out before the message was handed over", retry=True)
                phase = "data"
                response = await smtp.data(envelope.content)
        except SMTPResponseException as refusal:
            await self.close()
            return outcome_of_reply(refusal.code, refusal.message, phase)
        except (SMTPException, OSError, TimeoutError) as silence:
            self._drop()
            return outcome_of_silence(phase, type(silence).__name__)
        except BaseException:
            self._drop()
            raise
        self._used_at = time.monotonic()
        return outcome_of_reply(response.code, response.message, phase)

    async def close(self) -> None:
        """Say goodbye to the server."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            with suppress(SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await smtp.quit()
            smtp.close()

    async def _begin(self, sender: str) -> SMTP:
        """Start a message, over the open connection if the server still keeps it."""
        if self._smtp is not None and time.monotonic() - self._used_at < IDLE_S:
            with suppress(SMTPException, OSError):
                await self._smtp.mail(sender)
                return self._smtp
        await self.close()
        server = self._server
        smtp = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            username=server.user,
            password=server.password,
            timeout=self._timeout_s,
        )
        self._smtp = smtp
        await smtp.connect()
        await smtp.mail(sender)
        return smtp

    def _drop(self) -> None:
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.close()
