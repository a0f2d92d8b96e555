"""SMTP, with an eye on the one question that matters: can the server have taken the message?"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from urllib.parse import unquote, urlsplit

from aiosmtplib import SMTP, SMTPException, SMTPResponseException

from shared.events import MessageState

IDLE_S = 10.0
WITHDRAWN = "the claim ran out before the message was handed over"
LONGEST_REASON = 300
_LOGIN_NEEDED = 530
_BY_POLICY = "5.7."
_SCHEMES = {"smtp": 25, "smtps": 465}
_ADDRESS = re.compile(r"[^\s<>\"'(),:;]+@[^\s<>\"'(),:;]+")
_NUMBER = re.compile(r"\+?\d{8,}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who it is from and to, and the bytes that go over the wire."""

    sender: str
    recipient: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the provider made of a message. `retry` only when it certainly did not take it.

    `in_trouble` says that the reason is the provider itself, and not this message; `pause` how long it wants to be left
    alone. `provider` is who has it or may have it, `provider_id` the id under which they know it.
    """

    state: MessageState
    reason: str
    retry: bool = False
    in_trouble: bool = False
    pause: timedelta = timedelta()
    provider: str | None = None
    provider_id: str | None = None


Phase = Literal["envelope", "recipient", "data"]


def outcome_of_reply(code: int, text: str, phase: Phase) -> Outcome:
    """What an SMTP reply means. A reply is certain in every phase: only its absence is not.

    What is refused before a recipient is named, or for want of a login, says nothing about the message, and is tried
    again. A refusal by policy (`5.7.…` of RFC 3463: relay denied, sender blocked) says nothing about the address.
    """
    said = without_addresses(f"{code} {text}").strip()
    if 200 <= code < 300:
        return Outcome("sent", said)
    ours = phase == "envelope" or code == _LOGIN_NEEDED
    if code < 500 or ours:
        return Outcome("planned", f"the server said {said}", retry=True, in_trouble=ours)
    if phase == "recipient" and not text.startswith(_BY_POLICY):
        return Outcome("bounced", f"the server refused the address: {said}")
    return Outcome("failed", f"the server said {said}")


def outcome_of_silence(phase: Phase, what: str) -> Outcome:
    """What it means that no reply came: before DATA nothing was sent, afterwards nobody knows."""
    if phase != "data":
        return Outcome("planned", f"the server was not reached: {what}", retry=True, in_trouble=True)
    return Outcome("unknown", f"no reply came after the message was handed over: {what}", in_trouble=True)


def without_addresses(said: str) -> str:
    """What a provider said, without people's addresses and numbers that it may repeat: reasons are told in clear."""
    return _NUMBER.sub("(number)", _ADDRESS.sub("(address)", said[: 4 * LONGEST_REASON]))[:LONGEST_REASON]


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
    """Hands emails to one server over a few connections, each kept while it lasts. Several tasks may share it.

    `at_once` says for a recipient's domain how many emails may be under way to it.
    """

    def __init__(
        self, server: Server, timeout_s: float, connections: int = 1, at_once: Mapping[str, int] | None = None
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(connections)
        self._turns_by_domain = {domain: asyncio.Semaphore(most) for domain, most in (at_once or {}).items()}
        self._idle: list[tuple[SMTP, float]] = []

    async def deliver(self, envelope: Envelope, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand over one email. Never raises for what the server or the network does.

        `still_wanted` is asked at the last moment at which nothing has left yet.
        """
        phase: Phase = "envelope"
        smtp: SMTP | None = None
        has_turn = False
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._wait_for(turn, envelope.recipient)
                    has_turn = True
                    smtp = await self._begin(envelope.sender)
                    phase = "recipient"
                    await smtp.rcpt(envelope.recipient)
                    if not still_wanted():
                        await _part(smtp)
                        return Outcome("planned", WITHDRAWN, retry=True)
                    phase = "data"
                    response = await smtp.data(envelope.content)
            except SMTPResponseException as refusal:
                if smtp is not None:
                    await _part(smtp)
                return outcome_of_reply(refusal.code, refusal.message, phase)
            except (SMTPException, OSError, TimeoutError) as silence:
                if not has_turn:
                    return Outcome("planned", "no connection became free in time", retry=True)
                if smtp is not None:
                    smtp.close()
                return outcome_of_silence(phase, type(silence).__name__)
            except BaseException:
                if smtp is not None:
                    smtp.close()
                raise
            self._idle.append((smtp, time.monotonic()))
            return outcome_of_reply(response.code, response.message, phase)

    async def close(self) -> None:
        """Say goodbye to the server, on every connection that is idle."""
        idle, self._idle = self._idle, []
        for smtp, _ in idle:
            await _part(smtp)

    async def _wait_for(self, turn: AsyncExitStack, recipient: str) -> None:
        """Wait for a turn: first of the recipient's domain, so that a busy one takes no connection from others."""
        of_domain = self._turns_by_domain.get(recipient.rpartition("@")[2].lower())
        if of_domain is not None:
            await turn.enter_async_context(of_domain)
        await turn.enter_async_context(self._turns)

    async def _begin(self, sender: str) -> SMTP:
        """Start a message, over an open connection if the server still keeps one."""
        while self._idle:
            smtp, used_at = self._idle.pop()
            if time.monotonic() - used_at < IDLE_S:
                with suppress(SMTPException, OSError):
                    await smtp.mail(sender)
                    return smtp
            await _part(smtp)
        server = self._server
        smtp = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.tls,
            username=server.user,
            password=server.password,
            timeout=self._timeout_s,
        )
        try:
            await smtp.connect()
            await smtp.mail(sender)
        except BaseException:
            smtp.close()
            raise
        return smtp


async def _part(smtp: SMTP) -> None:
    """Say goodbye on a connection, and close it."""
    with suppress(SMTPException, OSError, TimeoutError):
        async with asyncio.timeout(1):
            await smtp.quit()
    smtp.close()
