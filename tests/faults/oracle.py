"""The outside ledger: what was acknowledged, kept where no fault reaches it, and the comparison with the system."""

import threading
import uuid
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from deploy.embedded.processes import wait_until
from tests.faults.cluster import Cluster

APPLIED_WITHIN = 120.0
LEADS = 8


@dataclass(frozen=True, slots=True)
class Account:
    """What became of what was acknowledged."""

    acknowledged: int
    lost: list[str]
    doubled: int


class Oracle:
    """Sends touches under ids of its own until each is acknowledged, and remembers those."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._run = uuid.uuid4().hex[:6]
        self._numbers = count()
        self._acknowledged: Counter[str] = Counter()
        self.sent: dict[str, str] = {}
        self.refused = 0
        self.wrong: list[int] = []

    def email(self, number: int) -> str:
        """One of the people."""
        return f"fault{self._run}-{number % LEADS}@example.com"

    def send(self, client: httpx.Client, many: int = 1) -> None:
        """Send touches in one request until it is acknowledged. Everything but 2xx and 503 is wrong."""
        touches = []
        for number in (next(self._numbers) for _ in range(many)):
            touch_id = f"{self._run}-{number}"
            self.sent[touch_id] = self.email(number)
            touches.append({"email": self.email(number), "touch_id": touch_id, "type": "content_downloaded"})
        body = {"touches": touches}
        wait_until(lambda: self._acknowledge(client, body), APPLIED_WITHIN, every=0.1)

    def _acknowledge(self, client: httpx.Client, body: dict[str, Any]) -> bool:
        try:
            answer = client.post("/capture/v1/touches", json=body)
        except httpx.TransportError:
            self.refused += 1
            return False
        if answer.status_code == httpx.codes.ACCEPTED:
            for touch in body["touches"]:
                self._acknowledged[touch["touch_id"]] += 1
            return True
        self.refused += 1
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            self.wrong.append(answer.status_code)
        return False

    def submit_forms(self, many: int) -> list[str]:
        """People who send a form and allow email, so that each should get one welcome; answers their addresses."""
        people = [f"form-{uuid.uuid4().hex[:10]}@example.com" for _ in range(many)]
        with self._cluster.client("capture-api") as client:
            for email in people:
                touch = {"type": "form_submitted", "touch_id": f"form-{email}"}
                lead = {"email": email, "consent": {"email": "granted"}, "touch": touch}
                wait_until(lambda lead=lead: _taken(client, lead), APPLIED_WITHIN, every=0.1)  # type: ignore[misc]
        return people

    def account(self) -> Account:
        """Compare, once everything acknowledged has been applied by attribution and scoring, or patience ends."""
        shown: Counter[str] = Counter()

        def all_there() -> bool:
            shown.clear()
            try:
                with self._cluster.client("attribution-api") as client:
                    for number in range(LEADS):
                        shown.update(_journey(client, self.email(number)))
            except (httpx.TransportError, LookupError):
                return False
            return self._acknowledged.keys() <= shown.keys()

        wait_until(all_there, APPLIED_WITHIN, every=0.25)
        lost = [touch_id for touch_id in self._acknowledged if touch_id not in shown]
        doubled = sum(times - 1 for times in shown.values())
        return Account(len(self._acknowledged), lost, doubled)

    def stands(self) -> str:
        """How far everything has come, to find what a loss came from."""
        return self._cluster.stands()

    def scored(self) -> tuple[int, int]:
        """How many of the acknowledged touches scoring gave points for, and how many it should have."""
        found = 0

        def look() -> bool:
            nonlocal found
            try:
                with self._cluster.client("scoring") as client:
                    found = sum(_paid(client, self.email(number)) for number in range(LEADS))
            except (httpx.TransportError, LookupError):
                return False
            return found >= len(self._acknowledged)

        wait_until(look, APPLIED_WITHIN, every=0.25)
        return found, len(self._acknowledged)


class Load:
    """A stream of touches beside the faults."""

    def __init__(self, oracle: Oracle, cluster: Cluster, many: int = 5) -> None:
        self._oracle = oracle
        self._cluster = cluster
        self._many = many
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(2)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_sent(self, number: int) -> None:
        """Wait until so many more are acknowledged."""
        before = len(self._oracle._acknowledged)  # the load is the oracle's own hand
        assert wait_until(lambda: len(self._oracle._acknowledged) >= before + number, APPLIED_WITHIN)

    def _send(self) -> None:
        with self._cluster.client("capture-api") as client:
            while not self._over.wait(0.02):
                self._oracle.send(client, self._many)


def _taken(client: httpx.Client, lead: dict[str, Any]) -> bool:
    try:
        return client.post("/capture/v1/leads", json=lead).is_success
    except httpx.TransportError:
        return False


def _journey(client: httpx.Client, email: str) -> list[str]:
    touch_ids: list[str] = []
    cursor: str | None = None
    while True:
        query = {"email": email, "limit": "1000", **({"cursor": cursor} if cursor else {})}
        answer = client.get("/attribution/v1/journey", params=query)
        if answer.status_code != httpx.codes.OK:
            raise LookupError(answer.text)
        page = answer.json()
        touch_ids += [touch["touch_id"] for touch in page["touches"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return touch_ids


def _paid(client: httpx.Client, email: str) -> int:
    """For how many touches a lead got points; the answer lists the last of them and counts those before."""
    answer = client.get("/scoring/v1/leads", params={"email": email})
    if answer.status_code != httpx.codes.OK:
        raise LookupError(answer.text)
    score = answer.json()
    listed = {each["event_id"] for each in score["contributions"] if each["rule_id"] == "content-downloaded"}
    return len(listed) + int(score["earlier_contributions"]["count"])
