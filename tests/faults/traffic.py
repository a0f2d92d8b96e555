"""What a company's systems send to a running stack, each request until it is answered well; and what was answered.

Every request is sent again as it is, under the same id or key, after a lost connection or a 5xx: what comes of it must
be there once.
"""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson

from tests.samples.signed import sign

AGAIN_AFTER_S = 0.3
PATIENCE_S = 400.0
BATCH = 20
REPEATED = 4
"""One delivery of so many is sent twice, as senders do that lost an answer."""


class NotTaken(Exception):
    """A request was refused, or not taken for longer than anybody would try."""


@dataclass
class Book:
    """What was answered well, by the names that the senders gave."""

    deliveries: dict[str, str] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    touches: dict[str, str] = field(default_factory=dict)
    conversions: dict[str, int] = field(default_factory=dict)
    deals: dict[str, int] = field(default_factory=dict)
    buyers: set[str] = field(default_factory=set)
    wrong: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)


class Traffic:
    """Several senders at once, for the length of a block; `book` is theirs together."""

    def __init__(self, client: Callable[[], httpx.Client], seed: int, senders: int = 3) -> None:
        self.book = Book()
        self._client = client
        self._run = uuid.uuid4().hex[:6]
        self._over = threading.Event()
        with client() as first:
            wanted = {"kind": "generic", "name": "Trial", "defaults": {"touch_type": "demo_requested"}}
            self.source: dict[str, Any] = first.post("/capture/v1/sources", json=wanted).raise_for_status().json()
            for number in range(3):
                rep = {"name": "Rep", "email": f"rep{number}@trial.example", "time_zone": "UTC"}
                first.post("/routing/v1/reps", json=rep).raise_for_status()
        self._threads = [threading.Thread(target=self._send, args=(seed, number)) for number in range(senders)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, seed: int, number: int) -> None:
        rng = random.Random(seed * 100 + number)  # a schedule, not a secret
        with self._client() as client:
            sender = Sender(client, self.book, self.source, f"{self._run}{number}", rng)
            while not self._over.wait(0.05):
                sender.one_thing()


class Sender:
    """One of the company's systems: people of its own, and what they do."""

    def __init__(self, client: httpx.Client, book: Book, source: dict[str, Any], name: str, rng: random.Random) -> None:
        self._client = client
        self._book = book
        self._source = source
        self._name = name
        self._rng = rng
        self._number = 0
        self._people: list[str] = []

    def one_thing(self) -> None:
        """A delivery, a lead, a batch of touches, a purchase or a deal."""
        self._number += 1
        things: list[Callable[[], None]] = [self._delivery, self._lead]
        if self._people:
            things += [self._touches, self._touches, self._touches, self._conversion, self._deal]
        with suppress(NotTaken):
            self._rng.choice(things)()

    def _delivery(self) -> None:
        name, email = f"d{self._name}-{self._number}", self._somebody_new("hook")
        body = orjson.dumps({"email": email, "first_name": "Ann", "country": "DE"})
        path = httpx.URL(self._source["hook_url"]).path
        for _ in range(2 if self._rng.randrange(REPEATED) == 0 else 1):
            self._until_taken("delivery", "POST", path, content=body, signed_as=name)
        self._book.deliveries[name] = email

    def _lead(self) -> None:
        email = self._somebody_new("lead")
        touch = {"type": "form_submitted", "touch_id": f"form-{email}"}
        lead = {"email": email, "first_name": "Ben", "consent": {"email": "granted"}, "touch": touch}
        answer = self._until_taken("lead", "POST", "/capture/v1/leads", json=lead)
        self._book.touches[touch["touch_id"]] = email
        self._book.leads[email] = answer["lead_id"]
        self._people.append(email)

    def _touches(self) -> None:
        named = {f"t{self._name}-{self._number}-{place}": self._rng.choice(self._people) for place in range(BATCH)}
        at = datetime.now(UTC).isoformat()
        touches = [
            {"touch_id": name, "email": email, "type": "page_view", "url": "https://x.example/?utm_source=google"}
            | {"occurred_at": at}
            for name, email in named.items()
        ]
        answer = self._until_taken("touches", "POST", "/capture/v1/touches", json={"touches": touches})
        if answer["accepted"] != BATCH:
            self._book.wrong[f"touches: {answer['rejected'][:1]}"] += 1
        self._book.touches.update(named)

    def _conversion(self) -> None:
        name, value = f"c{self._name}-{self._number}", self._rng.randrange(1, 100_000)
        email = self._rng.choice(self._people)
        self._book.buyers.add(email)
        conversion: dict[str, Any] = {"email": email, "external_id": name, "type": "payment"}
        conversion |= {"value_minor": value, "currency": "EUR", "occurred_at": datetime.now(UTC).isoformat()}
        self._until_taken("conversion", "POST", "/capture/v1/conversions", json=conversion)
        self._book.conversions[name] = value

    def _deal(self) -> None:
        email, value = self._rng.choice(self._people), self._rng.randrange(1, 1_000_000)
        self._book.buyers.add(email)
        name = f"deal{self._name}-{self._number}"
        deal = {"lead_id": self._book.leads[email], "external_id": name, "name": "Deal", "value_minor": value}
        answer = self._until_taken("deal", "POST", "/routing/v1/deals", json={**deal, "currency": "EUR"})
        path = f"/routing/v1/deals/{answer['deal_id']}"
        self._until_taken("win", "PATCH", path, json={"won": True})
        self._book.deals[answer["deal_id"]] = value

    def _somebody_new(self, kind: str) -> str:
        return f"{kind}-{self._name}-{self._number}@trial.example"

    def _until_taken(self, what: str, method: str, path: str, signed_as: str | None = None, **request: Any) -> Any:
        """The answer, as soon as it is a good one. What is neither that nor a reason to come again is wrong."""
        key = {"idempotency-key": str(uuid.UUID(int=self._rng.getrandbits(128)))} if signed_as is None else {}
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            headers = key if signed_as is None else self._signed(request["content"], signed_as)
            try:
                answer = self._client.request(method, path, headers=headers, **request)
            except httpx.TransportError as silence:
                self._book.again[f"{what}: {type(silence).__name__}"] += 1
            else:
                if answer.is_success:
                    return answer.json() if answer.headers.get("content-type", "").startswith("application") else None
                said = f"{what}: {answer.status_code}"
                if answer.is_server_error and answer.status_code != httpx.codes.INTERNAL_SERVER_ERROR:
                    self._book.again[said] += 1
                else:
                    self._book.wrong[f"{said} {answer.text[:300]}"] += 1
                    raise NotTaken
            time.sleep(AGAIN_AFTER_S)
        self._book.wrong[f"{what}: not taken for {PATIENCE_S:.0f} s"] += 1
        raise NotTaken

    def _signed(self, body: bytes, name: str) -> dict[str, str]:
        headers = sign("generic", body, self._source["secret"], datetime.now(UTC), name)
        return {"content-type": "application/json", **headers}
