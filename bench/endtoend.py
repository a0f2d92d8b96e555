"""Everything on: what rate is sustained through all services, and how fast a form becomes an assignment meanwhile."""

import base64
import hashlib
import hmac
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import orjson

from bench.facts import touch_bodies
from bench.load import Target, drive
from deploy.embedded.ports import free_port

SUSTAINED_GOAL = 1_700
P99_GOAL_MS = 150
BUSY_P99_GOAL_MS = 500
LOAD_S = 20.0
FORMS = 150
FORMS_PER_SECOND = 6
LATE_TOUCHES = 100
LATE_P99_GOAL_MS = 1_000
SECRET = "bench-form-secret"


@dataclass(frozen=True, slots=True)
class Figures:
    """Touches a second through everything; milliseconds from the webhook's arrival to the assignment at half of that
    and at nine tenths, and from a late touch's to the report that it changed.
    """

    sustained: float
    p50_ms: float
    p99_ms: float
    busy_p50_ms: float
    busy_p99_ms: float
    late_p50_ms: float
    late_p99_ms: float


@contextmanager
def _stack() -> Iterator[tuple[str, str]]:
    """A whole stack on a folder of its own; answers its base URL and a token."""
    with tempfile.TemporaryDirectory(prefix="throughline-bench-") as folder:
        Path(folder).chmod(0o755)
        data = f"--data-dir={folder}/data"
        command = [sys.executable, "-m", "throughline"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("THROUGHLINE_")}
        url = subprocess.check_output(
            [*command, "up", "--detach", f"--port={free_port()}", data], env=environment, text=True
        ).strip()
        try:
            scopes = [
                word
                for service in ("capture", "scoring", "routing", "nurture", "attribution")
                for word in ("--scope", f"{service}:admin")
            ]
            made = subprocess.check_output([*command, "tokens", "create", *scopes, data], env=environment, text=True)
            yield url, made.strip()
        finally:
            subprocess.run([*command, "down", data], env=environment, check=True)


def measure() -> Figures:
    """Bring a stack up, find the sustained rate, then send forms at half of it and at nine tenths."""
    with (
        _stack() as (url, token),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client,
    ):
        host, port = url.removeprefix("http://").split(":")
        target = Target(host, int(port), "/capture/v1/touches", token)
        _touch_and_wait(client, target, 2_000)
        sustained = _touch_and_wait(client, target, None)
        hook = _hook(client)
        assigned = _forms(client, target, hook, sustained / 2)
        busy = _forms(client, target, hook, sustained * 0.9)
        _wait_for_lag(client)
        reported = _late_touches(client, target, sustained / 2)
        return Figures(sustained, *assigned, *busy, *reported)


def _touch_and_wait(client: httpx.Client, target: Target, count: int | None) -> float:
    """Send single touches as fast as they are taken, then wait until the last is in its journey; touches a second."""
    bodies = touch_bodies(count or 200_000)
    began = time.perf_counter()
    loads = drive(target, bodies, connections=16, seconds=LOAD_S)
    taken = sum(load.answers.get(202, 0) for load in loads)
    anonymous = f"bench-{uuid.uuid4()}"
    client.post("/capture/v1/touches", json={"anonymous_id": anonymous, "type": "page_view"}).raise_for_status()
    _wait_for_lag(client)
    return taken / (time.perf_counter() - began)


def _wait_for_lag(client: httpx.Client) -> None:
    """Wait until a touch sent last for every partition has gone through scoring and attribution."""
    marks = [f"mark-{uuid.uuid4()}" for _ in range(60)]
    ids = []
    for mark in marks:
        email = f"{mark}@example.com"
        answer = client.post("/capture/v1/leads", json={"email": email, "touch": {"type": "content_downloaded"}})
        ids.append(answer.raise_for_status().json()["lead_id"])
    for lead_id in ids:
        while not _journeyed(client, lead_id):
            time.sleep(0.02)


def _journeyed(client: httpx.Client, lead_id: str) -> bool:
    journey = client.get(f"/attribution/v1/leads/{lead_id}/journey")
    score = client.get(f"/scoring/v1/leads/{lead_id}")
    return bool(journey.is_success and journey.json()["touches"] and score.is_success and score.json()["contributions"])


def _hook(client: httpx.Client) -> str:
    """Four reps, and the path at which the answers of a form come in."""
    for number in range(4):
        rep = {
            "name": f"Rep {number}",
            "email": f"rep{number}@example.com",
            "time_zone": "UTC",
            "territories": [],
            "skills": [],
            "teams": [],
        }
        client.post("/routing/v1/reps", json=rep).raise_for_status()
    form = {"kind": "typeform", "name": "Demo", "secret": SECRET, "defaults": {"touch_type": "demo_requested"}}
    source = client.post("/capture/v1/sources", json=form).raise_for_status().json()
    return httpx.URL(source["hook_url"]).path


def _forms(client: httpx.Client, target: Target, hook: str, rate: float) -> tuple[float, float]:
    """Signed demo requests beside so many touches a second; the time from the request to the assignment's."""
    load = _load(target, rate, FORMS / FORMS_PER_SECOND + 6)
    sent = {}
    for _ in range(FORMS):
        email = f"form-{uuid.uuid4().hex}@harborlane.example"
        body = _submission(email)
        signature = base64.b64encode(hmac.digest(SECRET.encode(), body, hashlib.sha256)).decode()
        due = time.perf_counter() + 1 / FORMS_PER_SECOND
        sent[email] = datetime.now(UTC)
        answer = client.post(hook, content=body, headers={"typeform-signature": f"sha256={signature}"})
        answer.raise_for_status()
        time.sleep(max(due - time.perf_counter(), 0))
    load.join()
    return _median_and_p99([_assigned_after_ms(client, email, at) for email, at in sent.items()])


def _load(target: Target, rate: float, seconds: float) -> threading.Thread:
    """So many touches a second for so long; under way when this returns."""
    bodies = touch_bodies(int(rate * seconds))
    load = threading.Thread(
        target=lambda: drive(target, bodies, connections=16, seconds=seconds, per_second=rate), daemon=True
    )
    load.start()
    time.sleep(3)
    return load


def _late_touches(client: httpx.Client, target: Target, rate: float) -> tuple[float, float]:
    """Touches that occurred before the conversions of their persons; the time until the report names the campaign."""
    emails = [f"late-{uuid.uuid4().hex}@harborlane.example" for _ in range(LATE_TOUCHES)]
    for number, email in enumerate(emails):
        order = {"external_id": f"late-{number}", "type": "purchase", "value_minor": 1_000, "currency": "EUR"}
        client.post("/capture/v1/leads", json={"email": email}).raise_for_status()
        client.post("/capture/v1/conversions", json={"email": email, **order}).raise_for_status()
    load = _load(target, rate, LATE_TOUCHES * 1.5 + 6)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    waits = []
    for email in emails:
        campaign = f"late-{uuid.uuid4().hex}"
        touch = {"email": email, "type": "ad_clicked", "campaign": campaign, "occurred_at": yesterday}
        began = time.perf_counter()
        client.post("/capture/v1/touches", json=touch).raise_for_status()
        while not _reported(client, campaign):
            time.sleep(0.005)
        waits.append((time.perf_counter() - began) * 1000)
    load.join()
    return _median_and_p99(waits)


def _reported(client: httpx.Client, campaign: str) -> bool:
    report = client.get("/attribution/v1/reports/attribution", params={"model": "linear", "dimension": "campaign"})
    return any(row["key"] == campaign for row in report.raise_for_status().json()["rows"])


def _median_and_p99(waits: list[float]) -> tuple[float, float]:
    return statistics.median(waits), sorted(waits)[int(len(waits) * 0.99)]


def _assigned_after_ms(client: httpx.Client, email: str, sent: datetime) -> float:
    while True:
        answer = client.get("/routing/v1/assignment", params={"email": email})
        if answer.is_success:
            assigned = datetime.fromisoformat(answer.json()["assigned_at"])
            return (assigned - sent).total_seconds() * 1000
        time.sleep(0.05)


def _submission(email: str) -> bytes:
    fields = [
        {"id": "f1", "ref": "first_name", "type": "short_text", "title": "First name"},
        {"id": "f2", "ref": "work_email", "type": "email", "title": "Work email"},
        {"id": "f3", "ref": "company", "type": "short_text", "title": "Company"},
    ]
    answers = [
        {"type": "text", "text": "Nora", "field": {"id": "f1", "type": "short_text", "ref": "first_name"}},
        {"type": "email", "email": email, "field": {"id": "f2", "type": "email", "ref": "work_email"}},
        {"type": "text", "text": "Harbor Lane", "field": {"id": "f3", "type": "short_text", "ref": "company"}},
    ]
    token = uuid.uuid4().hex
    form = {
        "form_id": "bench",
        "token": token,
        "submitted_at": datetime.now(UTC).isoformat(),
        "landed_at": datetime.now(UTC).isoformat(),
        "definition": {"id": "bench", "title": "Request a demo", "fields": fields},
        "answers": answers,
    }
    return orjson.dumps({"event_id": uuid.uuid4().hex, "event_type": "form_response", "form_response": form})
