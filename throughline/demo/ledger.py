"""What was acknowledged, kept outside the system, and compared with what the system shows at the end."""

import uuid
from dataclasses import dataclass, field
from typing import Any

from throughline.demo.system import System, wait_for

SOURCES = (
    ("google", "cpc", "spring-demo", "/pricing"),
    ("linkedin", "social", "launch", "/product"),
    ("newsletter", "email", "november", "/blog/lead-routing"),
    ("bing", "organic", None, "/docs"),
    (None, None, None, "/customers"),
)


@dataclass
class Ledger:
    """Touch ids that got a 2xx, by the email of their lead."""

    touches: dict[str, list[str]] = field(default_factory=dict)

    def send(self, system: System, email: str, count: int, begin: int = 0) -> None:
        """Send touches of a person in one batch, under ids of ours, so that a second try cannot count twice."""
        batch = []
        for number in range(begin, begin + count):
            source, medium, campaign, page = SOURCES[number % len(SOURCES)]
            query = "&".join(
                f"utm_{name}={value}"
                for name, value in (("source", source), ("medium", medium), ("campaign", campaign))
                if value
            )
            url = f"https://www.harborlane.example{page}" + (f"?{query}" if query else "")
            batch.append({"email": email, "touch_id": str(uuid.uuid4()), "type": "page_view", "url": url})
        answer = system.post("/capture/v1/touches", {"touches": batch})
        if answer["accepted"] == count:
            self.touches.setdefault(email, []).extend(touch["touch_id"] for touch in batch)

    def compare(self, system: System) -> tuple[int, int, int]:
        """Acknowledged, lost and doubled touches, once everything acknowledged is there (or patience ends)."""
        lost = doubled = 0
        for email, expected in self.touches.items():
            shown = self._journey(system, email, expected)
            lost += len(set(expected) - set(shown))
            doubled += len(shown) - len(set(shown))
        return sum(map(len, self.touches.values())), lost, doubled

    def _journey(self, system: System, email: str, expected: list[str]) -> list[str]:
        shown: list[str] = []

        def complete() -> bool:
            shown[:] = journey_touches(system, email)
            return set(expected) <= set(shown)

        wait_for(f"the journey of {email}", complete)
        return shown


def journey_touches(system: System, email: str) -> list[str]:
    """The ids of a person's touches, in time order."""
    return [touch["touch_id"] for touch in journey(system, email)["touches"]]


def journey(system: System, email: str) -> dict[str, Any]:
    """A person's journey."""
    found: dict[str, Any] = system.get("/attribution/v1/journey", email=email, limit=1000)
    return found
