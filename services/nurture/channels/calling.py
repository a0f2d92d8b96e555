"""Calls of providers' APIs, with an eye on the one question that matters: can the provider have taken the message?"""

import asyncio
import ssl
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import orjson

from services.nurture.channels.provider import StillWanted
from shared.outbound import Answer
from shared.smtp import WITHDRAWN, Outcome, without_addresses

IDLE_S = 5.0  # shorter than any provider keeps a connection: a request on a closed one would leave us in doubt
CONNECTIONS = 20
ABOUT_THE_ACCOUNT = frozenset({401, 402, 403, 404, 405, 407})
NOT_WHOLE, TOO_MANY = 408, 429


class _NotWanted(Exception):
    """The claim ran out before anything had left."""


class ProviderApi:
    """One provider's API."""

    def __init__(  # noqa: PLR0913  # what a client is made of
        self,
        name: str,
        url: str,
        timeout_s: float,
        tls: ssl.SSLContext,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> None:
        self.name = name
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(
            headers={"accept": "application/json", "user-agent": "Throughline", **(headers or {})},
            auth=auth,
            verify=tls,
            timeout=timeout_s,
            trust_env=False,
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_S),
        )

    async def call(self, method: str, path: str, still_wanted: StillWanted, **request: Any) -> Answer | Outcome:
        """What the provider answers; or the outcome where it does not: not reached, or nobody knows."""
        handed_over = False

        async def note(event: str, _: Mapping[str, Any]) -> None:
            nonlocal handed_over
            if event.endswith("send_request_headers.started"):
                if not still_wanted():
                    raise _NotWanted
                handed_over = True

        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.request(
                    method, f"{self.url}{path}", extensions={"trace": note}, **request
                )
        except _NotWanted:
            return Outcome("planned", WITHDRAWN, retry=True)
        except (httpx.HTTPError, OSError, TimeoutError) as silence:
            what = type(silence).__name__
            if handed_over:
                why = f"{self.name} gave no answer after the message was handed over: {what}"
                return Outcome("unknown", why, in_trouble=True)
            return Outcome("planned", f"{self.name} was not reached: {what}", retry=True, in_trouble=True)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, response.content)

    async def look(self, path: str, **request: Any) -> dict[str, Any] | None:
        """What the provider knows, by a question that changes nothing; None where it does not say."""
        answer = await self.call("GET", path, lambda: True, **request)
        return body_of(answer) if isinstance(answer, Answer) and answer.is_success else None

    def refused(self, answer: Answer, said: str) -> Outcome:
        """What an answer means that is no success, where the provider has no rule of its own.

        Who answers 4xx has not taken the message, and what is wrong with the account says nothing about the message.
        5xx may come from something that stands before or behind what took it.
        """
        reason = f"{self.name} answered {answer.status} {without_addresses(said)}".rstrip()
        if answer.status >= 500:
            return Outcome("unknown", reason, in_trouble=True)
        if answer.status == TOO_MANY:
            return self.busy(reason, answer.retry_after_s)
        if answer.status in ABOUT_THE_ACCOUNT or answer.status == NOT_WHOLE or answer.status < 400:
            return Outcome("planned", reason, retry=True, in_trouble=True)
        return Outcome("failed", reason)

    def busy(self, reason: str, seconds: int | None) -> Outcome:
        """The provider wants to be left alone for a while."""
        return Outcome("planned", reason, retry=True, in_trouble=True, pause=timedelta(seconds=seconds or 1))

    def account_trouble(self, said: str) -> Outcome:
        """The provider takes nothing from us at present, whatever the message."""
        return Outcome("planned", f"{self.name}: {without_addresses(said)}", retry=True, in_trouble=True)

    def taken(self, provider_id: Any, note: str = "accepted") -> Outcome:
        """The provider has the message, under an id of its own."""
        return Outcome("sent", f"{self.name}: {note}", provider_id=str(provider_id) if provider_id else None)


def body_of(answer: Answer) -> dict[str, Any]:
    """The answer's JSON object; empty where it is none."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}
