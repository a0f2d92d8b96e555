"""Who comes in, who leaves, what the next step does: every decision, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.nurture.enrolments.domain import (
    Fact,
    Run,
    ending,
    may_enter,
    screen_of,
    superfluous,
    triggered,
)
from services.nurture.people.domain import (
    Person,
    Profile,
    Suppression,
    why_not,
)
from services.nurture.sending.domain import (
    Deliver,
    Hold,
    Leave,
    Move,
    Readiness,
    Suppress,
    after,
    message_id,
    next_act,
    pause_before,
)
from services.nurture.sequences.document import EveryDays, SequenceDocument
from services.nurture.sequences.domain import Plan, SendStep, compile_plan
from shared.consents import Consent, latest_consents
from shared.ids import EventId, LeadId, SequenceId
from shared.profiles import combine_profiles
from shared.smtp import Outcome, outcome_of_reply, outcome_of_silence

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ANN = LeadId("ann")
HELLO = {"channel": "email", "template": {"subject": "Hello", "text": "Hello"}}
READY = Readiness()


def plan_of(**fields: Any) -> Plan:
    whole: dict[str, Any] = {
        "name": "Test",
        "trigger": "event.type == 'form_submitted' && lead.consent.email == 'granted'",
        "exit": "event.type == 'assignment_accepted'",
        "goal": "event.type == 'conversion_recorded'",
        "active": True,
        "steps": [
            {"id": "hello", "send": HELLO},
            {"id": "rest", "wait": {"days": 3}},
            {"id": "choose", "branch": [{"when": "lead.country == 'DE'", "to": "de"}], "else": "en"},
            {"id": "de", "send": HELLO, "next": "end"},
            {"id": "en", "send": HELLO},
        ],
    }
    return compile_plan(SequenceId("test"), 1, SequenceDocument.model_validate(whole | fields))


def person(*, consent: str | None = "granted", **fields: Any) -> Person:
    known: dict[str, Any] = {"stage": None, "suppressions": (), "erased": False, "parked": False}
    special = {name: fields.pop(name, default) for name, default in known.items()}
    consents = latest_consents([Consent("email", consent, NOW)] if consent else [])  # type: ignore[arg-type]  # test
    return Person(ANN, (ANN,), {"email": "ann@example.com", **fields}, consents, **special)


def fact(kind: str, at: datetime = NOW, **fields: Any) -> Fact:
    return Fact(EventId(f"{kind}-{at}"), ANN, at, at, {"type": kind, **fields})


def run(number: int = 1, *, active: bool = True, started: datetime = NOW, name: str = "test") -> Run:
    return Run(f"{name}-{number}", SequenceId(name), 1, ANN, number, active, started, started)


def act(plan: Plan, step_id: str, who: Person, *facts: Fact, readiness: Readiness = READY, live: bool = True) -> Any:
    return next_act(plan, run(), step_id, who, facts, readiness, live=live, now=NOW)


def test_a_form_starts_the_sequence_only_with_consent() -> None:
    plan = plan_of()
    assert triggered(plan, fact("form_submitted"), person()) == (True, "true")
    holds, why = triggered(plan, fact("form_submitted"), person(consent=None))
    assert not holds
    assert "consent" in why
    assert not triggered(plan, fact("page_view"), person())[0]
    assert not triggered(plan, fact("form_submitted"), person(consent="denied"))[0]
    assert not triggered(plan, fact("form_submitted"), person(erased=True))[0]


def test_most_facts_are_settled_without_a_look_at_the_lead() -> None:
    screen = screen_of([plan_of()])
    assert screen.may_matter(fact("form_submitted"))
    assert screen.may_matter(fact("conversion_recorded"))
    assert not screen.may_matter(fact("page_view"))
    about_the_lead = screen_of([plan_of(trigger="stage == 'mql'", goal=None, exit=None)])
    assert not about_the_lead.may_matter(fact("form_submitted"))
    assert about_the_lead.may_matter(fact("stage_changed"))


@given(
    kind=st.sampled_from(["form_submitted", "page_view", "demo_requested"]),
    campaign=st.sampled_from([None, "a", "b"]),
    country=st.sampled_from([None, "DE", "FR"]),
)
def test_what_the_screen_settles_never_starts_a_sequence(kind: str, campaign: str | None, country: str | None) -> None:
    plan = plan_of(trigger="(event.type == 'form_submitted' || event.campaign == 'a') && lead.country == 'DE'")
    happened = fact(kind, NOW, **({"campaign": campaign} if campaign else {}))
    if triggered(plan, happened, person(**({"country": country} if country else {})))[0]:
        assert screen_of([plan]).may_matter(happened)


def test_reentry_is_as_the_document_says() -> None:
    over = run(1, active=False, started=NOW - timedelta(days=5))
    assert may_enter("never", [], NOW)[0]
    assert not may_enter("never", [over], NOW)[0]
    assert may_enter("after_exit", [over], NOW)[0]
    assert not may_enter("after_exit", [over, run(2)], NOW)[0]
    assert may_enter(EveryDays(days=5), [over], NOW)[0]
    assert not may_enter(EveryDays(days=6), [over], NOW)[0]


def test_the_goal_and_the_exit_end_a_run_and_what_happened_before_it_does_not() -> None:
    plan = plan_of()
    over = ending(plan, [fact("assignment_accepted"), fact("conversion_recorded")], person(), NOW)
    assert over is not None
    assert over.kind == "exit"
    reached = ending(plan, [fact("conversion_recorded")], person(), NOW)
    assert reached is not None
    assert reached.kind == "goal"
    assert ending(plan, [fact("conversion_recorded", NOW - timedelta(1))], person(), NOW) is None


def test_two_ids_of_one_person_share_the_earlier_run() -> None:
    early, late = run(1, started=NOW - timedelta(1)), run(2)
    other = run(1, name="other")
    assert superfluous([late, early, other]) == [late]


def test_a_run_sends_waits_and_chooses() -> None:
    plan = plan_of()
    sends = act(plan, "hello", person())
    assert isinstance(sends, Deliver)
    assert after(plan, sends.step, NOW) == Move("choose", NOW + timedelta(days=3), "rest", NOW)
    assert act(plan, "rest", person()) == Move("choose", NOW + timedelta(days=3), "rest", NOW)
    german = act(plan, "choose", person(country="DE"))
    other = act(plan, "choose", person())
    assert isinstance(german, Deliver) and german.step.step_id == "de"
    assert isinstance(other, Deliver) and other.step.step_id == "en"
    assert after(plan, german.step, NOW) == Leave("completed")


def test_whoever_may_not_be_written_to_is_passed_over_with_the_reason() -> None:
    plan = plan_of()
    assert act(plan, "hello", person(consent=None)) == Suppress(step(plan), "no consent for email")
    assert act(plan, "hello", person(consent="denied")) == Suppress(step(plan), "consent for email is denied")
    assert act(plan, "hello", person(erased=True)) == Leave("erased")
    bounced = person(suppressions=(Suppression("bounced", NOW),))
    assert act(plan, "hello", bounced) == Suppress(step(plan), "suppressed: bounced")


def step(plan: Plan) -> SendStep:
    found = plan.steps["hello"]
    assert isinstance(found, SendStep)
    return found


def test_nothing_is_decided_while_consent_or_the_ledger_may_be_stale() -> None:
    plan = plan_of()
    for stale in (Readiness(consent="stale"), Readiness(ledger="stale")):
        assert act(plan, "hello", person(), readiness=stale) == Hold(step(plan), "stale")
        assert act(plan, "hello", person(consent="denied"), readiness=stale) == Hold(step(plan), "stale")
    assert isinstance(act(plan, "hello", person(parked=True)), Hold)
    assert isinstance(act(plan, "hello", person(), live=False), Hold)
    assert act(plan, "hello", person(), readiness=Readiness({"email": "none"})) == Hold(step(plan), "none")
    assert isinstance(act(plan, "hello", person(consent=None), readiness=Readiness({"email": "none"})), Suppress)


def test_what_ends_a_run_counts_even_when_it_came_before_the_run() -> None:
    accepted = fact("assignment_accepted", NOW + timedelta(seconds=1))
    assert isinstance(act(plan_of(), "hello", person(), accepted), Leave)


def test_an_unsubscription_ends_with_a_later_consent_and_not_with_an_earlier_one() -> None:
    def unsubscribed(at: datetime) -> Person:
        return person(suppressions=(Suppression("unsubscribed", at),))

    assert why_not(unsubscribed(NOW - timedelta(1)), "marketing", "email") is None
    assert why_not(unsubscribed(NOW), "marketing", "email") == "unsubscribed"
    assert why_not(unsubscribed(NOW + timedelta(1)), "marketing", "email") == "unsubscribed"
    assert why_not(unsubscribed(NOW + timedelta(1)), "transactional", "email") is None


def test_a_transactional_message_needs_no_consent_but_an_address_that_works() -> None:
    assert why_not(person(consent=None), "transactional", "email") is None
    complained = person(suppressions=(Suppression("complained", NOW),))
    assert why_not(complained, "transactional", "email") == "suppressed: complained"
    assert why_not(person(email=None), "transactional", "email") == "no email address"
    assert why_not(person(), "transactional", "sms") == "no phone number"
    assert why_not(person(phone="+4915112345678"), "transactional", "sms") is None
    assert why_not(person(phone="+4915112345678"), "marketing", "sms") == "no consent for sms"


def test_a_message_needs_consent_for_its_own_purpose_and_an_unsubscription_covers_every_one() -> None:
    def allowing(*words: Consent, **more: Any) -> Person:
        return Person(ANN, (ANN,), {"email": "ann@example.com"}, latest_consents(words), None, **more)

    newsletter = Consent("email", "granted", NOW, "newsletter")
    assert why_not(allowing(newsletter), "newsletter", "email") is None
    assert why_not(allowing(newsletter), "marketing", "email") == "no consent for email"
    unsubscribed = allowing(newsletter, suppressions=(Suppression("unsubscribed", NOW),))
    assert why_not(unsubscribed, "newsletter", "email") == "unsubscribed"
    refused = allowing(newsletter, Consent("email", "denied", NOW + timedelta(1)))
    assert why_not(refused, "newsletter", "email") == "consent for email is denied (marketing)"
    everything = allowing(Consent("email", "denied", NOW, "all"))
    assert why_not(everything, "transactional", "email") == "consent for email is denied (everything)"


def test_a_persons_own_profile_comes_first_and_others_fill_its_gaps() -> None:
    own = Profile(ANN, NOW - timedelta(9), {"email": "own@example.com", "attributes": {"a": 1}})
    old = Profile(LeadId("old"), NOW - timedelta(2), {"email": "x@example.com", "company": "Old"})
    new = Profile(LeadId("new"), NOW, {"company": "New", "attributes": {"a": 2, "b": 3}})
    assert combine_profiles(ANN, [old, new, own]) == {
        "email": "own@example.com",
        "company": "New",
        "attributes": {"a": 1, "b": 3},
    }


def test_a_message_has_one_id_for_each_visit_of_a_step() -> None:
    ids = {
        message_id(ANN, SequenceId("s"), run_, step_, visit) for run_ in (1, 2) for step_ in "ab" for visit in (1, 2)
    }
    assert len(ids) == 8
    assert message_id(ANN, SequenceId("s"), 1, "a", 1) in ids


@pytest.mark.parametrize(
    ("code", "text", "phase", "state", "retry"),
    [
        (250, "ok", "data", "sent", False),
        (451, "later", "data", "planned", True),
        (554, "spam", "data", "failed", False),
        (550, "5.1.1 no such user", "recipient", "bounced", False),
        (452, "4.2.2 full", "recipient", "planned", True),
        (554, "5.7.1 <ann@acme.test>: Relay access denied", "recipient", "failed", False),
        (530, "5.7.0 Authentication required", "recipient", "planned", True),
        (550, "relay denied", "envelope", "planned", True),
        (535, "wrong password", "envelope", "planned", True),
    ],
)
def test_a_reply_is_certain(code: int, text: str, phase: Any, state: str, retry: bool) -> None:
    outcome = outcome_of_reply(code, text, phase)
    assert (outcome.state, outcome.retry) == (state, retry)


def test_silence_is_certain_only_before_the_message_left() -> None:
    unreached = Outcome("planned", "the server was not reached: x", retry=True, in_trouble=True)
    assert outcome_of_silence("envelope", "x") == unreached
    assert outcome_of_silence("recipient", "x").retry
    assert outcome_of_silence("data", "x").state == "unknown"
    assert not outcome_of_silence("data", "x").retry


def test_pauses_grow_and_end() -> None:
    pauses = [pause_before(attempt) for attempt in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[0] == timedelta(seconds=2)
    assert pauses[-1] == timedelta(minutes=30)
