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
        yield "".join(
            f"person{n}@company{n % 5_000}.example,+4930{n:08d},First{n % 900},Last{n % 7_000},"
            f"Company {n % 5_000},DE,{n % 2_000},pro\r\n"
            for n in range(start, min(start + 1_000, rows))
        ).encode()


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
