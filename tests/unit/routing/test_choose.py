"""Rules choose a rep, and the trace says why each of them did or did not."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from services.routing.assignments.domain import (
    Assignment,
    Case,
    Choice,
    Nobody,
    Pool,
    State,
    choose,
)
from services.routing.assignments.ownership import one_owner, wants_rep
from services.routing.people.domain import Person, Standing
from services.routing.reps.calendar import Calendar
from services.routing.reps.domain import Rep
from services.routing.reps.spans import Span
from services.routing.rules.document import DEFAULT, RoutingDocument
from services.routing.rules.domain import Rules, compile_rules
from shared.ids import AssignmentId, LeadId, RepId
from shared.rules import InvalidDocument

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)  # a Wednesday
UTC_ZONE = ZoneInfo("UTC")
DEFAULT_RULES = compile_rules(1, DEFAULT)


def rep(name: str, **fields: Any) -> Rep:
    return Rep(RepId(name), name.title(), f"{name}@sales.example", fields.pop("calendar", Calendar(UTC_ZONE)), **fields)


def person(stage: str = "mql", deal: Mapping[str, Any] | None = None, **lead: Any) -> Person:
    standing = Standing(LeadId("lead"), 1, stage, 55.0, 40, 95.0, "C")  # type: ignore[arg-type]  # a stage by name
    return Person(LeadId("lead"), (LeadId("lead"),), lead, 1, standing, deal)


def case(who: Person, at: datetime, **claims: Any) -> Case:
    return Case(who.values(), at, **claims)


def rules(*lines: Mapping[str, Any], queues: list[Mapping[str, Any]] | None = None, **catch_all: Any) -> Rules:
    return compile_rules(
        7,
        RoutingDocument.model_validate(
            {
                "rules": list(lines),
                "queues": queues or [{"id": "everybody", "who": "true"}],
                "catch_all": {"queue": "everybody", "strategy": "round_robin", **catch_all},
            }
        ),
    )


def chosen(case: Case, by: Rules, *reps: Rep) -> Choice:
    choice = choose(case, by, Pool(reps))
    assert isinstance(choice, Choice), choice
    return choice


def matched(choice: Choice | Nobody) -> list[str]:
    return [trial.rule_id for trial in choice.trace if trial.matched]


def test_by_default_everybody_takes_turns() -> None:
    pool = Pool((rep("ann"), rep("bob")))
    order = []
    for _ in range(4):
        choice = choose(case(person(), NOW), DEFAULT_RULES, pool)
        assert isinstance(choice, Choice)
        pool = pool.after(choice, NOW)
        order.append(choice.rep.rep_id)
    assert order == ["ann", "bob", "ann", "bob"]
    assert [one.open_leads for one in pool.reps] == [2, 2]


def test_territory_and_use_case_are_expressions_over_rep_and_lead() -> None:
    by = rules(
        {"id": "skill", "when": "true", "who": "lead.use_case in rep.skills", "strategy": "round_robin"},
        {"id": "territory", "when": "true", "who": "lead.country in rep.territories", "strategy": "round_robin"},
    )
    ann, bob = rep("ann", territories=("DE", "AT")), rep("bob", skills=("analytics",))
    assert chosen(case(person(country="AT", use_case="analytics"), NOW), by, ann, bob).rep == bob
    assert chosen(case(person(country="AT", use_case="billing"), NOW), by, ann, bob).rep == ann
    nowhere = chosen(case(person(country="FR"), NOW), by, ann, bob)
    assert matched(nowhere) == ["catch-all"]
    assert "2 not fitting `who`" in nowhere.trace[0].why


def test_deal_value_and_score_conditions_pick_the_rule() -> None:
    by = rules(
        {"id": "big", "when": "deal.value_minor >= 5000000", "strategy": "highest_seniority"},
        {"id": "hot", "when": "score.total > 90.0", "strategy": "least_loaded"},
    )
    ann, bob = rep("ann", seniority=1), rep("bob", seniority=5, open_leads=3)
    assert chosen(case(person(deal={"value_minor": 9_000_000}), NOW), by, ann, bob).rep == bob
    hot = chosen(case(person(), NOW), by, ann, bob)
    assert (hot.rep, hot.trace[0].why) == (ann, "its condition does not hold: deal is missing")
    assert matched(hot) == ["hot"]


def test_a_rule_for_available_reps_falls_through_when_nobody_works() -> None:
    nights = Calendar(UTC_ZONE, (((0, 360),),) * 7)
    by = rules({"id": "now", "when": "true", "strategy": "round_robin", "available": True})
    choice = chosen(case(person(), NOW), by, rep("ann", calendar=nights), rep("bob", calendar=nights))
    assert matched(choice) == ["catch-all"]
    assert "2 outside working hours" in choice.trace[0].why


def test_soonest_available_compares_calendars_in_their_zones() -> None:
    hours = (((540, 1020),),) * 7
    by = rules({"id": "soon", "when": "true", "strategy": "soonest_available"})
    tokyo = rep("tokyo", calendar=Calendar(ZoneInfo("Asia/Tokyo"), hours))  # 21:00 there
    denver = rep("denver", calendar=Calendar(ZoneInfo("America/Denver"), hours))  # 05:00 there
    berlin = rep("berlin", calendar=Calendar(ZoneInfo("Europe/Berlin"), hours))  # 13:00 there
    assert chosen(case(person(), NOW), by, tokyo, denver).rep == denver
    choice = chosen(case(person(), NOW), by, tokyo, denver, berlin)
    assert (choice.rep, choice.trace[-1].why) == (berlin, "works now, the soonest among 3")


def test_account_owner_and_previous_owner_find_the_one_or_fall_through() -> None:
    by = rules({"id": "account", "when": "true", "strategy": "account_owner"})
    ann, bob = rep("ann"), rep("bob")
    assert chosen(case(person(), NOW, account_owner=RepId("bob")), by, ann, bob).rep == bob
    assert matched(chosen(case(person(), NOW, account_owner=RepId("gone")), by, ann, bob)) == ["catch-all"]
    assert matched(chosen(case(person(), NOW), by, ann, bob)) == ["catch-all"]


def test_a_lead_that_comes_back_goes_to_its_rep_even_at_capacity() -> None:
    ann, bob = rep("ann"), rep("bob", capacity=1, open_leads=1)
    back = case(person(), NOW, previous_owner=RepId("bob"))
    choice = chosen(back, DEFAULT_RULES, ann, bob)
    assert (choice.rep, choice.strategy, matched(choice)) == (bob, "previous_owner", ["re-entry"])
    assert choice.due_at(NOW) == NOW + timedelta(hours=4)


@pytest.mark.parametrize("why", ["deactivated", "on leave", "passed it by"])
def test_a_lead_that_comes_back_to_nobody_goes_by_the_rules(why: str) -> None:
    ann, bob = rep("ann"), rep("bob")
    if why == "on leave":
        bob = replace(bob, calendar=Calendar(UTC_ZONE, None, (Span(NOW, NOW + timedelta(hours=1)),)))
    passed = frozenset({RepId("bob")}) if why == "passed it by" else frozenset()
    reps = (ann,) if why == "deactivated" else (ann, bob)
    choice = chosen(case(person(), NOW, previous_owner=RepId("bob"), passed_by=passed), DEFAULT_RULES, *reps)
    assert (choice.rep, matched(choice)) == (ann, ["catch-all"])
    assert why in choice.trace[0].why


def test_capacity_counts_what_a_rep_holds() -> None:
    choice = chosen(case(person(), NOW), DEFAULT_RULES, rep("ann", capacity=2, open_leads=2), rep("bob"))
    assert choice.rep.rep_id == "bob"


def test_nobody_at_all_says_why_and_when_somebody_is_back() -> None:
    leave = Calendar(UTC_ZONE, None, (Span(NOW - timedelta(days=1), NOW + timedelta(days=2)),))
    away, full = rep("ann", calendar=leave), rep("bob", capacity=1, open_leads=1)
    nobody = choose(case(person(), NOW), DEFAULT_RULES, Pool((away, full)))
    assert isinstance(nobody, Nobody)
    assert nobody.reason == "nobody can take it: 1 at capacity, 1 on leave"
    assert nobody.retry_at == NOW + timedelta(days=2)
    empty = choose(case(person(), NOW), DEFAULT_RULES, Pool(()))
    assert isinstance(empty, Nobody)
    assert empty.reason == "there are no active reps"


def test_a_queue_by_name_overrides_weights_and_leaves_others_out() -> None:
    by = rules(queues=[{"id": "everybody", "members": [{"rep_id": "ann"}, {"rep_id": "bob", "weight": 0}]}])
    pool = Pool((rep("cid"), rep("bob"), rep("ann")))
    for _ in range(3):
        choice = choose(case(person(), NOW), by, pool)
        assert isinstance(choice, Choice)
        assert choice.rep.rep_id == "ann"
        pool = pool.after(choice, NOW)


def test_response_time_is_counted_in_the_reps_own_working_minutes() -> None:
    by = rules(sla={"accept_minutes": 90, "touch_minutes": 30})
    office = Calendar(ZoneInfo("Europe/Berlin"), (((540, 840),),) * 7)  # until 14:00, an hour from now
    choice = chosen(case(person(), NOW), by, rep("ann", calendar=office))
    assert choice.touch_due_at(NOW) == NOW + timedelta(minutes=30)
    assert choice.due_at(NOW) == datetime(2026, 11, 26, 8, 30, tzinfo=UTC)


def test_the_same_inputs_choose_the_same_rep() -> None:
    by = rules({"id": "load", "when": "true", "strategy": "least_loaded"})
    pool = Pool((rep("ann"), rep("bob"), rep("cid")))
    assert choose(case(person(), NOW), by, pool) == choose(case(person(), NOW), by, pool)


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({"route_when": "stagee == 'mql'"}, "/route_when", "no stagee"),
        ({"rules": [{"id": "a", "when": "lead.x == 1", "strategy": "round_robin"}]}, "/rules/0/when", "no lead.x"),
        (
            {"rules": [{"id": "a", "when": "true", "who": "rep.zone == 'x'", "strategy": "round_robin"}]},
            "/rules/0/who",
            "no rep.zone",
        ),
        (
            {"rules": [{"id": "a", "when": "rep.weight > 1", "strategy": "round_robin"}]},
            "/rules/0/when",
            "no rep",
        ),
        (
            {"rules": [{"id": "a", "when": "true", "queue": "nope", "strategy": "round_robin"}]},
            "/rules/0/queue",
            "no queue nope",
        ),
        ({"rules": [{"id": "catch-all", "when": "true", "strategy": "round_robin"}]}, "/rules/0/id", "reserved"),
        ({"rules": [{"id": "everybody", "when": "true", "strategy": "round_robin"}]}, "/rules/0/id", "is a queue"),
        (
            {"rules": [{"id": "a", "when": "true", "strategy": "round_robin"}] * 2},
            "/rules/1/id",
            "earlier one",
        ),
        ({"catch_all": {"queue": "everybody", "strategy": "account_owner"}}, "/catch_all/strategy", "finds nobody"),
        ({"catch_all": {"queue": "nope", "strategy": "round_robin"}}, "/catch_all/queue", "no queue nope"),
        ({"queues": [{"id": "everybody", "members": [{"rep_id": "a"}] * 2}]}, "/queues/0/members/1/rep_id", "already"),
    ],
)
def test_rules_that_cannot_work_are_refused_where_they_are_wrong(
    change: dict[str, Any], pointer: str, words: str
) -> None:
    document = RoutingDocument.model_validate({**DEFAULT.as_json(), **change})
    with pytest.raises(InvalidDocument) as caught:
        compile_rules(1, document)
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert words in caught.value.errors[0].detail


def assignment(name: str, state: State, minutes: int) -> Assignment:
    at = NOW + timedelta(minutes=minutes)
    return Assignment(
        assignment_id=AssignmentId(name),
        lead_id=LeadId(name),
        person_id=LeadId("lead"),
        revision=1,
        rep_id=RepId(f"rep-{name}"),
        queue="everybody",
        strategy="round_robin",
        state=state,
        assigned_at=at,
        due_at=None,
        touch_due_at=None,
        rules_version=1,
        trace=(),
        cause_id=None,
        entry_id=None,
    )


def test_of_two_owners_the_one_who_accepted_goes_on_then_the_earlier() -> None:
    early, late, taken = assignment("a", "offered", 0), assignment("b", "offered", 5), assignment("c", "accepted", 9)
    assert one_owner([late, early, taken]) == one_owner([one_owner([taken, late]), early]) == taken
    assert one_owner([late, early]) == early


def test_a_lead_with_a_rep_is_given_out_again_only_when_it_had_left() -> None:
    offered, accepted = assignment("a", "offered", 0), assignment("a", "accepted", 0)
    assert wants_rep(None, "lead", routed_before=False)
    assert wants_rep(accepted, "recycled", routed_before=False)
    assert not wants_rep(accepted, "mql", routed_before=True)
    assert not wants_rep(accepted, "opportunity", routed_before=False)
    assert not wants_rep(offered, "lead", routed_before=False)


def test_a_table_of_territories_places_leads_by_the_row_that_says_most() -> None:
    table = [
        {"territory": "dach", "country": "DE"},
        {"territory": "south", "country": "de", "region": "by"},
        {"territory": "health", "country": "DE", "industry": "health"},
    ]
    line = {
        "id": "t",
        "when": "territory != 'health'",
        "who": "territory in rep.territories",
        "strategy": "round_robin",
    }
    document = {
        "rules": [line],
        "queues": [{"id": "all", "who": "true"}],
        "catch_all": {"queue": "all", "strategy": "round_robin"},
        "territories": table,
    }
    by = compile_rules(1, RoutingDocument.model_validate(document))
    ann, bob = rep("ann", territories=("south",)), rep("bob", territories=("dach", "health"))
    assert chosen(case(person(country="DE", region="BY"), NOW), by, ann, bob).rep == ann
    assert chosen(case(person(country="DE", region="HE"), NOW), by, ann, bob).rep == bob
    assert chosen(case(person(country="DE", region="BY", industry="Health"), NOW), by, ann, bob).rep == ann
    assert matched(chosen(case(person(country="DE", industry="health"), NOW), by, ann, bob)) == ["catch-all"]
    nowhere = chosen(case(person(country="FR"), NOW), by, ann, bob)
    assert "territory is missing" in nowhere.trace[0].why
    twice = RoutingDocument.model_validate(document | {"territories": [*table, {"territory": "x", "country": "De "}]})
    with pytest.raises(InvalidDocument) as refused:
        compile_rules(1, twice)
    assert [fault.pointer for fault in refused.value.errors] == ["/territories/3"]
    with pytest.raises(ValidationError):
        RoutingDocument.model_validate(document | {"territories": [{"territory": "x"}]})
