"""Whether links lead anywhere: asked over HTTP, with the guard of everything that users name."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from shared.outbound import AddressRefused, Answer, NoAnswer, Outbound, PrivateHosts, TooLargeAnswer, check_url

AT_ONCE = 5
MOST_LINKS = 200
MOST_HOPS = 3
TIMEOUT_S = 5.0
# Servers that do not know HEAD, or keep it from strangers, may still show the page.
_ASK_AGAIN = frozenset({403, 404, 405, 501})


@dataclass(frozen=True, slots=True)
class Probe:
    """A link, and what came of following it. `problem` is None when it leads to a page."""

    url: str
    status: int | None = None
    leads_to: str | None = None
    problem: str | None = None


async def probe_all(outbound: Outbound, private: PrivateHosts, urls: Sequence[str]) -> list[Probe]:
    """Follow links, a few at a time; each is asked for once."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(url: str) -> Probe:
        async with turn:
            return await _probe(outbound, private, url)

    return list(await asyncio.gather(*(one(url) for url in dict.fromkeys(urls[:MOST_LINKS]))))


async def _probe(outbound: Outbound, private: PrivateHosts, url: str) -> Probe:
    at = url
    for _ in range(MOST_HOPS + 1):
        try:
            check_url(at, private)
            answer = await _asked(outbound, at)
        except (AddressRefused, NoAnswer) as exc:
            return Probe(url, leads_to=_other(at, url), problem=exc.detail)
        if answer is None:
            return Probe(url, leads_to=_other(at, url))
        location = answer.headers.get("location")
        if not (300 <= answer.status < 400 and location):
            problem = None if answer.is_success else f"answers {answer.status}"
            return Probe(url, answer.status, _other(at, url), problem)
        at = urljoin(at, location)
    return Probe(url, leads_to=at, problem=f"leads on more than {MOST_HOPS} times")


async def _asked(outbound: Outbound, url: str) -> Answer | None:
    """What a page answers; None when it answers with more than anybody wants to read."""
    answer = await outbound.call("HEAD", url, timeout_s=TIMEOUT_S)
    if answer.status not in _ASK_AGAIN:
        return answer
    try:
        return await outbound.call("GET", url, timeout_s=TIMEOUT_S)
    except TooLargeAnswer:
        return None


def _other(at: str, url: str) -> str | None:
    return at if at != url else None
