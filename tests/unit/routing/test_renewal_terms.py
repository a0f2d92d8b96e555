"""What is to be renewed, until when, and what of an open renewal follows its contract."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from services.routing.deals.domain import Deal, opened_deal
from services.routing.deals.inputs import DealInput
from services.routing.deals.pipeline import DEFAULT_PIPELINE
from services.routing.deals.renewals import followed, terms_of
from services.routing.deals.stages import compile_pipeline
from shared.ids import DealId

AT = datetime(2026, 11, 25, tzinfo=UTC)
PIPELINE = compile_pipeline(1, DEFAULT_PIPELINE)


def deal(**told: Any) -> Deal:
    body = {"lead_id": "kim", "name": "Acme", "value_minor": 500, "currency": "EUR", **told}
    return opened_deal(DealId("one"), DealInput.model_validate(body), PIPELINE, None, AT)


def renewal_of(one: Deal) -> Deal:
    return replace(one, **terms_of(one))


@pytest.mark.parametrize(
    ("began", "ends", "until"),
    [
        (None, "2027-11-30", "2028-11-30"),
        (None, "2028-02-29", "2029-02-28"),
        (None, "2027-02-28", "2028-02-29"),
        ("2027-03-01", "2028-02-29", "2029-02-28"),
        ("2028-02-29", "2029-02-28", "2030-02-28"),
        ("2026-12-01", "2026-12-31", "2027-01-31"),
        ("2027-01-31", "2027-02-28", "2027-03-31"),
        ("2024-01-01", "2026-12-31", "2029-12-31"),
        ("2026-01-01", "2026-01-10", "2026-01-20"),
        (None, "2999-12-31", "3000-12-31"),
        ("2026-01-01", None, None),
    ],
)
def test_a_renewal_lasts_as_long_as_its_contract_or_a_year(
    began: str | None, ends: str | None, until: str | None
) -> None:
    terms = terms_of(deal(contract_starts_on=began, contract_ends_on=ends))
    assert terms["contract_ends_on"] == (until and date.fromisoformat(until))


def test_what_somebody_set_in_a_renewal_stays_and_the_rest_follows() -> None:
    was = deal(recurring_minor=100, contract_ends_on="2027-01-31")
    is_now = deal(recurring_minor=200, contract_ends_on="2027-04-30")
    renewal = renewal_of(was)
    assert followed(renewal, was, was) == {}
    assert followed(renewal, was, is_now) == {
        "lines": (),
        "value_minor": 2_400,
        "recurring_minor": 200,
        "expected_close_on": date(2027, 4, 30),
        "contract_starts_on": date(2027, 5, 1),
        "contract_ends_on": date(2028, 4, 30),
    }
    by_hand = replace(renewal, value_minor=1_000, expected_close_on=date(2027, 1, 15))
    assert set(followed(by_hand, was, is_now)) == {"contract_starts_on", "contract_ends_on"}


def test_a_renewal_never_ends_before_it_begins() -> None:
    was, is_now = deal(contract_ends_on="2027-01-31"), deal(contract_ends_on="2029-06-30")
    short = replace(renewal_of(was), contract_ends_on=date(2027, 7, 31))
    assert followed(short, was, is_now)["contract_ends_on"] == date(2030, 6, 30)
