"""What a provider is asked, whether it may be called, and what its answer comes to: decided without asking anybody."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.enrichment.asking import hashed, prepare
from services.capture.enrichment.document import Provider, ProviderDocument, compile_provider
from services.capture.enrichment.domain import (
    Ask,
    NotBefore,
    Permit,
    ProviderState,
    cleaned,
    findings,
    is_settled,
    mapped,
    permit,
    retry_after,
    wanted_fields,
)
from services.capture.enrichment.templates import fill_address, known_places
from services.capture.leads.domain import Profile, Statement, found_name, learn, profile_of

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def provider(provider_id: str = "p", **changes: Any) -> Provider:
    document = {
        "title": "T",
        "request": {"url": "https://api.example.com/{domain}"},
        "map": {"industry": "response.i", "employees": "response.n"},
        **changes,
    }
    return compile_provider(provider_id, 1, ProviderDocument.model_validate(document))


def test_it_is_asked_for_what_nobody_else_knows_and_what_it_may_overwrite() -> None:
    told = learn({}, {"industry": "Told", "employees": 3}, NOON, "api")
    own = {found_name("p", "industry"): Statement("Own", NOON, "enrichment:p", 0.5)}
    others = {found_name("q", "industry"): Statement("Other", NOON, "enrichment:q", 0.5)}
    assert wanted_fields(provider(), {}) == ["industry", "employees"]
    assert wanted_fields(provider(), told) == []
    assert wanted_fields(provider(policy={"employees": "overwrite"}), told) == ["employees"]
    assert wanted_fields(provider(), own) == ["industry", "employees"]
    assert wanted_fields(provider(), others) == ["employees"]
    taken_back = learn(told, {"industry": None}, NOON + timedelta(1), "api")
    assert wanted_fields(provider(), taken_back) == []


def test_an_answer_of_a_merged_lead_is_taken_back_too_and_an_older_one_changes_nothing() -> None:
    merged = {found_name("p", "industry"): Statement("Robots", NOON, "enrichment:p", 0.5)}
    nothing = mapped(provider(), 200, {}, {})
    later = findings(provider(), nothing, ["industry"], merged, NOON + timedelta(hours=1))
    assert later[found_name("p", "industry")].value is None
    assert findings(provider(), nothing, ["industry"], merged, NOON - timedelta(hours=1)) == {}
    assert findings(provider(), nothing, ["employees"], merged, NOON + timedelta(hours=1)) == {}


def test_a_call_is_made_by_breaker_then_budget_then_rate() -> None:
    limited = provider(
        breaker={"failures": 2, "open_s": 60}, budget={"per_day": 3, "per_month": 5}, rate={"per_second": 2}
    )
    free = permit(limited, ProviderState(), NOON)
    assert free == Permit(NOON, NOON + timedelta(seconds=0.5), None)
    soon = permit(limited, ProviderState(next_slot=NOON + timedelta(seconds=1)), NOON)
    assert isinstance(soon, Permit) and soon.at == NOON + timedelta(seconds=1)
    queued = permit(limited, ProviderState(next_slot=NOON + timedelta(seconds=9)), NOON)
    assert isinstance(queued, NotBefore) and queued.in_turn
    spent = permit(limited, ProviderState(calls_today=3, calls_this_month=3), NOON)
    assert isinstance(spent, NotBefore) and spent.at == datetime(2026, 12, 1, tzinfo=UTC) and not spent.in_turn
    month = permit(limited, ProviderState(calls_this_month=5), NOON - timedelta(days=20))
    assert isinstance(month, NotBefore) and month.at == datetime(2026, 12, 1, tzinfo=UTC)
    shut = permit(limited, ProviderState(failures=2, closed_until=NOON + timedelta(seconds=5)), NOON)
    assert isinstance(shut, NotBefore) and shut.at == NOON + timedelta(seconds=5)
    trial = permit(limited, ProviderState(failures=2, closed_until=NOON), NOON)
    assert isinstance(trial, Permit) and trial.trial_until == NOON + timedelta(seconds=15)
    tried = permit(limited, ProviderState(failures=2, trial_until=NOON + timedelta(seconds=3)), NOON)
    assert isinstance(tried, NotBefore) and tried.at == NOON + timedelta(seconds=3)


@given(st.integers(0, 100), st.one_of(st.none(), st.integers(0, 86_400)))
def test_pauses_grow_to_an_hour_and_are_never_shorter_than_asked_for(tries: int, asked_for: int | None) -> None:
    pause = retry_after(tries, asked_for)
    assert timedelta(seconds=5) <= pause <= max(timedelta(hours=1), timedelta(seconds=asked_for or 0))
    assert pause >= timedelta(seconds=asked_for or 0)
    assert retry_after(tries + 1, asked_for) >= pause


def test_it_is_asked_again_with_another_request_after_expiry_or_by_force() -> None:
    asked = Ask("p", "found", None, (), 1, "same", 0, NOON, until=NOON + timedelta(days=7))
    later = NOON + timedelta(days=8)
    assert is_settled(asked, "same", provider(), None, NOON)
    assert not is_settled(asked, "other", provider(), None, NOON)
    assert not is_settled(asked, "same", provider(), NOON, NOON)
    assert is_settled(asked, "same", provider(), None, later)
    assert not is_settled(asked, "same", provider(cache={"days": 7}, refresh=True), None, later)
    failed = Ask("p", "failed", None, (), 1, "same", 1, NOON, retry_at=later)
    assert is_settled(failed, "same", provider(), None, NOON)
    assert not is_settled(failed, "same", provider(), None, later)
    assert not is_settled(Ask("p", "skipped", None, (), 1, None, 0, NOON), "same", provider(), None, NOON)


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("employees", 12.0, 12),
        ("employees", "120", 120),
        ("employees", "12-50", None),
        ("employees", -1, None),
        ("employees", float("nan"), None),
        ("employees", True, None),
        ("country", "germany", "DE"),
        ("country", "de", "DE"),
        ("phone", "+49 30 1234567", "+49301234567"),
        ("phone", "123", None),
        ("industry", " Ro\nbots ", "Ro bots"),
        ("industry", "a\x00b", None),
        ("industry", ["x"], None),
        ("industry", 7, "7"),
        ("attributes.x", {"a": [1, "b"]}, {"a": [1, "b"]}),
        ("attributes.x", "a\x00", None),
        ("attributes.x", "y" * 30_000, None),
        ("attributes.x", 2**70, None),
        ("attributes.x", b"bytes", None),
    ],
)
def test_a_value_is_kept_as_its_field_holds_it_or_not_at_all(name: str, value: Any, kept: Any) -> None:
    found, problem = cleaned(name, value)
    assert (found, problem is None) == (kept, kept is not None)


@given(st.text(min_size=1, max_size=30))
def test_no_value_becomes_another_part_of_an_address(value: str) -> None:
    filled = fill_address("https://api.example.com/a/{company}/b?c={company}#d", {"company": value})
    path, _, query = filled.removeprefix("https://api.example.com/a/").partition("/b?c=")
    assert not set("/?#&=@:") & set(path)
    assert query.endswith("#d") and not set("/?#&=") & set(query[:-2])


def test_places_are_filled_from_the_profile_and_what_follows() -> None:
    told = {"email": "Ann@acme.co.uk".lower(), "phone": "+493012345678", "attributes.plan": "pro", "title": "CEO"}
    known = known_places("l", profile_of(learn({}, told, NOON, "api")))
    assert (known["domain"], known["email_domain"], known["country"]) == ("acme.co.uk", "acme.co.uk", "DE")
    assert (known["attributes.plan"], known["attributes.seniority"], known["lead_id"]) == ("pro", "c_level", "l")
    assert "domain" not in known_places("l", Profile(email="ann@gmail.com"))


def test_what_tells_requests_apart_holds_no_credential() -> None:
    asked = provider(auth={"type": "query", "name": "key"})
    one, other = (prepare(asked, {"domain": "acme.com"}, secret) for secret in ("s3cret", "another"))
    assert one.sent == other.sent and "s3cret" in one.url and "s3cret" not in one.shown_url + one.sent
    assert hashed(b"k", "p", "x") != hashed(b"k", "q", "x") != hashed(b"l", "q", "x")


def test_personal_is_what_is_about_one_person() -> None:
    assert not provider().personal
    assert provider(request={"url": "https://a.com/{email_hash}"}).personal
    assert provider(request={"method": "POST", "url": "https://a.com", "body": {"x": ["{attributes.y}"]}}).personal
