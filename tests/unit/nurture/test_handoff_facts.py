"""A customer who is handed over is one fact to sequences, however often it is told."""

from datetime import UTC, datetime, timedelta

from services.nurture.enrolments.facts import handoff_fact
from shared.events import LeadHandedOff
from shared.ids import DealId, EventId, LeadId

WON_AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


def told(revision: int, won_at: datetime, first_won_at: datetime | None = None) -> LeadHandedOff:
    return LeadHandedOff(
        event_id=EventId(f"handed-off-{revision}"),
        lead_id=LeadId("lead"),
        occurred_at=WON_AT,
        received_at=WON_AT,
        deal_id=DealId("deal"),
        revision=revision,
        won_at=won_at,
        first_won_at=first_won_at,
    )


def test_a_win_whose_time_was_put_right_welcomes_nobody_again_and_another_win_does() -> None:
    later = WON_AT + timedelta(days=1)
    first, put_right, again = told(1, WON_AT), told(2, later, WON_AT), told(3, later)
    assert handoff_fact(first).event_id == handoff_fact(put_right).event_id != handoff_fact(again).event_id
