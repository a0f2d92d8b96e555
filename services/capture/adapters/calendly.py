"""Calendly: meetings, what was paid for them, and routing forms. https://developer.calendly.com

A meeting is named by its invitee's address. Moving one makes a new invitee and cancels the old one, and both say so:
neither is a loss.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    BookingFact,
    ConversionFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Touch,
)
from services.capture.adapters.amounts import decimal_amount, id_at, needed_id, paid
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import (
    click_ids_of,
    happened_at,
    ignored,
    person_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.form_answers import FormAnswer, form_fields
from services.capture.adapters.meetings import BookingEvent, first_email, meeting_time, visit_before
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import require_timed
from services.capture.mapping import FORM_SUBMITTED


class Calendly(Adapter):
    """There is no delivery id: an event happens to an invitee once."""

    kind: ClassVar[str] = "calendly"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_timed(request, "Calendly-Webhook-Signature", secrets, now)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _own_name(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        event = _Event(body, request, settings, self.delivery_id(request))
        return Reading(tuple(event.facts()), event.answers, body)


def _own_name(request: HookRequest) -> str | None:
    body = read_object(request.raw_body)
    event, uri = text(body.get("event")), text(object_at(body, "payload").get("uri"))
    return f"{event}:{uri}" if event and uri else None


class _Event:
    """An event, and the invitee that it happened to."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key
        self.payload = object_at(body, "payload")
        self.tracking = object_at(self.payload, "tracking")
        self.answers = _answers(self.payload)

    def facts(self) -> list[Fact]:
        match self.body.get("event"):
            case "invitee.created":
                moved = text(self.payload.get("old_invitee")) is not None
                return [self._booking("rescheduled" if moved else "booked"), *self._payment()]
            case "invitee.canceled":
                moved = self.payload.get("rescheduled") is True
                return [self._booking("rescheduled" if moved else "canceled")]
            case "routing_form_submission.created":
                return [self._routed()]
            case "invitee_no_show.created" | "invitee_no_show.deleted":
                return [ignored(self.key, self.request, "no_show")]
            case _:
                return [ignored(self.key, self.request, "event_type")]

    def _booking(self, event: BookingEvent) -> Fact:
        meeting = object_at(self.payload, "scheduled_event")
        hosts = [host.get("user_email") for host in objects_at(meeting, "event_memberships")]
        at, timed_by = happened_at(self._told_at(), self.request)
        return BookingFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=self._person(),
            external_id=needed_id(self.payload, "uri"),
            starts_at=meeting_time(meeting.get("start_time")),
            host_email=first_email(*hosts),
            touch=visit_before(event, self.key, self.tracking),
        )

    def _payment(self) -> list[Fact]:
        """What the invitee paid. The invitee that a move makes repeats it, under the same id."""
        payment = object_at(self.payload, "payment")
        if payment.get("successful") is not True:
            return []
        minor, currency = paid(decimal_amount(payment.get("amount"), payment.get("currency")))
        name = id_at(payment, "external_id") or needed_id(self.payload, "uri")
        at, timed_by = happened_at(self._told_at(), self.request)
        fact = ConversionFact(
            idempotency_key=delivery_name(Calendly.kind, self.request, lambda: name),
            occurred_at=at,
            timed_by=timed_by,
            event="payment_succeeded",
            person=self._person(),
            external_id=name,
            amount_minor=minor,
            currency=currency,
        )
        return [fact]

    def _routed(self) -> Fact:
        """Somebody filled in a form that leads to a calendar, whether or not a meeting came of it."""
        at, timed_by = happened_at(self._told_at(), self.request)
        touch = Touch(
            type=self.settings.touch_type or FORM_SUBMITTED,
            touch_id=self.key,
            utm=utm_of(self.tracking),
            click_ids=click_ids_of(self.tracking),
        )
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="routing_form_submitted",
            person=self._person(),
            touch=touch_of({}, touch),
            external_id=id_at(self.payload, "uri"),
        )

    def _told_at(self) -> Any:
        return self.body.get("created_at") or self.payload.get("updated_at") or self.payload.get("created_at")

    def _person(self) -> Person:
        """The invitee's own fields before the answers, which are all there is of who filled in a routing form.

        The number for reminders counts where no answer is a number.
        """
        answers = (FormAnswer(name, value, box=False) for name, value in self.answers.items())
        own = {name: self.payload.get(name) for name in ("email", "name", "first_name", "last_name")}
        fields = form_fields(answers, self.settings) | {name: value for name, value in own.items() if value}
        fields.setdefault("phone", self.payload.get("text_reminder_number"))
        return person_of(fields, self.settings.phone_country)


def _answers(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The answers by the text of their question, which is all the name it has; of two to one question the first."""
    found: dict[str, Any] = {}
    for answer in objects_at(payload, "questions_and_answers"):
        if (question := text(answer.get("question"))) and text(answer.get("answer")):
            found.setdefault(question, answer.get("answer"))
    return found


ADAPTER = Calendly()
