"""However a deal is changed, its money is told under one id, and the order of telling tells nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.deals.changes import (
    Stages,
    Teller,
    change_of,
    new_entries,
    opening_of,
    past_entries,
    reopening_of,
)
from services.routing.deals.domain import Deal, conversion_of, deal_changed, deal_id_of, opened_deal
from services.routing.deals.forecast import OpenDeal, forecast, value_range
from services.routing.deals.inputs import DealChange, DealInput, PastChange, Reopening
from services.routing.deals.lines import Line, annual_minor, monthly_minor, total_minor
from services.routing.deals.pipeline import DEFAULT_PIPELINE, PipelineDocument
from services.routing.deals.stages import ENOUGH, Passed, chance, compile_pipeline
from services.routing.deals.story import Entry, steps_of
from services.routing.errors import DealClosed, NotClosed
from shared.errors import Invalid
from shared.rules import InvalidDocument

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PIPELINE = compile_pipeline(1, DEFAULT_PIPELINE)
STAGES = Stages(PIPELINE, {})


class Story:
    """A deal and all that was told of it."""

    def __init__(self, stages: Stages = STAGES, **fields: Any) -> None:
        told = DealInput.model_validate(
            {"lead_id": "lead", "name": "Acme", "value_minor": 100, "currency": "EUR", "external_id": "crm-1", **fields}
        )
        self.stages = stages
        blank = opened_deal(deal_id_of(told.external_id), told, stages.pipeline, None, NOW)
        self.entries = [opening_of(blank, stages, "ann")]
        self.deal = steps_of(blank, self.entries)[-1].deal

    def change(self, at: datetime = NOW, **fields: Any) -> Deal:
        """The deal after a change."""
        steps = steps_of(self.deal, self.entries)
        return self._took(change_of(steps, self.deal, DealChange(**fields), self.stages, Teller("ann", at))[0])

    def reopen(self, at: datetime, **fields: Any) -> Deal:
        """The deal after it was reopened."""
        steps = steps_of(self.deal, self.entries)
        told = Reopening(reason="too soon", **fields)
        return self._took(reopening_of(steps, self.deal, told, self.stages, Teller("ann", at))[0])

    def _took(self, entry: Entry) -> Deal:
        self.entries.append(entry)
        after = steps_of(self.deal, self.entries)[-1].deal
        if after != self.deal:
            self.deal = replace(after, revision=self.deal.revision + 1)
        return self.deal


changes = st.lists(
    st.one_of(
        st.sampled_from(list(PIPELINE.probabilities)).map(lambda stage: {"stage": stage}),
        st.integers(0, 1_000).map(lambda value: {"value_minor": value}),
        st.just({"won": True}),
        st.just({"lost": True, "reason": "budget"}),
        st.just({"reopen": True}),
    ),
    max_size=12,
)


@given(changes)
def test_any_changes_tell_one_conversion_whose_last_word_is_the_deals(told: list[dict[str, Any]]) -> None:
    story = Story()
    conversions = []
    for number, step in enumerate(told, start=1):
        before, at = story.deal, NOW + timedelta(days=number)
        try:
            after = story.reopen(at) if "reopen" in step else story.change(at, **step)
        except (DealClosed, NotClosed):
            assert (before.status == "open") == ("reopen" in step)
            continue
        conversion = conversion_of(before, after, NOW)
        if conversion is not None:
            conversions.append(conversion)
    won = story.deal.status == "won"
    assert len({conversion.conversion_id for conversion in conversions}) <= 1
    assert len({conversion.event_id for conversion in conversions}) == len(conversions)
    if won:
        assert conversions[-1].value_minor == story.deal.value_minor
        assert conversions[-1].occurred_at == story.deal.closed_at
    assert not conversions or conversions[-1].withdrawn is not won


def test_the_same_change_twice_is_one_change() -> None:
    story = Story()
    won = story.change(won=True)
    assert story.change(NOW + timedelta(days=1), won=True) == won
    told, again = (deal_changed(one, PIPELINE, (), NOW) for one in (won, Story().change(won=True)))
    assert told.event_id == again.event_id


def test_a_change_tells_the_stages_of_the_pipeline_in_order_and_the_teams() -> None:
    told = deal_changed(Story().deal, PIPELINE, ("emea",), NOW)
    assert told.pipeline_stages == tuple(stage.id for stage in DEFAULT_PIPELINE.stages)
    assert told.teams == ("emea",)


def test_the_time_of_a_win_can_be_corrected_again_and_again_and_the_last_word_counts() -> None:
    story = Story()
    won = story.change(won=True)
    for day in (20, 22, 18, 21):
        corrected = story.change(NOW + timedelta(days=1), won=True, occurred_at=f"2026-11-{day}T10:00:00Z")
        assert corrected.closed_at == datetime(2026, 11, day, 10, tzinfo=UTC)
        assert conversion_of(won, corrected, NOW) is not None
        assert corrected.opened_at <= corrected.closed_at


def test_stages_carry_the_probability_of_the_pipeline_in_force() -> None:
    assert [Story().change(stage=stage).probability for stage in PIPELINE.probabilities] == [10, 25, 50, 70, 90]
    other = compile_pipeline(
        2, PipelineDocument.model_validate({"stages": [{"id": "talk", "name": "T", "probability": 30}]})
    )
    with pytest.raises(Invalid) as refused:
        Story(Stages(other, {})).change(stage="negotiation")
    assert refused.value.errors[0].pointer == "/stage"


PAST = [
    {"occurred_at": "2026-01-10T00:00:00Z", "stage": "needs_confirmed"},
    {"occurred_at": "2026-01-20T00:00:00Z", "stage": "negotiation", "value_minor": 900},
    {"occurred_at": "2026-02-01T00:00:00Z", "lost": True, "lost_reason": "pricing"},
    {"occurred_at": "2026-03-01T00:00:00Z", "reopened": True, "stage": "negotiation"},
    {"occurred_at": "2026-03-05T00:00:00Z", "value_minor": 700},
    {"occurred_at": "2026-03-09T00:00:00Z", "won": True},
]


@given(st.permutations(PAST), st.integers(0, len(PAST)))
def test_a_past_told_in_any_order_and_in_parts_is_the_same_deal(told: Sequence[dict[str, Any]], cut: int) -> None:
    story = Story(occurred_at="2026-01-01T00:00:00Z")
    for part in (told[:cut], told, told[cut:]):
        past = past_entries([PastChange.model_validate(one) for one in part], STAGES, 2, "ann")
        story.entries += new_entries(past, story.entries, len(story.entries) + 1)
    steps = steps_of(story.deal, story.entries)
    assert [(step.deal.stage, step.deal.value_minor) for step in steps] == [
        ("qualification", 100),
        ("needs_confirmed", 100),
        ("negotiation", 900),
        ("lost", 900),
        ("negotiation", 900),
        ("negotiation", 700),
        ("won", 700),
    ]
    assert steps[-1].deal.closed_at == datetime(2026, 3, 9, tzinfo=UTC)
    assert steps[-1].deal.passed == ("qualification", "needs_confirmed", "negotiation")


LINE = {"product": "seat", "unit_minor": 200}
AMOUNTS: list[dict[str, Any]] = [
    {"occurred_at": "2026-01-05T00:00:00Z", "value_minor": 60},
    {"occurred_at": "2026-01-10T00:00:00Z", "lines": [LINE]},
    {"occurred_at": "2026-01-20T00:00:00Z", "value_minor": 70, "recurring_minor": 7},
    {"occurred_at": "2026-01-30T00:00:00Z", "lines": [], "value_minor": 80},
]


@given(st.permutations(AMOUNTS))
def test_lines_make_the_value_in_any_order_also_of_an_amount_told_before_they_were(told: list[dict[str, Any]]) -> None:
    story = Story(occurred_at="2026-01-01T00:00:00Z")
    refused = []
    for change in told:
        try:
            story.change(**change)
        except Invalid as exc:
            refused.append((change["occurred_at"], exc.errors[0].pointer))
    assert refused in ([], [(AMOUNTS[2]["occurred_at"], "/value_minor")])  # whoever knows of the lines is told
    steps = steps_of(story.deal, story.entries)
    assert [(step.deal.value_minor, step.deal.recurring_minor) for step in steps] == [
        (100, None), (60, None), (200, None), (80, None),
    ]  # fmt: skip


def test_an_imported_past_whose_amounts_contradict_its_lines_names_the_place() -> None:
    told = [PastChange.model_validate(AMOUNTS[index]) for index in (2, 1)]
    with pytest.raises(Invalid) as refused:
        past_entries(told, STAGES, 2, "ann")
    assert refused.value.errors[0].pointer == "/changes/0/value_minor"


def test_what_recurs_is_normalised_once_and_totals_are_exact() -> None:
    lines = [
        Line(product="setup", unit_minor=10_000),
        Line.model_validate({"product": "seat", "quantity": 3, "unit_minor": 999, "recurring": {"interval": "month"}}),
        Line.model_validate({"product": "care", "unit_minor": 100, "recurring": {"interval": "week", "periods": 10}}),
        Line.model_validate({"product": "audit", "unit_minor": 700, "recurring": {"interval": "year", "count": 2}}),
    ]
    assert total_minor(lines) == 10_000 + 3 * 999 * 12 + 100 * 10 + 700
    assert annual_minor(lines) == 3 * 999 * 12 + 100 * 52 + 350
    assert monthly_minor(lines) == round((3 * 999 * 12 + 100 * 52 + 350) / 12)


def test_what_was_measured_counts_once_enough_deals_have_passed() -> None:
    stage = PIPELINE.stages[0]
    assert chance(stage, {"qualification": Passed(30, ENOUGH - 1)}) == 10
    assert chance(stage, {"qualification": Passed(30, ENOUGH)}) == 60


def test_a_range_is_exact_for_few_deals_and_close_to_it_for_many() -> None:
    deals = [(300, 50), (200, 20), (100, 90)]
    outcomes = sorted(
        (sum(deals[i][0] for i in won), _chance_of(deals, won)) for n in range(4) for won in combinations(range(3), n)
    )
    low = next(total for total, _ in outcomes if sum(p for value, p in outcomes if value <= total) >= 0.1)
    high = next(total for total, _ in outcomes if sum(p for value, p in outcomes if value <= total) >= 0.9)
    found = value_range(deals)
    assert (found.low, found.high, found.method) == (low, high, "exact")
    many = [(1_000 + number, 40) for number in range(300)]
    normal, exact = value_range(many), value_range([(1_000, 40)] * 300)
    assert (normal.method, exact.method) == ("normal", "exact")
    assert abs(normal.low - exact.low * 1.15) < 3_000
    made = forecast([50], [OpenDeal(100, 90, "committed"), OpenDeal(40, 50, "best_case"), OpenDeal(9, 10, "pipeline")])
    assert (made.committed_minor, made.best_case_minor, made.weighted_minor) == (150, 190, 50 + 111)


def _chance_of(deals: list[tuple[int, int]], won: tuple[int, ...]) -> float:
    chance_of = 1.0
    for number, (_, percent) in enumerate(deals):
        chance_of *= percent / 100 if number in won else 1 - percent / 100
    return chance_of


def test_a_document_names_each_part_that_cannot_work() -> None:
    stage = {"id": "a", "name": "A", "probability": 10, "required": ["nothing", "notes.scope"]}
    stage["exit"] = [{"id": "b", "when": "deal.value > 1"}, {"id": "c", "when": "lead.country == 'DE'"}]
    document = {"stages": [stage], "handoff": {"required": ["lead.shoe_size"]}}
    with pytest.raises(InvalidDocument) as refused:
        compile_pipeline(1, PipelineDocument.model_validate(document))
    assert [error.pointer for error in refused.value.errors] == [
        "/stages/0/required/0",
        "/stages/0/exit/0/when",
        "/handoff/required/0",
    ]
