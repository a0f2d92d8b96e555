"""What is counted of a person: stages passed, answers of reps, deals and what they bring."""

from datetime import UTC, datetime, timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from services.attribution.pipeline.answering import answer_marks, outcome_of
from services.attribution.pipeline.counting import marks_of
from services.attribution.pipeline.domain import NOBODY, Assigned, DealStep, Mark, Owner, Payment, Story
from services.attribution.pipeline.earning import deals_marks, payment_marks
from services.attribution.pipeline.funnels import LEADS, LIFECYCLE, lead_way, passed_at
from services.attribution.pipeline.lapses import SECOND
from shared.ids import AssignmentId, ConversionId, DealId

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
A_DAY = 86_400 * SECOND
ANN, BOB = Owner("ann", ("emea",)), Owner("bob")
D1, D2 = DealId("d1"), DealId("d2")
PIPELINE = ("first", "middle", "late")


def told(marks: list[Mark], *kinds: str) -> list[tuple[object, ...]]:
    return [(m.kind, m.step, (m.at - START) / DAY, m.lapse) for m in marks if not kinds or m.kind in kinds]


def entered(**days: float) -> dict[str, datetime]:
    return {stage: START + day * DAY for stage, day in days.items()}


def step(day: float, revision: int, stage: str, status: str = "open", **more: object) -> DealStep:
    fields: dict[str, object] = {
        "revision": revision,
        "at": START + day * DAY,
        "status": status,
        "stage": stage,
        "probability": {"first": 10, "middle": 50, "late": 90}.get(stage, 0),
        "value_minor": 100,
        "currency": "EUR",
        "opened_at": START,
        "owner": ANN,
        "pipeline_stages": PIPELINE,
        **more,
    }
    return DealStep(**fields)  # type: ignore[arg-type]  # fields by name


def won(day: float, revision: int, **more: object) -> DealStep:
    return step(day, revision, "won", "won", closed_at=more.pop("closed_at", START + day * DAY), **more)


def offered(name: str, day: float, **more: object) -> Assigned:
    fields: dict[str, object] = {"at": START + day * DAY, "owner": ANN, "revision": 1, **more}
    return Assigned(AssignmentId(name), **fields)  # type: ignore[arg-type]  # fields by name


def test_a_stage_left_out_is_passed_with_the_next_and_tells_no_time() -> None:
    marks = lead_way(entered(subscriber=0, lead=2, sal=5), ANN)
    assert told(marks, "lead_entered") == [
        ("lead_entered", "subscriber", 0, None),
        ("lead_entered", "lead", 2, None),
        ("lead_entered", "mql", 5, None),
        ("lead_entered", "sal", 5, None),
    ]
    assert told(marks, "lead_skipped") == [("lead_skipped", "mql", 5, None)]
    assert told(marks, "lead_next") == [
        ("lead_next", "subscriber", 0, 2 * A_DAY),
        ("lead_next", "lead", 2, 3 * A_DAY),
        ("lead_next", "mql", 5, None),
    ]
    assert told(marks, "lead_last") == []


def test_who_becomes_a_customer_at_once_has_passed_everything() -> None:
    marks = lead_way(entered(customer=3, mql=9), ANN)
    assert {(m.step, m.at) for m in marks if m.kind == "lead_entered"} == {(s, START + 3 * DAY) for s in LIFECYCLE}
    assert [m.step for m in marks if m.kind == "lead_last"] == list(LIFECYCLE[:-1])


def test_who_leaves_leaves_from_the_stage_reached_by_then() -> None:
    marks = lead_way(entered(lead=1, mql=2, disqualified=3, sql=7, recycled=8), ANN)
    assert told(marks, "lead_left") == [("lead_left", "mql", 3, None), ("lead_left", "sql", 8, None)]


@given(st.dictionaries(st.sampled_from(LIFECYCLE), st.integers(0, 9)))
def test_stages_are_passed_in_their_order(days: dict[str, int]) -> None:
    passed = passed_at(LIFECYCLE, entered(**days))
    times = [passed[stage] for stage in LIFECYCLE if stage in passed]
    assert times == sorted(times)
    assert set(passed) == set(LIFECYCLE[: len(passed)])
    assert all(passed[stage] <= START + day * DAY for stage, day in days.items())
    assert {mark.kind for mark in lead_way(entered(**days), ANN)} <= set(LEADS.kinds)


def test_whoever_is_captured_is_in_the_first_stage_and_goes_on_from_there() -> None:
    captured = marks_of(Story(captured_at=START))
    assert [(m.kind, m.step, m.at) for m in captured if m.kind in LEADS.kinds] == [
        ("lead_entered", "subscriber", START)
    ]
    marks = marks_of(Story(captured_at=START, stages=entered(subscriber=1, lead=2)))
    assert [(m.kind, m.step, m.lapse) for m in marks if m.kind in LEADS.kinds] == [
        ("lead_entered", "subscriber", None),
        ("lead_next", "subscriber", 2 * A_DAY),
        ("lead_entered", "lead", None),
    ]


def test_times_count_from_capture_qualification_and_each_offer() -> None:
    story = Story(
        captured_at=START,
        stages=entered(mql=1),
        assignments=[
            offered("a", 1.5, expired_at=START + 2 * DAY, due_at=START + 2 * DAY),
            offered("b", 2, owner=BOB, accepted_at=START + 3 * DAY, due_at=START + 4 * DAY),
        ],
        contacts=[START + 4 * DAY],
    )
    marks = answer_marks(story, BOB)
    day = A_DAY
    assert told(marks, "captured") == [
        ("captured", "started", 0, None),
        ("captured", "assigned", 0, 1.5 * day),
        ("captured", "accepted", 0, 3 * day),
        ("captured", "contacted", 0, 4 * day),
    ]
    assert [(m.step, m.lapse) for m in marks if m.kind == "mql"] == [
        ("started", None),
        ("assigned", day / 2),
        ("accepted", 2 * day),
        ("contacted", 3 * day),
    ]
    assert [(m.ref, m.step, m.lapse, m.owner) for m in marks if m.kind == "offered"] == [
        ("a", "started", None, ANN),
        ("b", "started", None, BOB),
        ("b", "accepted", day, BOB),
        ("b", "contacted", 2 * day, BOB),
    ]
    assert [(m.ref, m.step) for m in marks if m.kind == "sla"] == [("a", "breached"), ("b", "kept")]


def test_a_contact_before_the_start_is_no_wait() -> None:
    marks = answer_marks(Story(captured_at=START, contacts=[START - DAY]), NOBODY)
    assert told(marks) == [("captured", "started", 0, None), ("captured", "contacted", 0, 0)]


def test_what_becomes_of_an_offer() -> None:
    due = START + DAY

    def outcome(replaced: float | None = None, *, erased: bool = False, **days: float) -> str:
        answers = {f"{answer}_at": START + day * DAY for answer, day in days.items()}
        replaced_at = None if replaced is None else START + replaced * DAY
        return outcome_of(offered("a", 0, due_at=due, **answers), replaced_at, erased=erased)

    assert outcome(accepted=1) == "kept"
    assert outcome(accepted=1.01) == "breached"
    assert outcome(expired=1.1) == "breached"
    assert outcome(expired=1.1, accepted=0.9) == "kept"
    assert outcome(rejected=0.5) == "rejected"
    assert outcome(rejected=1.5) == "breached"
    assert outcome(replaced=0.5) == "replaced"
    assert outcome(replaced=2) == "breached"
    assert outcome() == "pending"
    assert outcome(erased=True) == "withdrawn"


def test_an_open_deal_is_added_where_it_stands_and_taken_away_where_it_stood() -> None:
    marks = marks_of(
        Story(deals={D1: [step(0, 1, "first"), step(2, 2, "middle", value_minor=150), won(5, 3, value_minor=200)]})
    )
    day = {mark.at: (mark.at - START) / DAY for mark in marks}
    assert [(m.step, day[m.at], m.number, m.value_minor, m.weighted_minor) for m in marks if m.kind == "open"] == [
        ("first", 0, 1, 100, 1_000),
        ("first", 2, -1, -100, -1_000),
        ("middle", 2, 1, 150, 7_500),
        ("middle", 5, -1, -150, -7_500),
    ]
    assert [(m.kind, day[m.at], m.value_minor, m.lapse) for m in marks if m.kind in {"created", "won"}] == [
        ("created", 0, 200, None),
        ("won", 5, 200, 5 * A_DAY),
    ]


def test_a_value_changed_within_a_stage_is_one_mark() -> None:
    marks = marks_of(Story(deals={D1: [step(0, 1, "first"), step(1, 2, "first", value_minor=70)]}))
    assert [(m.number, m.value_minor) for m in marks if m.kind == "open"] == [(1, 100), (0, -30)]


def test_what_is_told_later_to_have_happened_earlier_pushes_back_the_rest() -> None:
    steps = [step(4, 1, "first"), step(6, 2, "middle"), step(3, 3, "late"), won(8, 4)]
    marks = deals_marks({D1: steps})
    assert {(m.step, (m.at - START) / DAY) for m in marks if m.kind == "open" and m.number == 1} == {
        ("first", 0),
        ("middle", 3),
        ("late", 3),
    }


def test_the_stages_of_a_deal_are_those_of_its_pipeline_and_won() -> None:
    marks = deals_marks({D1: [step(0, 1, "first"), step(3, 2, "late"), won(5, 3)]})
    assert told(marks, "deal_entered") == [
        ("deal_entered", "first", 0, None),
        ("deal_entered", "middle", 3, None),
        ("deal_entered", "late", 3, None),
        ("deal_entered", "won", 5, None),
    ]
    assert told(marks, "deal_skipped") == [("deal_skipped", "middle", 3, None)]
    assert told(marks, "deal_last") == [
        ("deal_last", "first", 0, 5 * A_DAY),
        ("deal_last", "middle", 3, None),
        ("deal_last", "late", 3, 2 * A_DAY),
    ]


def test_a_lost_deal_is_lost_from_the_stage_it_stood_in() -> None:
    lost = step(4, 3, "lost", "lost", closed_at=START + 4 * DAY)
    marks = deals_marks({D1: [step(0, 1, "first"), step(1, 2, "middle"), lost]})
    assert told(marks, "deal_left", "lost") == [("lost", "", 4, 4 * A_DAY), ("deal_left", "middle", 4, None)]


def test_recurring_revenue_is_new_once_and_then_grows_shrinks_and_churns() -> None:
    steps = [
        step(0, 1, "first", recurring_minor=90),
        won(2, 2, recurring_minor=100),
        won(3, 3, recurring_minor=130, closed_at=START + 2 * DAY),
        won(4, 4, recurring_minor=50, closed_at=START + 2 * DAY),
        won(5, 5, recurring_minor=0, closed_at=START + 2 * DAY),
    ]
    other = [won(1, 1), won(9, 2, recurring_minor=7)]
    marks = deals_marks({D2: other, D1: steps})
    assert [(m.ref, m.step, (m.at - START) / DAY, m.value_minor) for m in marks if m.kind == "recurring"] == [
        ("d1", "new", 2, 100),
        ("d1", "expansion", 3, 30),
        ("d1", "contraction", 4, -80),
        ("d1", "churn", 5, -50),
        ("d2", "expansion", 9, 7),
    ]


def test_recurring_revenue_told_as_of_the_win_corrects_it() -> None:
    steps = [won(2, 1, recurring_minor=100), won(2, 2, recurring_minor=80)]
    assert [(m.step, m.value_minor) for m in deals_marks({D1: steps}) if m.kind == "recurring"] == [("new", 80)]


def test_the_first_payment_of_a_person_is_new_and_the_later_ones_recur() -> None:
    payments = [
        Payment(ConversionId("c3"), START + 3 * DAY, 30, "EUR"),
        Payment(ConversionId("c0"), START, 0, "EUR"),
        Payment(ConversionId("c1"), START + DAY, 10, "USD", D1),
    ]
    marks = payment_marks(payments, BOB, {D1: ANN})
    assert [(m.ref, m.step, m.value_minor, m.currency, m.owner) for m in marks] == [
        ("c1", "new", 10, "USD", ANN),
        ("c3", "recurring", 30, "EUR", BOB),
    ]


def test_the_order_in_which_facts_are_known_does_not_matter() -> None:
    steps = [step(0, 1, "first"), step(1, 2, "middle"), won(3, 3, recurring_minor=5)]
    offers = [offered("a", 1), offered("b", 2, owner=BOB)]
    made = {
        frozenset(marks_of(Story(deals={D1: one}, assignments=other)))
        for one in permutations(steps)
        for other in permutations(offers)
    }
    assert len(made) == 1
