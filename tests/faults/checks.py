"""What must be so after a trial: all that was answered well is there, once, and everything adds up."""

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from rich.console import Console

from deploy.embedded.processes import wait_until
from tests.faults.stack import SERVICES, Stack
from tests.faults.traffic import Traffic
from throughline.demo.inbox import Inbox

SETTLED_WITHIN = 900.0
MARKS_S = 15.0
QUIET_S = 60.0
MODELS = ("linear", "time_decay", "position_based")
TWICE_DECIDED = "SELECT cause_id FROM routing.assignments WHERE cause_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
TWO_OWNERS = """
SELECT person_id FROM routing.assignments WHERE ended_at IS NULL GROUP BY 1 HAVING count(*) > 1
"""
MESSAGES = "SELECT state, count(*) FROM nurture.messages GROUP BY 1"
LOUD = ("error", "critical")


class Checks:
    """The comparisons, one after the other; `failed` names those that did not hold."""

    def __init__(self, stack: Stack, traffic: Traffic, mails: Inbox, console: Console) -> None:
        self._stack = stack
        self._traffic = traffic
        self._book = traffic.book
        self._mails = mails
        self._console = console
        self.failed: list[str] = []

    def run(self) -> None:
        """Wait until everything was carried out, then compare."""
        began = time.monotonic()
        time.sleep(QUIET_S)  # what follows from the last facts goes through several services
        settled = wait_until(self._is_settled, SETTLED_WITHIN, every=2.0)
        self._say("everything was carried out", settled, f"within {time.monotonic() - began:.0f} s")
        self._answers()
        with ThreadPoolExecutor(4) as several:
            self._people(several)
            self._journeys(several)
        self._assignments()
        self._messages()
        self._health()
        self._rebuilds()
        self._logs()
        self._console.print("held: all" if not self.failed else f"did not hold: {self.failed}")

    def _say(self, what: str, holds: bool, detail: object = "") -> None:
        self._console.print(f"{'ok  ' if holds else 'FAIL'}  {what}  {detail}")
        if not holds:
            self.failed.append(what)

    def _is_settled(self) -> bool:
        """Every process is ready, and what is not read or published yet is but the marks of the last seconds."""
        ready = all(row["state"] == "ready" for row in self._stack.processes())
        rows = json.loads(self._stack.command("lag", "--json"))
        return ready and all(not row["lag"] or (row["seconds"] or SETTLED_WITHIN) < MARKS_S for row in rows)

    def _answers(self) -> None:
        self._say("no answer but success and 'come again'", not self._book.wrong, dict(self._book.wrong))
        self._console.print(f"sent again after: {dict(self._book.again)}")
        summary = self._get(f"/capture/v1/sources/{self._traffic.source['source_id']}/deliveries:summary")
        mapped = len(self._book.deliveries)
        self._say("every delivery is accounted for", summary["mapped"] >= mapped, f"{mapped} answered; {summary}")

    def _people(self, several: ThreadPoolExecutor) -> None:
        emails = [*self._book.deliveries.values(), *self._book.leads]
        found = several.map(lambda email: len(self._get("/capture/v1/leads", email=email)["items"]), emails)
        numbers = Counter(found)
        self._say("each person is one lead", set(numbers) <= {1}, f"{len(emails)} people; leads each: {dict(numbers)}")

    def _journeys(self, several: ThreadPoolExecutor) -> None:
        """Touches and conversions of everybody, and the credits of each conversion."""
        emails = [*self._book.deliveries.values(), *self._book.leads]
        touches: Counter[str] = Counter()
        conversions: dict[str, dict[str, Any]] = {}
        for shown, bought in several.map(self._journey, emails):
            touches.update(shown)
            conversions |= {each["external_id"]: each for each in bought}
        expected = {*self._book.touches, *self._book.deliveries}
        lost = [name for name in expected if not touches[name]]
        doubled = [name for name, times in touches.items() if times > 1]
        self._say("each touch is in its journey once", not (lost or doubled), f"{len(expected)}; {lost=} {doubled=}")
        sold = {**self._book.conversions, **self._book.deals}
        wrong = {name: value for name, value in sold.items() if conversions.get(name, {}).get("value_minor") != value}
        self._say("each purchase and won deal is a conversion", not wrong, f"{len(sold)}; {wrong=}")
        asked = [(each, model) for name, each in conversions.items() if name in sold for model in MODELS]
        off = [pair for pair, adds_up in zip(asked, several.map(self._adds_up, asked), strict=True) if not adds_up]
        self._say("credits sum to their conversions' values", not off, f"{len(asked)} sums {off[:3]}")

    def _journey(self, email: str) -> tuple[list[str], list[dict[str, Any]]]:
        touches: list[str] = []
        cursor: str | None = ""
        bought: list[dict[str, Any]] = []
        while cursor is not None:
            query = {"email": email, "limit": "1000", **({"cursor": cursor} if cursor else {})}
            page = self._get("/attribution/v1/journey", **query)
            touches += [touch["touch_id"] for touch in page["touches"]]
            bought = bought or page["conversions"]
            cursor = page["next_cursor"]
        return touches, bought

    def _adds_up(self, asked: tuple[dict[str, Any], str]) -> bool:
        conversion, model = asked
        found = self._get(f"/attribution/v1/conversions/{conversion['conversion_id']}/credits", model=model)
        return bool(sum(each["value_minor"] for each in found["credits"]) == conversion["value_minor"])

    def _assignments(self) -> None:
        for what, statement in (("each decision about a rep was taken once", TWICE_DECIDED), ("one owner", TWO_OWNERS)):
            found = self._stack.query(statement)
            self._say(what, not found, found[:3])
        with self._stack.client() as client:
            unasked = [
                email
                for email in self._book.deliveries.values()
                if client.get("/routing/v1/assignment", params={"email": email}).status_code != httpx.codes.OK
            ]
        self._say("whoever asked for a demo has a rep", not unasked, f"{len(self._book.deliveries)}; {unasked[:3]}")

    def _messages(self) -> None:
        """Whoever allowed it was written to: what arrived once, or nobody knows, which the ledger says.

        But for who bought: by then the sequence may have what it is for before it began.
        """
        # A rep is told of each of their leads in the same words.
        arrived = Counter((mail.to, mail.subject) for mail in self._mails.all() if not mail.to.startswith("rep"))
        twice = {mail: times for mail, times in arrived.items() if times > 1}
        self._say("no message arrived twice", not twice, f"{len(arrived)} arrived {twice}")
        states = {email: self._states(email) for email in self._book.leads}
        silent = [
            email
            for email, each in states.items()
            if not {"sent", "unknown", "delivered"} & set(each) and email not in self._book.buyers
        ]
        reached = {to for to, _ in arrived}
        missing = [email for email, each in states.items() if "sent" in each and email not in reached]
        self._say("whoever allowed it has a message", not (silent or missing), f"{silent[:3]} {missing[:3]}")
        self._console.print(f"messages: {dict(self._stack.query(MESSAGES))}")

    def _states(self, email: str) -> list[str]:
        return [item["state"] for item in self._get("/nurture/v1/messages", email=email)["items"]]

    def _health(self) -> None:
        rows = self._stack.processes()
        self._say("every process is ready", all(row["state"] == "ready" for row in rows))
        self._console.print(f"restarts: { {row['name']: row['restarts'] for row in rows} }")
        parked = self._stack.command("parked", "list").strip().splitlines()[1:]
        self._say("nothing is parked", not parked, parked[:3])

    def _rebuilds(self) -> None:
        for service in SERVICES:
            said = self._stack.command("rebuild", service)
            other = [line for line in said.splitlines() if "different" in line]
            same = "the same as before" in said or "nothing to rebuild" in said
            self._say(f"{service} rebuilt is what it was", not other and same, other)

    def _logs(self) -> None:
        """What the processes complained of, for a person to judge; a crash of our own code is one in any case."""
        loud: Counter[str] = Counter()
        crashes: list[str] = []
        for name, line in self._stack.logs():
            if name in ("postgres", "kafka"):
                continue
            said = _entry(line)
            if said.get("level") in LOUD:
                loud[f"{name}: {said['event']} {said.get('error') or said.get('fault') or ''}"] += 1
            if said.get("event") == "role_died" or line.startswith("Traceback"):
                crashes.append(f"{name}: {line[:400]}")
        self._say("nothing crashed by itself", not crashes, crashes[:3])
        for what, times in loud.most_common():
            self._console.print(f"  logged {times} times: {what[:300]}")

    def _get(self, path: str, **query: str) -> Any:
        """The answer, asked for again where it is 503, as every caller should."""
        with self._stack.client() as client:
            deadline = time.monotonic() + SETTLED_WITHIN
            while True:
                answer = client.get(path, params=query)
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    return answer.raise_for_status().json()
                time.sleep(1.0)


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
