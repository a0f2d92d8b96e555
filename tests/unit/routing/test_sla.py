"""Which steps a clock takes, and what it does when one is due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.routing.assignments.domain import Assignment
from services.routing.reps.calendar import Calendar
from services.routing.rules.domain import Escalation, Sla
from services.routing.sla.domain import (
    GRACE,
    MOST_GRACES,
    SPREAD,
    Fire,
    Later,
    Over,
    Running,
    known_by_end,
    ladder,
    look,
    started,
    worked_between,
)
from shared.ids import AssignmentId, LeadId, RepId

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
ALWAYS = Calendar(ZoneInfo("UTC"))
OFFICE = Calendar(ZoneInfo("Europe/Vienna"), tuple(((9 * 60, 17 * 60),) if day < 5 else () for day in range(7)))
MINUTE = timedelta(minutes=1)


def offer(**fields: object) -> Assignment:
    """An offer made at noon."""
    lead = LeadId("lead")
    made = Assignment(
        assignment_id=AssignmentId("one"),
        lead_id=lead,
        person_id=lead,
        revision=1,
        rep_id=RepId("ann"),
        queue="everybody",
        strategy="round_robin",
        state="offered",
        assigned_at=NOON,
        due_at=NOON + 60 * MINUTE,
        touch_due_at=NOON + 120 * MINUTE,
        rules_version=1,
        trace=(),
        cause_id=None,
        entry_id=None,
    )
    return replace(made, **fields)  # type: ignore[arg-type]  # fields by name


def acts(sla: Sla, clock: str) -> list[tuple[int, str]]:
    """The steps of a clock, in short."""
    return [(step.at, step.act) for step in ladder(sla, clock)]  # type: ignore[arg-type]  # a clock by name


@pytest.mark.parametrize(
    ("sla", "accept", "touch"),
    [
        (Sla(), [(100, "reroute")], [(100, "breach"), (150, "escalate")]),
        (Sla(on_breach="none"), [(100, "breach")], [(100, "breach")]),
        (Sla(on_breach="reroute"), [(100, "reroute")], [(100, "reroute")]),
        (
            Sla(on_breach="escalate"),
            [(100, "breach"), (150, "escalate"), (200, "reroute")],
            [(100, "breach"), (150, "escalate"), (200, "reroute")],
        ),
        (
            Sla(escalate=(Escalation(120, ("manager",), reroute=True),)),
            [(100, "breach"), (120, "reroute")],
            [(100, "breach"), (120, "reroute")],
        ),
        (
            Sla(escalate=(Escalation(100, ("rep",), reroute=True),)),
            [(100, "reroute")],
            [(100, "reroute")],
        ),
    ],
)
def test_what_is_left_out_is_as_it_always_was(
    sla: Sla, accept: list[tuple[int, str]], touch: list[tuple[int, str]]
) -> None:
    reminders = [(50, "remind"), (80, "remind")]
    assert acts(sla, "accept") == reminders + accept
    assert acts(sla, "touch") == reminders + touch
    assert acts(replace(sla, remind_at=()), "accept") == accept


def test_steps_are_due_in_the_working_time_of_the_rep() -> None:
    late = datetime(2026, 11, 27, 15, 30, tzinfo=UTC)  # Friday, half an hour before the end of the day in Vienna
    due_at = OFFICE.after_working(late, 100)
    running = started(offer(assigned_at=late, due_at=due_at), Sla(100, remind_at=(20, 50)), OFFICE)[0]
    assert running.due_at == late + 20 * MINUTE
    fired = look(running, offer(), OFFICE, running.due_at)
    assert isinstance(fired, Fire)
    assert fired.after is not None
    assert fired.after.due_at == datetime(2026, 11, 30, 8, 20, tzinfo=UTC)  # Monday, twenty past nine
    assert worked_between(OFFICE, late, fired.after.due_at) == 50 * MINUTE


def test_a_clock_that_was_answered_or_whose_assignment_ended_does_nothing() -> None:
    accept, touch = started(offer(), Sla(60, 120), ALWAYS)
    assert isinstance(look(accept, offer(state="accepted"), ALWAYS, NOON + 60 * MINUTE), Over)
    assert isinstance(look(accept, offer(ended_at=NOON), ALWAYS, NOON + 60 * MINUTE), Over)
    assert isinstance(look(touch, offer(touched_at=NOON), ALWAYS, NOON + 60 * MINUTE), Over)
    assert isinstance(look(touch, offer(state="accepted"), ALWAYS, NOON + 60 * MINUTE), Fire)


def test_reminders_that_are_overtaken_are_not_sent_and_a_missed_end_is_put_off() -> None:
    running = started(offer(), Sla(60), ALWAYS)[0]
    late = look(running, offer(), ALWAYS, NOON + 49 * MINUTE)
    assert isinstance(late, Fire)
    assert late.step.at == 80
    back = NOON + 300 * MINUTE
    put_off = look(running, offer(), ALWAYS, back)
    assert isinstance(put_off, Later)
    assert back + 15 * MINUTE <= put_off.running.due_at <= back + 15 * MINUTE + SPREAD
    assert [step.at for step in put_off.running.steps] == [100]
    assert isinstance(look(put_off.running, offer(), ALWAYS, put_off.running.due_at), Fire)


def test_a_grace_is_bounded_falls_into_working_time_moves_what_follows_and_ends_some_day() -> None:
    night = datetime(2026, 11, 25, 22, tzinfo=UTC)
    for minutes, grace in ((4, GRACE[0]), (60, 15), (4_000, GRACE[1])):
        running = Running(AssignmentId("one"), "accept", NOON, minutes, ladder(Sla(), "accept")[2:], NOON)
        put_off = look(running, offer(), OFFICE, night)
        assert isinstance(put_off, Later)
        opens = datetime(2026, 11, 26, 8, tzinfo=UTC)
        assert opens + grace * MINUTE <= put_off.running.due_at <= opens + grace * MINUTE + SPREAD
    ladder_of_two = Running(AssignmentId("one"), "touch", NOON, 60, ladder(Sla(), "touch")[2:], NOON + 60 * MINUTE)
    moved = look(ladder_of_two, offer(), ALWAYS, NOON + 400 * MINUTE)
    assert isinstance(moved, Later)
    fired = look(moved.running, offer(), ALWAYS, moved.running.due_at)
    assert isinstance(fired, Fire)
    assert fired.after is not None
    assert fired.after.due_at - moved.running.due_at == 30 * MINUTE
    weary = replace(ladder_of_two, graces=MOST_GRACES)
    assert isinstance(look(weary, offer(), ALWAYS, NOON + 400 * MINUTE), Fire)


def test_an_offer_known_from_its_fact_alone_goes_on_when_its_time_is_over() -> None:
    (running,) = known_by_end(offer())
    fired = look(running, offer(), ALWAYS, NOON + 60 * MINUTE)
    assert isinstance(fired, Fire)
    assert (fired.step.act, fired.after) == ("reroute", None)
    assert known_by_end(offer(due_at=None)) == []
    assert known_by_end(offer(state="accepted")) == []
