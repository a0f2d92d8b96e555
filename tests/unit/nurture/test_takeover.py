"""What pauses marketing, and until when; and how triggers are taken apart."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from pydantic import ValidationError

from services.nurture.explaining.domain import parts_of, with_hold
from services.nurture.sending.domain import Hold
from services.nurture.sequences.steps import SendStep
from services.nurture.takeover.document import SHIPPED, STORE, Policy, policy
from services.nurture.takeover.domain import Assigned, Dealt, Known, Touched, pauses_of, standing_meeting
from services.nurture.templates.document import Template
from shared.ids import LeadId

ANN, BEN = LeadId("ann"), LeadId("ben")
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = Policy(1, SHIPPED)
KNOWN = Known(frozenset({ANN}))


def touched(kind: str, days: float, meeting: float | None = None, name: str = "") -> Touched:
    at = None if meeting is None else NOW + meeting * DAY
    return Touched(name or f"{kind}{days}", ANN, kind, NOW + days * DAY, at)


def causes(known: Known, now: datetime = NOW, by: Policy = POLICY) -> list[str]:
    return [pause.cause for pause in pauses_of(by, known, now)]


def test_of_assignments_the_newest_counts_whatever_became_of_those_before() -> None:
    first = Assigned("a1", ANN, 1, "accepted", NOW - 2 * DAY, NOW - DAY)
    assert causes(replace(KNOWN, assignments=[first])) == ["assignment"]
    assert causes(replace(KNOWN, assignments=[first, Assigned("a2", ANN, 2, "rejected", NOW, NOW)])) == []
    assert causes(replace(KNOWN, assignments=[first]), NOW + 29 * DAY) == []
    call = touched("call_attempted", 20)
    assert causes(replace(KNOWN, assignments=[first], touches=[call]), NOW + 45 * DAY) == ["assignment"]
    assert causes(replace(KNOWN, assignments=[first], released=frozenset({"assignment:a1"}))) == []
    accepted = POLICY.says.assignment.model_copy(update={"since": "accepted"})
    only_accepted = Policy(1, SHIPPED.model_copy(update={"assignment": accepted}))
    assert causes(replace(KNOWN, assignments=[replace(first, state="offered")]), by=only_accepted) == []


@pytest.mark.parametrize(
    ("told", "stands"),
    [
        ([("booked", 0, 5)], 5),
        ([("booked", 0, 5), ("canceled", 1, 5)], None),
        ([("booked", 0, 5), ("rescheduled", 1, 7)], 7),
        ([("booked", 0, 5), ("booked", 1, 7), ("canceled", 1, 5)], 7),  # moved, as some schedulers tell it
        ([("booked", 0, 5), ("booked", 1, 7), ("canceled", 2, None)], 5),
        ([("canceled", 0, None)], None),
    ],
)
def test_the_meeting_that_stands_does_not_depend_on_the_order_of_arrival(
    told: list[tuple[str, float, float | None]], stands: float | None
) -> None:
    touches = [touched(f"meeting_{kind}", at, meeting, str(number)) for number, (kind, at, meeting) in enumerate(told)]
    for order in permutations(touches):
        found = standing_meeting(order)
        assert (found and found.meeting_at) == (None if stands is None else NOW + stands * DAY)


def test_a_deal_pauses_while_it_is_open_and_for_as_long_after_a_loss_as_is_said() -> None:
    deal = Dealt("d", BEN, "open", NOW, NOW, None)
    assert causes(replace(KNOWN, deals=[deal])) == []  # a part in somebody else's deal
    own = replace(KNOWN, own=frozenset({ANN, BEN}), deals=[deal])
    assert causes(own, NOW + 3_000 * DAY) == ["deal"]
    lost = replace(own, deals=[replace(deal, status="lost", closed_at=NOW)])
    assert causes(lost) == []
    patient = POLICY.says.deal.model_copy(update={"resume_days_after_loss": 3})
    by = Policy(1, SHIPPED.model_copy(update={"deal": patient}))
    assert [causes(lost, NOW + days * DAY, by) for days in (2, 3)] == [["deal"], []]


def test_the_pause_that_lasts_longest_comes_first() -> None:
    known = replace(
        KNOWN,
        touches=[touched("email_replied", -1), touched("meeting_booked", -2, 30)],
        deals=[Dealt("d", ANN, "open", NOW, NOW, None)],
    )
    assert causes(known) == ["deal", "meeting", "reply"]


def test_the_shipped_policy_reads_back_and_nonsense_is_refused() -> None:
    shipped = SHIPPED.model_dump(mode="json")
    assert policy(1, shipped).says == SHIPPED
    assert STORE.kind == "takeover"
    for name, change in (
        ("reply", {"types": []}),
        ("reply", {"types": ["page_view"]}),
        ("deal", {"pauses": "everybody"}),
        ("meeting", {"pauses": "deal"}),
        ("contact", {"resume_after_days": 0}),
        ("assignment", {"whenever": 1}),
    ):
        with pytest.raises(ValidationError):
            policy(1, {**shipped, name: {**shipped[name], **change}})


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("stage == 'mql'", ["stage == 'mql'"]),
        ("a == 1 && (b || c) && d == '&&'", ["a == 1", "(b || c)", "d == '&&'"]),
        ("a && b || c", ["a && b || c"]),
        ("a && b ? c : d", ["a && b ? c : d"]),
        ("segments.exists(s, s == 'x' && true) && a", ["segments.exists(s, s == 'x' && true)", "a"]),
    ],
)
def test_a_condition_is_taken_apart_only_where_all_parts_have_to_hold(source: str, parts: list[str]) -> None:
    assert parts_of(source) == parts


def test_the_same_hold_again_makes_its_span_longer() -> None:
    step = SendStep("first", "email", Template(text="Hello"), "end")
    holds: list[dict[str, object]] = []
    times = [NOW + timedelta(minutes=minutes) for minutes in range(5)]
    for reason, at in zip("aaba", times, strict=False):
        holds = with_hold(holds, at, Hold(step, reason, until=times[-1], expires_at=at))
    assert [tuple(one[name] for name in ("reason", "since", "last", "looks", "expires_at")) for one in holds] == [
        ("a", times[0], times[1], 2, times[1]),
        ("b", times[2], times[2], 1, times[2]),
        ("a", times[3], times[3], 1, times[3]),
    ]
