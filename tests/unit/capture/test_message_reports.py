"""What providers report of messages, as a fact that names nobody."""

from datetime import UTC, datetime

import pytest

from services.capture.adapters.facts import MessageFact, Person
from services.capture.hooks.reports import is_report, report_fact
from shared.ids import LeadId

NOW = datetime(2026, 3, 14, tzinfo=UTC)


def told(event: str, channel: str = "email", **properties: object) -> MessageFact:
    return MessageFact(
        idempotency_key="key",
        occurred_at=NOW,
        event=event,
        person=Person(email="ann@example.com"),
        channel=channel,  # type: ignore[arg-type]  # one of the two
        message_id="m1",
        properties=properties,
    )


@pytest.mark.parametrize(
    ("event", "channel", "is_one"),
    [
        ("delivered", "email", True),
        ("bounced", "email", True),
        ("complained", "email", True),
        ("opened", "email", False),
        ("unsubscribed", "email", False),
        ("undelivered", "sms", True),
        ("replied", "sms", False),
    ],
)
def test_what_became_of_a_message_is_a_report_and_what_a_person_did_is_none(
    event: str, channel: str, is_one: bool
) -> None:
    assert is_report(told(event, channel)) is is_one


def test_a_report_is_one_however_often_it_comes_and_repeats_no_address() -> None:
    fact = told("bounced", status="550 5.1.1 <ann@example.com> unknown", code="5.1.1")
    once, again = (report_fact(fact, LeadId("lead"), NOW, "source") for _ in range(2))
    assert once == again
    assert once.event_id != report_fact(fact, LeadId("lead"), NOW, "other").event_id
    assert (once.event, once.message_id, once.code) == ("bounced", "m1", "5.1.1")
    assert "ann@example.com" not in once.encode().decode()
