"""Chargebacks: what a disputed payment takes back from a purchase, until it is decided for the seller.

A dispute is told again and again while it goes on. All that says it still stands is one fact, dated by its beginning,
so that deliveries in any order and number change nothing; that it was given back corrects this to nothing.
"""

from collections.abc import Mapping
from typing import Any, Literal

from services.capture.adapters.adapter import HookRequest, RefundFact
from services.capture.adapters.fields import happened_at

Standing = Literal["taken", "returned"]


def standing_in(states: Mapping[Standing, frozenset[str]], state: str | None) -> Standing | None:
    """How a dispute in this state stands; None while it is only asked about, or in a state that nobody knows."""
    return next((standing for standing, names in states.items() if state in names), None)


def chargeback(  # noqa: PLR0913  # what a dispute is
    key: str,
    request: HookRequest,
    standing: Standing,
    *,
    purchase: str,
    dispute: str,
    money: tuple[int, str],
    began: Any,
    told: Any,
) -> RefundFact:
    """What a dispute takes back: all of its amount, or nothing any more. `began` and `told` are the source's times."""
    is_taken = standing == "taken"
    at, timed_by = happened_at(began if is_taken else told, request)
    return RefundFact(
        idempotency_key=key,
        occurred_at=at,
        timed_by=timed_by,
        event="charged_back" if is_taken else "chargeback_returned",
        external_id=purchase,
        refund_id=dispute,
        amount_minor=money[0] if is_taken else 0,
        currency=money[1],
    )
