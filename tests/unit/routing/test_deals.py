"""However a deal is changed, its money is told under one id and equals its value."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.routing.deals.domain import (
    Deal,
    change_deal,
    conversion_of,
    deal_changed,
    deal_id_of,
    earns_anew,
    open_deal,
)
from services.routing.deals.inputs import DealChange, DealInput
from services.routing.deals.pipeline import DEFAULT_PIPELINE, Pipeline
from services.routing.errors import DealClosed
from shared.errors import Invalid

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
PIPELINE = Pipeline.of(1, DEFAULT_PIPELINE)


def opened(**fields: Any) -> Deal:
    told = DealInput.model_validate(
        {"lead_id": "lead", "name": "Acme", "value_minor": 100, "currency": "EUR", "external_id": "crm-1", **fields}
    )
    return open_deal(deal_id_of(told), told, PIPELINE, None, NOW)


def changed(deal: Deal, at: datetime = NOW, **fields: Any) -> Deal:
    return change_deal(deal, DealChange.model_validate(fields), PIPELINE, at)


changes = st.lists(
    st.one_of(
        st.sampled_from(list(PIPELINE.probabilities)).map(lambda stage: {"stage": stage}),
        st.integers(0, 1_000).map(lambda value: {"value_minor": value}),
        st.just({"won": True}),
        st.just({"lost": True, "reason": "budget"}),
    ),
    max_size=12,
)


@given(changes)
def test_any_changes_tell_one_conversion_whose_last_value_is_the_deals(steps: list[dict[str, Any]]) -> None:
    deal = opened()
    told = []
    for number, step in enumerate(steps):
        try:
            after = changed(deal, NOW + timedelta(days=number), **step)
        except DealClosed:
            assert deal.status != "open"
            continue
        assert after is deal or after.revision == deal.revision + 1
        conversion = conversion_of(after, NOW)
        if conversion is not None and earns_anew(deal, after):
            told.append(conversion)
        deal = after
    assert len({conversion.conversion_id for conversion in told}) == (1 if deal.status == "won" else 0)
    assert len({conversion.event_id for conversion in told}) == len(told)
    if deal.status == "won":
        assert (told[-1].value_minor, told[-1].occurred_at) == (deal.value_minor, deal.closed_at)


def test_the_same_change_twice_is_one_change() -> None:
    won = changed(opened(), won=True)
    assert changed(won, NOW + timedelta(days=1), won=True) is won
    moved = changed(opened(), stage="negotiation")
    assert changed(moved, stage="negotiation") is moved
    told, again = (deal_changed(one, PIPELINE, (), NOW) for one in (won, changed(opened(), won=True)))
    assert told.event_id == again.event_id


def test_a_change_tells_the_stages_of_the_pipeline_in_order_and_the_teams() -> None:
    told = deal_changed(opened(), PIPELINE, ("emea",), NOW)
    assert told.pipeline_stages == tuple(stage.id for stage in DEFAULT_PIPELINE.stages)
    assert told.teams == ("emea",)


def test_the_time_of_a_win_can_be_corrected() -> None:
    won = changed(opened(), won=True)
    corrected = changed(won, won=True, occurred_at="2026-11-20T10:00:00Z")
    assert earns_anew(won, corrected)
    assert corrected.closed_at == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert corrected.opened_at <= corrected.closed_at


def test_stages_carry_the_probability_of_the_pipeline_in_force() -> None:
    other = Pipeline(2, {"talk": 30})
    assert [changed(opened(), stage=stage).probability for stage in PIPELINE.probabilities] == [10, 25, 50, 70, 90]
    with pytest.raises(Invalid) as refused:
        change_deal(opened(), DealChange(stage="negotiation"), other, NOW)
    assert refused.value.errors[0].pointer == "/stage"
