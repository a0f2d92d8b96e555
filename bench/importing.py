"""Files of leads through the worker: rows a second, and the most memory that the worker ever had."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.stack import Servers, process, role, settings_of, token
from deploy.embedded.ports import free_port
from shared.kafka import apply_topics

SIZES = (10_000, 40_000)
RATE_GOAL = 2_000
MEMORY_GOAL = 1.15
HEADER = b"email,phone,first_name,last_name,company,country,employees,plan\r\n"


@dataclass(frozen=True, slots=True)
class Measured:
    """One file: its rows a second, and the worker's greatest memory in MiB."""

    rows: int
    per_second: float
    peak_mib: float


def measure(servers: Servers, sizes: tuple[int, ...] = SIZES) -> list[Measured]:
    """Import files of new people, each with a fresh worker and a fresh database."""
    return [_measure(servers, rows) for rows in sizes]


def _measure(servers: Servers, rows: int) -> Measured:
    environment = servers.environment(servers.fresh_database(), f"import{rows}.")
    asyncio.run(apply_topics(settings_of(environment)))  # the worker waits for a relay that cannot publish
    management = free_port()
    own = {**environment, "THROUGHLINE_PORT": str(free_port()), "THROUGHLINE_MANAGEMENT_PORT": str(management)}
    words = ["-m", "throughline", "run", "capture", "worker"]
    with (
        role("capture", ["api"], environment) as port,
        process(words, own, f"http://127.0.0.1:{management}/livez") as worker,
    ):
        headers = {"authorization": f"Bearer {token()}", "content-type": "text/csv"}
        base = f"http://127.0.0.1:{port}/capture/v1/imports"
        with httpx.Client(headers=headers, timeout=120) as client:
            sent = client.post(base, content=_file(rows))
            sent.raise_for_status()
            job = sent.json()
            while job["state"] != "done":
                time.sleep(0.2)
                job = client.get(f"{base}/{job['import_id']}").json()
        if job["created"] != rows:
            raise RuntimeError(f"not every row was taken: {job}")
        return Measured(rows, job["rows_per_second"], _peak_mib(worker.pid))


def _file(rows: int) -> Iterator[bytes]:
    yield HEADER
    for start in range(0, rows, 1_000):
        yield "".join(_row(n) for n in range(start, min(start + 1_000, rows))).encode()


def _row(number: int) -> str:
    """A person of a company. Firms are large and small, names differ in their sound, and some write from home."""
    first, last = _name(number * 7_919 % 900), _name(900 + number * 104_729 % 60_000)
    company = int(20_000 * (number * 0.618034 % 1) ** 2)
    domain = "gmail.com" if number % 7 == 0 else f"{_name(70_000 + company)}.example"
    return (
        f"{first}.{last}{number}@{domain},+4930{number:08d},{first.title()},{last.title()},"
        f"{_name(70_000 + company).title()} GmbH,DE,{number % 2_000},pro\r\n"
    )


def _name(number: int) -> str:
    """A word that can be spoken: one syllable for each digit of the number to the base of 60."""
    place, syllables = number, ""
    while place or not syllables:
        place, digit = divmod(place, 60)
        syllables += "bdfgklmnprst"[digit // 5] + "aeiou"[digit % 5]
    return syllables


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
