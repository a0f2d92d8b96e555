"""How a connection asks its CRM: with a token that is fetched once for all that waits, and anew when it has ended."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from services.routing.crm.domain import Call, Crm, Reading, Token, Ways
from shared.outbound import Answer, Outbound

TIMEOUT_S = 15.0
EARLIER_S = 60
"""A token is given up so long before its end."""


class NotLetIn(Exception):
    """The CRM gives no token, or tells of no users: what it answered, and what that means."""

    def __init__(self, reading: Reading, answer: Answer) -> None:
        super().__init__(reading.said)
        self.reading, self.answer = reading, answer


@dataclass(slots=True)
class Session:
    """What one process knows of a connection: its token, and the users it has asked for."""

    told_at: datetime
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    token: Token | None = None
    until: float = 0.0
    users: dict[str, tuple[str | None, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Where:
    """A connection as it is told, and what this process knows of it."""

    endpoint_id: str
    crm: Crm
    base_url: str
    auth_url: str | None
    ways: Ways
    credentials: Mapping[str, str]
    session: Session


async def write(outbound: Outbound, where: Where, call: Call, *, tested: bool = False) -> tuple[Reading, Answer]:
    """What an answer to a write means; `tested`, whether there was one at all."""
    answer = await call_with_token(outbound, where, call)
    reading = where.crm.read(answer)
    if tested and answer.is_success:
        reading = Reading("done", f"answered {answer.status}")
    return reading, answer


async def call_with_token(outbound: Outbound, where: Where, call: Call) -> Answer:
    """A call with a token; with another one, once, when the CRM does not take it any more."""
    token = await token_of(outbound, where, None)
    answer = await ask(outbound, where, call, token)
    if where.crm.read(answer).what == "expired" and "token" not in where.credentials:
        answer = await ask(outbound, where, call, await token_of(outbound, where, token))
    return answer


async def ask(outbound: Outbound, where: Where, call: Call, token: Token) -> Answer:
    """A call with this token."""
    url = (token.base_url or where.base_url).rstrip("/") + call.path
    headers = {**call.headers, **where.crm.headers(token.value)}
    return await outbound.call(call.method, url, headers=headers, content=call.body, timeout_s=TIMEOUT_S)


async def token_of(outbound: Outbound, where: Where, refused: Token | None) -> Token:
    """The token of the connection, fetched by one for all; never again the one that was `refused`."""
    session, crm = where.session, where.crm
    call = crm.token_call(where.base_url.rstrip("/"), where.credentials, where.auth_url)
    if call is None:
        return Token(where.credentials["token"], 0)
    async with session.lock:
        if session.token is None or session.token is refused or session.until < time.monotonic():
            session.token = None
            answer = await outbound.call(
                call.method, call.path, headers=call.headers, content=call.body, timeout_s=TIMEOUT_S
            )
            try:
                session.token = crm.token_in(answer)
            except ValueError:
                reading = crm.read(answer)
                if reading.what != "later":  # refusals come with any status
                    reading = Reading("expired", f"answered {answer.status}; look at the credentials")
                raise NotLetIn(no_answer("no token", reading), answer) from None
            session.until = time.monotonic() + max(session.token.lasts_s - EARLIER_S, EARLIER_S)
        return session.token


def no_answer(asked: str, reading: Reading) -> Reading:
    """What it means that something was not told that has to be known before anything is written: nothing is lost."""
    what: Literal["expired", "later"] = "later" if reading.what in ("later", "done") else "expired"
    return replace(reading, what=what, said=f"{asked}: {reading.said}")
