"""Looks for reps' calendars, and has them written out."""

import asyncio
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import orjson

from services.routing.calendars import queries
from services.routing.calendars.domain import (
    AHEAD,
    BEHIND,
    EVERY,
    LARGEST,
    Content,
    NotACalendar,
    RepCalendar,
    content_of,
    digest_of,
    month_of,
    wait_after,
)
from services.routing.reps.schedules import Busy
from shared.db import Tx, agreed_apart, agreed_now
from shared.ids import RepId
from shared.outbound import AddressRefused, Answer, NoAnswer, Outbound, PrivateHosts, check_url, trusted_hosts
from shared.service import Runtime
from shared.telemetry import counter, log

READ = counter(
    "throughline_routing_calendars_total", "Reps' calendars that were looked for: do they answer", ["outcome"]
)
AT_ONCE = 20
CLAIMED_FOR = timedelta(minutes=5)
TIMEOUT_S = 15.0
READING_S = 20.0
MOST_REDIRECTS = 3
ROOT = Path(__file__).resolve().parents[3]
READER = "services.routing.calendars.reading"
WANTED = {"accept": "text/calendar, text/plain;q=0.5, */*;q=0.1"}
_READERS = asyncio.Semaphore(2)


class Unread(Exception):
    """The calendar could not be had, or not be read; says why, and how long to wait if the other side said so."""

    def __init__(self, why: str, wait_s: int | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def feed_address(url: str, runtime: Runtime) -> httpx.URL:
    """The address of a feed. Raises AddressRefused."""
    if url[:9].lower() == "webcal://":
        url = f"https://{url[9:]}"
    address = check_url(url, PrivateHosts(trusted_hosts(runtime.settings)))
    if address.scheme != "https":
        raise AddressRefused("the address of a calendar begins with https:// or webcal://")
    return address


async def put_feed(rep_id: RepId, address: httpx.URL, tx: Tx, runtime: Runtime) -> None:
    """Read a rep's calendar from this address from now on; the worker looks for it at once."""
    sealed = runtime.keys.seal_request({"url": str(address)}, _label(rep_id))
    at = await agreed_now(tx.connection, runtime.clock)
    await queries.put(tx.connection, rep_id, "feed", sealed, address.host, at)


async def put_upload(rep_id: RepId, content: Content, busy: Busy, tx: Tx, runtime: Runtime) -> None:
    """Take a calendar's text as the rep's calendar from now on."""
    at = await agreed_now(tx.connection, runtime.clock)
    await queries.put(tx.connection, rep_id, "upload", None, None, at)
    calendar = (await queries.calendars_of(tx.connection, [rep_id]))[rep_id]
    await _save(tx, replace(calendar, events=content.events, read_at=at), content.text, busy, at)


async def written_out(text: str, at: datetime, within_s: float = READING_S) -> Busy:
    """When somebody with this calendar is not free. Raises NotACalendar; what is in it cannot hold up this process."""
    async with _READERS:
        reader = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            READER,
            (month_of(at) - BEHIND).isoformat(),
            (month_of(at) + AHEAD).isoformat(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
        )
        try:
            async with asyncio.timeout(within_s):
                answer, said = await reader.communicate(text.encode())
        except TimeoutError:
            raise NotACalendar(
                "the calendar takes too long to read: look for an event that repeats endlessly"
            ) from None
        finally:
            if reader.returncode is None:
                reader.kill()
                await reader.wait()
    if reader.returncode != 0:
        killed = reader.returncode is None or reader.returncode < 0
        why = "look for an event that repeats endlessly" if killed else said.decode("utf-8", "replace").strip()[-200:]
        raise NotACalendar(f"the calendar cannot be read: {why}")
    busy: Busy = orjson.loads(answer)
    return busy


async def look_for_due(runtime: Runtime) -> datetime | None:
    """Look for the calendars that are due. Answers when the next one is."""
    async with runtime.database.reading() as connection:
        at, due = await agreed_now(connection, runtime.clock), await queries.next_due(connection)
    if due is None or due > at:
        return due
    async with runtime.database.transaction() as tx:
        claimed = await queries.claim(tx.connection, at, AT_ONCE, CLAIMED_FOR)
    async with Outbound.of(runtime.settings) as outbound:
        await asyncio.gather(*(_look_for(calendar, outbound, runtime) for calendar in claimed))
    async with runtime.database.reading() as connection:
        return await queries.next_due(connection)


async def _look_for(calendar: RepCalendar, outbound: Outbound, runtime: Runtime) -> None:
    try:
        await (_fetch(calendar, outbound, runtime) if calendar.source == "feed" else _again(calendar, runtime))
    except (Unread, NotACalendar) as exc:
        READ.labels("failed").inc()
        log.warning("calendar_not_read", rep_id=calendar.rep_id, failures=calendar.failures + 1)
        at = await agreed_apart(runtime.database, runtime.clock)
        wait = wait_after(calendar.failures + 1, exc.wait_s if isinstance(exc, Unread) else None)
        async with runtime.database.transaction() as tx:
            await queries.save_failure(tx.connection, calendar, str(exc)[:500], at, at + wait)
    else:
        READ.labels("read").inc()


async def _fetch(calendar: RepCalendar, outbound: Outbound, runtime: Runtime) -> None:
    assert calendar.address is not None
    url = str(runtime.keys.open_request(calendar.address, _label(calendar.rep_id))["url"])
    answer = await _answer(url, _conditions(calendar), outbound, runtime)
    at = await agreed_apart(runtime.database, runtime.clock)
    text, events, same = calendar.content, calendar.events, True
    if answer.status != 304:
        async with runtime.database.reading() as connection:
            email = await queries.email_of(connection, calendar.rep_id)
        content = await asyncio.to_thread(content_of, answer.body, email, at.date())
        text, events, same = content.text, content.events, content.digest == calendar.content_digest
    if text is None:
        raise Unread("the server says that the calendar is as before, but it was never read")
    marks = answer.headers if answer.status != 304 else {}
    calendar = replace(
        calendar,
        events=events,
        read_at=at,
        etag=marks.get("etag", calendar.etag if answer.status == 304 else None),
        last_modified=marks.get("last-modified", calendar.last_modified if answer.status == 304 else None),
    )
    if same and calendar.expanded_on == at.date():
        async with runtime.database.transaction() as tx:
            await queries.save_as_before(tx.connection, calendar, at, at + EVERY)
        return
    busy = await written_out(text, at)
    async with runtime.database.transaction() as tx:
        await _save(tx, calendar, text, busy, at)


async def _again(calendar: RepCalendar, runtime: Runtime) -> None:
    """Write an uploaded calendar out anew, since a day has passed; it is as old as it was."""
    assert calendar.content is not None
    at = await agreed_apart(runtime.database, runtime.clock)
    busy = await written_out(calendar.content, at)
    async with runtime.database.transaction() as tx:
        await _save(tx, calendar, calendar.content, busy, at)


async def _save(tx: Tx, calendar: RepCalendar, text: str, busy: Busy, at: datetime) -> None:
    next_at = at + (EVERY if calendar.source == "feed" else timedelta(days=1))
    digest = digest_of(orjson.dumps(busy).decode())
    calendar = replace(calendar, content=text, content_digest=digest_of(text), expanded_on=at.date(), checked_at=at)
    await queries.save_read(tx.connection, replace(calendar, next_at=next_at), busy, digest)


async def _answer(url: str, headers: dict[str, str], outbound: Outbound, runtime: Runtime) -> Answer:
    """What stands at an address, or where that leads to; each address on the way is checked."""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            address = feed_address(url, runtime)
            answer = await outbound.call("GET", str(address), headers=headers, timeout_s=TIMEOUT_S, largest=LARGEST)
        except (AddressRefused, NoAnswer) as exc:
            raise Unread(exc.detail) from exc
        if answer.status in (301, 302, 303, 307, 308) and (target := answer.headers.get("location")):
            url = str(address.join(target))
            continue
        if answer.is_success or answer.status == 304:
            return answer
        raise Unread(f"the server answers {answer.status}", answer.retry_after_s)
    raise Unread(f"the address leads on more than {MOST_REDIRECTS} times")


def _conditions(calendar: RepCalendar) -> dict[str, str]:
    """What makes a server say that nothing changed."""
    told = {"if-none-match": calendar.etag, "if-modified-since": calendar.last_modified}
    return WANTED | ({name: value for name, value in told.items() if value} if calendar.content is not None else {})


def _label(rep_id: str) -> str:
    return f"rep-calendar/{rep_id}"
