"""What is asked of a provider, whether it may be called now, and what its answer comes to: every decision, pure."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import orjson

from services.capture.enrichment.builtin import derive
from services.capture.enrichment.countries import country_code
from services.capture.enrichment.document import Provider
from services.capture.leads.domain import (
    ATTRIBUTE,
    FOUND,
    Profile,
    Statement,
    Statements,
    counting,
    found_field,
    found_name,
)
from shared.consents import Standing
from shared.emails import is_free
from shared.events import ConsentChannel
from shared.phones import parse_phone
from shared.rules import Evaluation, present

Outcome = Literal["found", "nothing", "skipped", "waiting", "failed"]
ANSWERED: tuple[Outcome, ...] = ("found", "nothing")
NUMBERS = ("employees", "annual_revenue")
WHOLE_LIMIT = 10**15
LONGEST_TEXT = 500
LARGEST_VALUE = 20_000
UNSURE = 0.5
WAITS_IN_PLACE = timedelta(seconds=2)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)
GIVE_UP_AFTER = 12
_CODE_LENGTH = 2
_CEL_FAILURES = (KeyError, TypeError, RuntimeError, ValueError, ArithmeticError, IndexError)


@dataclass(frozen=True, slots=True)
class Ask:
    """How it went with a lead and a provider, last. `retry_at` is when it is tried again, if it is."""

    provider_id: str
    outcome: str
    detail: str | None
    fields: Sequence[str]
    version: int
    input: str | None
    tries: int
    asked_at: datetime
    until: datetime | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ProviderState:
    """What all processes together know of a provider."""

    next_slot: datetime | None = None
    failures: int = 0
    closed_until: datetime | None = None
    trial_until: datetime | None = None
    calls_today: int = 0
    calls_this_month: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """A call may be made at `at`; with this the next one waits until `next_slot`."""

    at: datetime
    next_slot: datetime | None
    trial_until: datetime | None


@dataclass(frozen=True, slots=True)
class NotBefore:
    """No call before `at`. What only waits its turn holds up those after it; a closed door is passed by."""

    at: datetime
    why: str
    in_turn: bool = False


def permit(provider: Provider, state: ProviderState, now: datetime) -> Permit | NotBefore:
    """Whether the provider may be called: its breaker, its budget, its rate."""
    document = provider.document
    trial_until = None
    if state.closed_until is not None and now < state.closed_until:
        return NotBefore(state.closed_until, "it is left alone for a while: it failed, or asked for it")
    if state.failures >= document.breaker.failures:
        if state.trial_until is not None and now < state.trial_until:
            return NotBefore(state.trial_until, "it failed, and one call tries it again just now")
        trial_until = now + timedelta(seconds=document.timeout_s + 5)
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if document.budget.per_month is not None and state.calls_this_month >= document.budget.per_month:
        return NotBefore((today.replace(day=1) + timedelta(days=32)).replace(day=1), "the budget of the month is spent")
    if document.budget.per_day is not None and state.calls_today >= document.budget.per_day:
        return NotBefore(today + timedelta(days=1), "the budget of the day is spent")
    if document.rate is None:
        return Permit(now, None, trial_until)
    slot = max(now, state.next_slot or now)
    if slot - now > WAITS_IN_PLACE:
        return NotBefore(slot, "its rate limit is reached", in_turn=True)
    return Permit(slot, slot + timedelta(seconds=document.rate.interval_s), trial_until)


def wanted_fields(provider: Provider, statements: Statements) -> list[str]:
    """What the provider is asked for: what nobody else knows, and what it may overwrite."""
    others = {name: each for name, each in statements.items() if not name.startswith(f"{FOUND}{provider.provider_id}:")}
    known = counting(others)
    return [name for name in provider.map if provider.overwrites(name) or name not in known]


def is_settled(ask: Ask | None, sent: str, provider: Provider, forced_at: datetime | None, now: datetime) -> bool:
    """Whether the provider need not be asked: it was, with the same request, and that is not too long ago."""
    if ask is None or (forced_at is not None and ask.asked_at <= forced_at):
        return False
    if ask.outcome in ANSWERED:
        expired = ask.until is not None and ask.until <= now
        return ask.input == sent and not (expired and provider.document.refresh)
    if ask.retry_at is not None:
        return ask.retry_at > now
    return ask.input == sent and ask.outcome == "failed"


def retry_after(tries: int, asked_for_s: int | None) -> timedelta:
    """How long to wait after a failure: longer each time, and as long as the provider asked for."""
    pause: timedelta = min(FIRST_PAUSE * 2 ** min(tries, 20), LONGEST_PAUSE)
    return max(pause, timedelta(seconds=asked_for_s or 0))


@dataclass(frozen=True, slots=True)
class Mapped:
    """What an answer says: the values by field, how sure the provider is, and why a field has none."""

    values: Mapping[str, Any]
    confidence: float
    problems: Mapping[str, str] = field(default_factory=dict)


def mapped(provider: Provider, status: int, response: Any, lead: Mapping[str, Any]) -> Mapped:
    """What the provider's map makes of an answer."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    try:
        evaluation = Evaluation({"response": response, "status": status, "lead": lead})
    except _CEL_FAILURES as exc:
        return Mapped({}, UNSURE, dict.fromkeys(provider.map, f"the answer cannot be read: {exc}"[:200]))
    for name, expression in provider.map.items():
        try:
            value, problem = cleaned(name, expression.value(evaluation))
        except _CEL_FAILURES as exc:
            value, problem = None, f"the expression comes to nothing: {exc}"[:200]
        if value is not None:
            values[name] = value
        elif problem is not None:
            problems[name] = problem
    return Mapped(values, _confidence(provider, evaluation), problems)


def _confidence(provider: Provider, evaluation: Evaluation) -> float:
    if isinstance(provider.confidence, float):
        return provider.confidence
    try:
        value = provider.confidence.value(evaluation)
    except _CEL_FAILURES:
        return UNSURE
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # NaN
        return UNSURE
    return float(min(max(value, 0.0), 1.0))


def cleaned(name: str, value: Any) -> tuple[Any, str | None]:
    """A value as the field holds it, or why it cannot; neither where there is nothing."""
    if value is None or value in ("", [], {}):
        return None, "there is nothing"
    if name in NUMBERS:
        whole = _whole(value)
        return whole, None if whole is not None else "is not a whole number"
    if name.startswith(ATTRIBUTE):
        return _attribute(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None, "is not a text"
    text = " ".join(str(value).split())[:LONGEST_TEXT]
    if not text or any(not char.isprintable() for char in text):
        return None, "is not a text"
    if name == "phone":
        phone = parse_phone(text)
        return phone, None if phone else "is not a phone number with its country code"
    if name == "country":
        return country_code(text) or (text.upper() if len(text) == _CODE_LENGTH else text), None
    return text, None


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and 0 <= value <= WHOLE_LIMIT else None  # NaN


def _attribute(value: Any) -> tuple[Any, str | None]:
    if isinstance(value, datetime):
        return value.isoformat(), None
    if not isinstance(value, str | int | float | bool | list | dict):
        return None, "is not a value of JSON"
    try:
        written = orjson.dumps(value)
    except TypeError:
        return None, "is not a value of JSON"
    if len(written) > LARGEST_VALUE or b"\\u0000" in written:
        return None, "is too large, or holds a NUL character"
    return orjson.loads(written), None


def findings(
    provider: Provider, answer: Mapped, wanted: Sequence[str], known: Statements, at: datetime
) -> dict[str, Statement]:
    """What a provider says about what it was asked for, as statements; what it says no more it takes back.

    An answer older than the one that is known changes nothing.
    """
    statements = {}
    for name in wanted:
        key = found_name(provider.provider_id, name)
        before = known.get(key)
        value = answer.values.get(name)
        if (before is None and value is None) or (before is not None and before.at > at):
            continue
        statements[key] = Statement(
            value, at, provider.origin, answer.confidence, provider.document.order, provider.overwrites(name)
        )
    return statements


def lead_of(profile: Profile, consent: Mapping[ConsentChannel, Standing]) -> dict[str, Any]:
    """A person as expressions see them."""
    return present(
        **{
            name: getattr(profile, name)
            for name in Profile.__slots__
            if name not in ("attributes", "derived", "external_ids")
        },
        free_mail=is_free(profile.email) if profile.email else None,
        attributes={**profile.derived, **profile.attributes},
        consent=dict(consent),
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """What somebody or something says about a field, and whether that is what counts."""

    value: Any
    origin: str
    confidence: float | None
    at: datetime
    counts: bool
    provider_id: str | None = None


def provenance(statements: Statements, off: AbstractSet[str]) -> dict[str, list[Claim]]:
    """For each field everything that is said about it, what counts first."""
    chosen = counting(statements)
    known = {name: each.value for name, each in chosen.items() if each.value is not None}
    claims: dict[str, list[Claim]] = {}
    replaced: dict[str, Claim] = {}
    for each in derive(known, off):
        if (each.replaces or each.field not in chosen) and each.of in chosen:
            origin = f"enrichment:builtin.{each.by}"
            replaced[each.field] = Claim(each.value, origin, each.confidence, chosen[each.of].at, counts=True)
    for name, statement in statements.items():
        if statement.value is None and name.startswith(FOUND):
            continue
        place = found_field(name) or name
        counts = chosen.get(place) is statement and place not in replaced
        by = name.split(":", 2)[1] if name.startswith(FOUND) else None
        claim = Claim(statement.value, statement.origin, statement.confidence, statement.at, counts, by)
        claims.setdefault(place, []).append(claim)
    for name, claim in replaced.items():
        claims.setdefault(name, []).append(claim)
    return {name: sorted(claims[name], key=lambda claim: not claim.counts) for name in sorted(claims)}
