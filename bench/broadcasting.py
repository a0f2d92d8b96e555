"""A broadcast to a segment while its worker is killed again and again: how many get it twice, how many are left out.

Counted at a mail server in a process of its own. A message that was claimed and whose worker was killed before it knew
the outcome is never sent again: it is listed as unknown. Whoever neither received it nor is listed is missing.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson

from bench.mailbox import accepted_in
from bench.stack import Servers, role, settings_of, token
from deploy.embedded.ports import free_port
from services.nurture.parts import make_parts
from services.nurture.people import handlers as people
from services.nurture.permission.document import POLICIES, shipped
from shared.db import Tx
from shared.events import ConsentChanged, LeadCaptured, SegmentEntered
from shared.ids import EventId, LeadId, SegmentId
from shared.kafka import apply_topics
from shared.service import Runtime, build_runtime

PEOPLE = 100_000
KILL_EVERY_S = 20.0
LOOK_EVERY_S = 2.0
AT_ONCE = 1_000
SEGMENT = SegmentId("everybody")
FRESH = "INSERT INTO feed_watermarks SELECT $1, number, $2, $3 FROM generate_series(0, $4::integer - 1) AS number"
UNKNOWN = "SELECT lead_id FROM messages WHERE sequence_id = $1 AND state = 'unknown'"
BROADCAST = {
    "name": "News",
    "message": {
        "channel": "email",
        "template": {"subject": "Hello {{ lead.first_name }}", "html": '<p><a href="https://example.com">News</a></p>'},
    },
    "audience": {"segment": SEGMENT},
}


@dataclass(frozen=True)
class Measured:
    """What came of it. `unknown` are listed; `unknown_received` of them were received all the same."""

    people: int
    kills: int
    twice: int
    missing: int
    unknown: int
    unknown_received: int
    seconds: float


def measure(servers: Servers, number: int = PEOPLE, kill_every_s: float = KILL_EVERY_S) -> Measured:
    """One broadcast to its end."""
    environment = servers.environment(servers.fresh_database(), f"broadcast{number}.")
    asyncio.run(apply_topics(settings_of(environment)))
    addresses = asyncio.run(_seed(environment, number))
    notes = servers.folder / f"mailbox-{number}.txt"
    with _mailbox(notes) as smtp_url, role("nurture", ["api"], environment) as port:
        base = f"http://127.0.0.1:{port}/nurture/v1/broadcasts"
        headers = {"authorization": f"Bearer {token()}"}
        with httpx.Client(headers=headers, timeout=60) as client:
            made = client.post(base, json=BROADCAST).raise_for_status().json()
            path = f"{base}/{made['broadcast_id']}"
            client.post(f"{path}:start").raise_for_status()
            began = time.monotonic()
            kills = _carried_out(client, path, {**environment, "THROUGHLINE_SMTP_URL": smtp_url}, kill_every_s)
            seconds = time.monotonic() - began
    accepted = accepted_in(notes)
    unknown = {addresses[lead_id] for lead_id in asyncio.run(_unknown(environment, made["broadcast_id"]))}
    received = set(accepted.by_recipient)
    missing = set(addresses.values()) - received - unknown
    return Measured(number, kills, accepted.twice, len(missing), len(unknown), len(unknown & received), seconds)


def _carried_out(client: httpx.Client, path: str, environment: dict[str, str], kill_every_s: float) -> int:
    """Run workers, each killed in its time, until the broadcast is done; answers how many were."""
    kills = 0
    while True:
        ports = {"THROUGHLINE_PORT": str(free_port()), "THROUGHLINE_MANAGEMENT_PORT": str(free_port())}
        words = [sys.executable, "-m", "throughline", "run", "nurture", "worker"]
        worker = subprocess.Popen(words, env={**environment, **ports}, stdout=subprocess.DEVNULL)
        until = time.monotonic() + kill_every_s
        try:
            while time.monotonic() < until:
                time.sleep(LOOK_EVERY_S)
                if client.get(path).raise_for_status().json()["state"] == "done":
                    return kills
        finally:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        kills += 1


@contextmanager
def _mailbox(notes: Path) -> Iterator[str]:
    port = free_port()
    notes.touch()
    child = subprocess.Popen([sys.executable, "-m", "bench.mailbox", str(port), str(notes)])
    try:
        asyncio.run(_listens(port))
        yield f"smtp://127.0.0.1:{port}"
    finally:
        child.kill()
        child.wait()


async def _listens(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


async def _seed(environment: dict[str, str], number: int) -> dict[LeadId, str]:
    """People who consented and are in the segment, folded as facts are; answers their addresses."""
    runtime = build_runtime("nurture", settings_of(environment))
    parts = make_parts(runtime)
    addresses: dict[LeadId, str] = {}
    now = datetime.now(UTC)
    try:
        for start in range(0, number, AT_ONCE):
            some = [f"p{place}@example.com" for place in range(start, min(start + AT_ONCE, number))]
            by_id = {runtime.ids.of_email(email): email for email in some}
            async with runtime.database.transaction() as tx:
                await people.on_profiles(await _captured(runtime, tx, by_id, now), tx, parts)
                await people.on_consents([_consent(lead_id, now) for lead_id in by_id], tx)
                await people.on_segments([_entered(lead_id, now) for lead_id in by_id], tx)
            addresses |= by_id
        async with runtime.database.transaction() as tx:  # at any hour of any day
            await POLICIES.save(tx.connection, {**shipped(), "hours": {}}, "bench")
        ahead = now + timedelta(days=1)  # nobody tells anything else: what is known stays fresh
        async with runtime.database.reading() as connection:
            for topic, source in (("leads", "capture"), ("leads", "nurture"), ("messages", "nurture")):
                await connection.execute(FRESH, topic, source, ahead, runtime.settings.topic_partitions)
            await connection.execute("VACUUM ANALYZE")
    finally:
        await runtime.database.close()
    return addresses


async def _captured(runtime: Runtime, tx: Tx, by_id: dict[LeadId, str], at: datetime) -> list[LeadCaptured]:
    ciphers, _ = await runtime.keys.ciphers(tx.connection, list(by_id), at)
    return [
        LeadCaptured(
            **_head(lead_id, "captured", at),
            revision=1,
            captured_at=at,
            personal=runtime.keys.seal(
                lead_id, ciphers[lead_id], orjson.dumps({"email": email, "first_name": "Ann"})
            ).decode(),
        )
        for lead_id, email in by_id.items()
    ]


def _consent(lead_id: LeadId, at: datetime) -> ConsentChanged:
    return ConsentChanged(**_head(lead_id, "consent", at), channel="email", state="granted")


def _entered(lead_id: LeadId, at: datetime) -> SegmentEntered:
    head = _head(lead_id, "segment", at)
    return SegmentEntered(**head, segment_id=SEGMENT, segment_version=1, revision=1, initial=False)


def _head(lead_id: LeadId, kind: str, at: datetime) -> dict[str, Any]:
    return {"event_id": EventId(f"{kind}:{lead_id}"), "lead_id": lead_id, "occurred_at": at, "received_at": at}


async def _unknown(environment: dict[str, str], broadcast_id: str) -> list[LeadId]:
    runtime = build_runtime("nurture", settings_of(environment))
    try:
        async with runtime.database.reading() as connection:
            return [LeadId(row["lead_id"]) for row in await connection.fetch(UNKNOWN, broadcast_id)]
    finally:
        await runtime.database.close()
