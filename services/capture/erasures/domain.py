"""What a receipt says, and what proves that it is ours: pure."""

import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import orjson

from shared.events import TOPICS
from shared.ids import LeadId

SERVICES = tuple(sorted(next(topic.writers for topic in TOPICS if topic.name == "erasures")))
State = Literal["running", "done"]
SHORTEST_TRACE = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """Why somebody is erased: what whoever asks for it says, and the source that passed it on (`api`: our own)."""

    actor: str
    reason: str | None = None
    requested_by: str | None = None
    reference: str | None = None
    origin: str = "api"


@dataclass(frozen=True, slots=True)
class Report:
    """What one service did with one id of the person."""

    lead_id: LeadId
    service: str
    erased: Mapping[str, int]
    kept: Mapping[str, int]
    why_kept: Mapping[str, str]
    at: datetime


@dataclass(frozen=True, slots=True)
class ServiceDone:
    """What one service did, over all ids of the person."""

    state: State
    erased: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    why_kept: Mapping[str, str] = field(default_factory=dict)
    at: datetime | None = None


def summed(lead_ids: Sequence[LeadId], reports: Iterable[Report]) -> dict[str, ServiceDone]:
    """What each service did; done when it has reported for every id."""
    theirs: dict[str, list[Report]] = {service: [] for service in SERVICES}
    for report in reports:
        theirs.setdefault(report.service, []).append(report)
    return {service: _summed(lead_ids, told) for service, told in theirs.items()}


def _summed(lead_ids: Sequence[LeadId], reports: Sequence[Report]) -> ServiceDone:
    erased: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    why: dict[str, str] = {}
    for report in reports:
        erased.update(report.erased)
        kept.update(report.kept)
        why |= report.why_kept
    done = {report.lead_id for report in reports} >= set(lead_ids)
    return ServiceDone(
        state="done" if done else "running",
        erased=dict(sorted(erased.items())),
        kept={name: count for name, count in sorted(kept.items()) if count},
        why_kept={name: why[name] for name in sorted(why) if kept[name]},
        at=max((report.at for report in reports), default=None),
    )


def state_of(services: Mapping[str, ServiceDone]) -> State:
    """A receipt is done when all services are."""
    return "done" if all(service.state == "done" for service in services.values()) else "running"


def signature(key: bytes, receipt: Mapping[str, Any]) -> str:
    """Proves that this installation said so: HMAC-SHA256 of the receipt as JSON with sorted keys and no spaces."""
    return hmac.digest(key, orjson.dumps(receipt, option=orjson.OPT_SORT_KEYS), "sha256").hex()


def is_genuine(key: bytes, receipt: Mapping[str, Any], shown: str) -> bool:
    """Whether this installation said so; what it could not even write it never said."""
    try:
        expected = signature(key, receipt)
    except TypeError:
        return False
    return hmac.compare_digest(expected.encode(), shown.encode())


def traces_of(told: Iterable[object]) -> tuple[str, ...]:
    """What would tell in another text who somebody is: emails in small letters, phones without their plus."""
    texts = (text.lower().removeprefix("+") for text in told if isinstance(text, str))
    return tuple(sorted({text for text in texts if len(text) >= SHORTEST_TRACE}))


def gives_away(text: str, traces: Iterable[str]) -> bool:
    """Whether a text names somebody."""
    lowered = text.lower()
    return any(trace in lowered for trace in traces)
