"""How runs wait, split and skip, what a live edit makes of them, and what a document may not say."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.nurture.enrolments.domain import Fact, Run, may_enter, newly_met
from services.nurture.people.domain import Person
from services.nurture.permission.document import checked
from services.nurture.sequences.document import SequenceDocument
from services.nurture.sequences.domain import Plan, compile_plan
from services.nurture.sequences.imagining import Passage, imagine
from services.nurture.sequences.inflight import Placed, Standing, placed
from services.nurture.sequences.moments import moment_of
from services.nurture.sequences.steps import SendStep, SplitStep, WaitUntilStep
from services.nurture.sequences.trying import Tally, passages_of
from services.nurture.sequences.walking import Leave, Move, after, draw, goal_ahead, walk
from shared.consents import Consent, latest_consents
from shared.ids import EventId, LeadId, SequenceId
from shared.rules import InvalidDocument

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)  # a Thursday
ANN = LeadId("ann")
SEND = {"channel": "email", "template": {"subject": "Hello", "text": "Hello"}}
LAST = {"id": "c", "send": SEND}
WHO = Person(
    ANN, (ANN,), {"email": "ann@example.com"}, latest_consents([Consent("email", "granted", NOW)]), None
)  # fmt: skip


def plan_of(*steps: dict[str, Any], **more: Any) -> Plan:
    whole = {"name": "Test", "trigger": "event.type == 'form_submitted'", "active": True, "steps": list(steps), **more}
    return compile_plan(SequenceId("test"), 1, SequenceDocument.model_validate(whole))


def run(step_id: str, **more: Any) -> Run:
    return Run("test-1", SequenceId("test"), 1, ANN, 1, True, NOW, NOW, step_id, **more)


def fact(kind: str, at: datetime = NOW) -> Fact:
    return Fact(EventId(f"{kind}-{at}"), ANN, at, at, {"type": kind})


@pytest.mark.parametrize(
    ("written", "since", "until"),
    [
        ({"time": "09:00", "zone": "Europe/Berlin"}, NOW, "2026-11-27T08:00:00+00:00"),
        ({"time": "12:00", "zone": "UTC"}, NOW, "2026-11-27T12:00:00+00:00"),
        ({"time": "12:30", "zone": "UTC", "weekdays": ["mon", "thu"]}, NOW, "2026-11-26T12:30:00+00:00"),
        ({"time": "11:00", "zone": "UTC", "weekdays": ["thu"]}, NOW, "2026-12-03T11:00:00+00:00"),
        (
            {"time": "02:30", "zone": "Europe/Berlin"},
            datetime(2027, 3, 27, 12, tzinfo=UTC),
            "2027-03-28T01:30:00+00:00",
        ),
        ({"time": "09:00"}, NOW, "2026-11-26T14:00:00+00:00"),
        ({"date": "attributes.ends", "offset_days": -3, "zone": "UTC"}, NOW, "2026-12-21T09:00:00+00:00"),
        ({"date": "attributes.ends", "time": "15:00", "zone": "UTC"}, NOW, "2026-12-24T15:00:00+00:00"),
        ({"date": "attributes.at", "zone": "UTC"}, NOW, "2026-12-24T17:15:00+00:00"),
        ({"date": "attributes.nonsense"}, NOW, None),
        ({"date": "attributes.absent"}, NOW, None),
    ],
)
def test_a_moment_is_found_in_the_zone_it_is_meant_in(written: dict[str, Any], since: datetime, until: Any) -> None:
    step = plan_of({"id": "a", "wait_until": written}, {"id": "b", "send": SEND}).steps["a"]
    assert isinstance(step, WaitUntilStep)
    attributes = {
        "time_zone": "America/New_York",
        "ends": "2026-12-24",
        "at": "2026-12-24T18:15:00+01:00",
        "nonsense": 7,
    }
    found = moment_of(step, {"attributes": attributes}, since)
    assert (found and found.isoformat()) == until


def test_a_split_is_stable_and_by_its_weights() -> None:
    steps = [{"id": "s", "split": [{"id": "a", "weight": 70, "to": "x"}, {"id": "b", "weight": 30, "to": "x"}]}]
    plan = plan_of(*steps, {"id": "x", "send": SEND})
    split = plan.steps["s"]
    assert isinstance(split, SplitStep)
    drawn = Counter(draw(SequenceId("test"), split, LeadId(f"lead-{n}")) for n in range(4_000))
    assert abs(drawn["a"] / 4_000 - 0.7) < 0.03
    first = walk(plan, run("s"), "s", WHO, NOW)
    assert isinstance(first, Move) and first.variant is not None
    assert walk(plan, run("s"), "s", WHO, NOW + timedelta(days=9)) == replace(first, due_at=NOW + timedelta(days=9))
    other = "b" if first.variant[1] == "a" else "a"
    kept = walk(plan, run("s", variants={"s": other}), "s", WHO, NOW)
    assert isinstance(kept, SendStep), "what was drawn once counts"


def test_an_event_that_overtook_the_run_still_ends_its_wait() -> None:
    until = {"event": "event.type == 'email_clicked'", "timeout": {"days": 2}, "else": "no"}
    plan = plan_of(
        {"id": "w", "wait_until": until},
        {"id": "yes", "exit": {"reason": "yes"}},
        {"id": "no", "exit": {"reason": "no"}},
    )
    waiting = run("w", waits_at="w", waiting_since=NOW)
    assert walk(plan, run("w"), "w", WHO, NOW) == Move("w", NOW + timedelta(days=2), "w", NOW)
    assert walk(plan, waiting, "w", WHO, NOW + timedelta(days=2)) == Leave("exit: no")
    met = newly_met(plan, waiting, fact("email_clicked", NOW + timedelta(hours=1)), WHO)
    assert walk(plan, replace(waiting, met=met), "w", WHO, NOW + timedelta(hours=1)) == Leave("exit: yes")
    early = replace(waiting, met={"w": NOW - timedelta(hours=1)})
    assert isinstance(walk(plan, early, "w", WHO, NOW), Move), "what occurred before the wait does not end it"


def test_a_goal_is_skipped_forward_to_once() -> None:
    goal = {"when": "event.type == 'conversion_recorded'", "jump": True}
    plan = plan_of(
        {"id": "a", "send": SEND},
        {"id": "b", "wait": {"days": 1}},
        {"id": "g", "goal": goal},
        {"id": "z", "send": SEND},
    )
    met = {"g": NOW}
    assert goal_ahead(plan, run("a"), "a", WHO, NOW) is None
    assert goal_ahead(plan, run("a", met=met), "a", WHO, NOW) == Move("g", NOW, jumps=True)
    assert goal_ahead(plan, run("z", met=met), "z", WHO, NOW) is None, "it lies behind"
    assert goal_ahead(plan, run("a", met=met, visits={"g": 1}), "a", WHO, NOW) is None
    assert walk(plan, run("g", met=met), "g", WHO, NOW) == Move("z", NOW, reached="g")


def test_a_live_edit_counts_what_was_waited_and_finds_the_next_step_that_lives() -> None:
    old = plan_of({"id": "a", "wait": {"days": 3}}, {"id": "b", "send": SEND}, {"id": "c", "send": SEND})
    new = plan_of({"id": "a", "wait": {"days": 5}}, {"id": "c", "send": SEND})
    without = plan_of({"id": "c", "send": SEND})
    assert placed(old, new, Standing(1, "b", "a"), {}) == Placed("c", "a", span=timedelta(days=5))
    assert placed(old, new, Standing(1, "b", None), {}) == Placed("c", None, looks=True)
    assert placed(old, new, Standing(1, "b", None), {"b": "end"}) == Placed("end", None, looks=True)
    assert placed(old, new, Standing(1, "c", None), {}) == Placed("c", None)
    assert placed(old, without, Standing(1, "b", "a"), {}) == Placed("c", None, looks=True)
    assert placed(new, plan_of({"id": "x", "send": SEND}), Standing(1, "c", None), {}) == Placed(
        "end", None, looks=True
    )


def test_a_live_edit_keeps_what_was_waited_whatever_the_wait_becomes() -> None:
    two = plan_of({"id": "a", "wait": {"days": 3}}, {"id": "b", "wait": {"days": 2}}, LAST)
    sends = plan_of({"id": "z", "send": SEND}, *({"id": one, "wait": {"days": 3}} for one in "ab"), LAST)
    step = sends.steps["z"]
    assert isinstance(step, SendStep)
    assert after(sends, step, NOW) == Move("b", NOW + timedelta(days=3), "a", NOW), "each wait has its own time"
    assert walk(two, run("b"), "b", WHO, NOW) == Move("c", NOW + timedelta(days=2), "b", NOW)
    event = plan_of({"id": "a", "wait_until": {"event": "event.type == 'x'", "timeout": {"days": 5}}}, LAST)
    clock = plan_of({"id": "a", "wait_until": {"time": "09:00"}}, LAST)
    assert placed(two, event, Standing(1, "b", "a"), {}) == Placed("a", "a", looks=True)
    assert placed(two, clock, Standing(1, "b", "a"), {}) == Placed("a", None, looks=True)
    assert placed(event, two, Standing(1, "a", "a"), {}) == Placed("a", "a", looks=True)
    begun = NOW - timedelta(days=1)
    waiting = run("a", waits_at="a", waiting_since=begun)
    assert walk(two, waiting, "a", WHO, NOW) == Move("b", begun + timedelta(days=3), "a", begun)
    assert walk(two, waiting, "a", WHO, NOW + timedelta(days=9)) == Move(
        "c", NOW + timedelta(days=11), "b", NOW + timedelta(days=9)
    )


def test_nobody_enters_more_often_than_allowed_nor_in_a_circle() -> None:
    over = [replace(run("a"), active=False, run=n) for n in range(1, 25)]
    assert may_enter("always", over[:2], NOW, 3)[0]
    assert not may_enter("always", over[:3], NOW, 3)[0]
    allowed, why = may_enter("after_exit", over, NOW)
    assert not allowed and "circle" in why
    assert may_enter("after_exit", over, NOW + timedelta(days=2))[0]


def test_history_is_gone_through_as_in_earnest() -> None:
    plan = plan_of(
        {"id": "a", "send": SEND}, {"id": "w", "wait": {"days": 3}}, {"id": "b", "send": SEND},
        goal="event.type == 'conversion_recorded'", reentry={"days": 5},
    )  # fmt: skip
    facts = [fact("form_submitted", NOW + timedelta(days=n)) for n in (0, 1, 4, 6)]
    facts.append(fact("conversion_recorded", NOW + timedelta(days=7)))
    tally = Tally()
    tally.add(ANN, passages_of(plan, WHO, facts, NOW + timedelta(days=30)))
    told = tally.as_json()
    assert (told["entered"], told["people"], told["endings"]) == (2, 1, {"completed": 1, "goal": 1})
    sent = {(one["step_id"], one["what"]): one["times"] for one in told["steps"]}
    assert sent == {("a", "sends email"): 2, ("b", "sends email"): 1}


def test_an_imagined_loop_comes_to_an_end() -> None:
    plan = plan_of(
        {"id": "a", "send": SEND},
        {"id": "w", "wait": {"minutes": 1}},
        {"id": "n", "branch": [{"when": "true", "to": "a"}]},
    )
    passage = imagine(plan, WHO, [], NOW + timedelta(days=365), Passage(NOW))
    assert passage.happenings[-1].what == "stopped"


def test_what_is_imagined_is_held_by_hours_and_pressure_and_says_until_when() -> None:
    policy = checked(
        {
            "hours": {
                "email": {day: [["13:00", "20:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}
            },
            "pressure": {"limits": [{"messages": 1, "days": 2}]},
        }
    )
    plan = plan_of(
        {"id": "a", "send": SEND},
        {"id": "w", "wait": {"hours": 1}},
        {"id": "b", "send": SEND, "pressure": {"expire_after": {"hours": 5}}},
        {"id": "c", "send": SEND},
    )
    passage = imagine(plan, WHO, [], NOW + timedelta(days=30), Passage(NOW, policy))
    opens = NOW.replace(hour=13, minute=0)
    assert [(one.what, one.step_id, one.at) for one in passage.happenings if one.what != "waits"] == [
        ("holds email", "a", NOW),
        ("sends email", "a", opens),
        ("holds email", "b", opens + timedelta(hours=1)),
        ("does not send email", "b", opens + timedelta(hours=6)),
        ("holds email", "c", opens + timedelta(hours=6)),
        ("sends email", "c", opens + timedelta(days=2)),
        ("ends", None, opens + timedelta(days=2)),
    ]
    why = {one.what: one.why or "" for one in passage.happenings}
    assert why["does not send email"].startswith("expired under contact pressure: at most 1 in 2 days")
    assert "until" in why["holds email"]


SPLIT = [{"id": "a", "weight": 50, "to": "b"}, {"id": "a", "weight": 49, "to": "b"}]


@pytest.mark.parametrize(
    ("step", "pointers"),
    [
        ({"split": SPLIT}, {"/steps/0/split", "/steps/0/split/1/id"}),
        ({"update": {"email": "x", "nix": 1}}, {"/steps/0/update/email", "/steps/0/update/nix"}),
        ({"update": {"employees": "7", "use_case": 7}}, {"/steps/0/update/employees", "/steps/0/update/use_case"}),
        ({"wait_until": {"time": "09:00", "zone": "Mars/Base"}}, {"/steps/0/wait_until/zone"}),
        ({"wait_until": {"date": "birthday"}}, {"/steps/0/wait_until/date"}),
        ({"wait_until": {"event": "event.typ == 'x'", "timeout": {"days": 1}}}, {"/steps/0/wait_until/event"}),
        ({"wait_until": {"segment": "eu", "timeout": {"days": 1}, "else": "no"}}, {"/steps/0/wait_until/else"}),
        ({"notify": {"subject": "x", "text": "{{ lead.nix }}"}}, {"/steps/0/notify/text"}),
        ({"webhook": {"endpoint": "e", "fields": ["email", "nix"]}}, {"/steps/0/webhook/fields/1"}),
        ({"goal": {"when": "event.nix == 1"}}, {"/steps/0/goal/when"}),
        ({"remove": {"sequence": "test"}}, {"/steps/0/remove/sequence"}),
        ({"exit": {"reason": "x"}}, {"/steps/1"}),
        ({"wait_until": {"date": "attributes.x"}, "next": "a"}, {"/steps/0", "/steps/1"}),
    ],
)  # fmt: skip
def test_a_step_that_cannot_work_is_refused_at_its_place(step: dict[str, Any], pointers: set[str]) -> None:
    with pytest.raises(InvalidDocument) as refused:
        plan_of({"id": "a", **step}, {"id": "b", "send": SEND})
    assert {fault.pointer for fault in refused.value.errors} == pointers


@pytest.mark.parametrize(
    "until",
    [
        {},
        {"time": "25:00"},
        {"time": "09:00", "event": "true", "timeout": {"days": 1}},
        {"event": "event.type == 'x'"},
        {"segment": "eu", "timeout": {"days": 0}},
        {"time": "09:00", "timeout": {"days": 1}},
        {"weekdays": ["mon"], "segment": "eu", "timeout": {"days": 1}},
        {"date": "attributes.x", "offset_days": 9_999},
    ],
)
def test_an_impossible_wait_is_refused(until: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"wait_until"):
        plan_of({"id": "a", "wait_until": until}, {"id": "b", "send": SEND})
