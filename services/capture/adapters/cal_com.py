"""Cal.com: meetings, what was paid for them, and routing forms. https://cal.com/docs/developing/guides/automation/webhooks

A meeting is named by its `uid`; moving one gives it another. `MEETING_ENDED` lies flat, without a payload, and carries
the time at which the meeting was booked as its own.
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
    Unmappable,
)
from services.capture.adapters.amounts import id_at, paid, whole_amount
from services.capture.adapters.bodies import object_at, objects_at, read_any
from services.capture.adapters.fields import (
    click_ids_of,
    happened_at,
    ignored,
    is_tracking,
    lead_field,
    person_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.form_answers import FormAnswer, consent_given
from services.capture.adapters.meetings import BookingEvent, first_email, meeting_time, visit_before
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any
from services.capture.mapping import FORM_SUBMITTED
from shared.events import ConsentChannel, ConsentState

_BOOKINGS: Mapping[str, BookingEvent] = {
    "BOOKING_CREATED": "booked",
    "BOOKING_RESCHEDULED": "rescheduled",
    "BOOKING_CANCELLED": "canceled",
    "MEETING_ENDED": "held",
}
_IGNORED = {"PING": "test", "BOOKING_REJECTED": "rejected", "BOOKING_NO_SHOW_UPDATED": "no_show"}
_PHONES = ("attendeePhoneNumber", "smsReminderNumber", "aiAgentCallPhoneNumber")
_OF_MEETING = ("name", "email", "location", "title", "guests", "rescheduleReason", *_PHONES)
_MADE_UP = ("@sms.cal.com", "@cal.com.sms")  # for who books with a telephone number alone


class CalCom(Adapter):
    """Without a secret the header says `no-secret-provided`, which no secret signs."""

    kind: ClassVar[str] = "cal_com"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = (header_bytes(value) for value in request.headers.all("x-cal-signature-256"))
        require_any((hmac_sha256(key, request.raw_body).hex().encode() for key in keys(secrets)), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: _own_name(request))

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = _body(request)
        event = _Event(body, request, settings, self.delivery_id(request))
        return Reading((event.fact(),), event.answers, body)


def _body(request: HookRequest) -> Mapping[str, Any]:
    body = read_any(request)
    if not isinstance(body, dict):
        raise Unmappable("the body is not an object")
    return body


def _payload(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return object_at(body, "payload") or body


def _own_name(request: HookRequest) -> str | None:
    body = _body(request)
    event, uid = text(body.get("triggerEvent")), text(_payload(body).get("uid"))
    return f"{event}:{uid}" if event and uid else None


class _Event:
    """An event, and the booking or form that it is about."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key
        self.payload = _payload(body)
        self.answers = _answers(self.payload)

    def fact(self) -> Fact:
        trigger = text(self.body.get("triggerEvent"))
        match trigger:
            case str() if trigger in _BOOKINGS:
                return self._booking(_BOOKINGS[trigger])
            case "BOOKING_PAID":
                return self._payment()
            case "BOOKING_REQUESTED":
                return self._lead("booking_requested", "booking_requested")
            case "FORM_SUBMITTED":
                return self._lead(FORM_SUBMITTED, self.settings.touch_type or FORM_SUBMITTED)
            case str():
                return ignored(self.key, self.request, _IGNORED.get(trigger, "event_type"))
            case None if self.settings.places:
                return self._lead(None, self.settings.touch_type or FORM_SUBMITTED)  # a template of the owner's own
            case _:
                raise Unmappable("there is no triggerEvent; a template of one's own needs a mapping")

    def _booking(self, event: BookingEvent) -> Fact:
        told_at = self.body.get("createdAt")
        if event == "held":
            told_at = self.payload.get("endTime") or told_at
        at, timed_by = happened_at(told_at, self.request)
        organizer, user = object_at(self.payload, "organizer"), object_at(self.payload, "user")
        return BookingFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=self._person(),
            external_id=self._name(),
            starts_at=meeting_time(self.payload.get("startTime")),
            host_email=first_email(organizer.get("email"), user.get("email"), self.payload.get("userPrimaryEmail")),
            touch=visit_before(event, self.key, self.answers, object_at(self.payload, "metadata")),
        )

    def _payment(self) -> Fact:
        """The price is in minor units, as Stripe takes it."""
        if not self.payload.get("price"):
            return ignored(self.key, self.request, "nothing_paid")
        minor, currency = paid(whole_amount(self.payload.get("price"), self.payload.get("currency")))
        at, timed_by = happened_at(self.body.get("createdAt"), self.request)
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="booking_paid",
            person=self._person(),
            external_id=self._name(),
            amount_minor=minor,
            currency=currency,
        )

    def _lead(self, event: str | None, touch_type: str) -> Fact:
        at, timed_by = happened_at(self.body.get("createdAt"), self.request)
        touch = Touch(
            type=touch_type,
            touch_id=self.key,
            utm=utm_of(self.answers, object_at(self.payload, "metadata")),
            click_ids=click_ids_of(self.answers, object_at(self.payload, "metadata")),
        )
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=self._person(),
            touch=touch_of({}, touch),
            external_id=id_at(self.payload, "uid"),
        )

    def _name(self) -> str:
        name = id_at(self.payload, "uid") or id_at(self.payload, "bookingId") or id_at(self.payload, "id")
        if name is None:
            raise Unmappable("a booking has a uid")
        return name

    def _person(self) -> Person:
        """Who booked: by the answers, and the first of the attendees."""
        attendee = next(iter(objects_at(self.payload, "attendees")), {})
        answers = self.answers
        skipped = _PHONES if self.body.get("triggerEvent") == "FORM_SUBMITTED" else _OF_MEETING
        boxes = {slug: given for slug, value in answers.items() if (given := _allowed(slug, value)) is not None}
        fields = {
            lead_field(slug) or f"attributes.{slug}": value
            for slug, value in answers.items()
            if slug not in skipped and slug not in boxes and not is_tracking(slug)
        }
        fields |= {f"consent.{channel}": state for channels, state in boxes.values() for channel in channels}
        written = answers.get("name")
        parts = written if isinstance(written, dict) else {}
        emails = [email for email in (attendee.get("email"), answers.get("email")) if not _made_up(email)]
        phones = [attendee.get("phoneNumber"), *(answers.get(slug) for slug in _PHONES)]
        own = {
            "email": first_email(*emails),
            "name": attendee.get("name") or text(written),
            "first_name": attendee.get("firstName") or parts.get("firstName"),
            "last_name": attendee.get("lastName") or parts.get("lastName"),
            "phone": fields.get("phone") or next((phone for phone in phones if phone), None),
        }
        return person_of(fields | {name: value for name, value in own.items() if value}, self.settings.phone_country)


def _allowed(slug: str, value: Any) -> tuple[Sequence[ConsentChannel], ConsentState] | None:
    """What a box says about consent; the slug of its question is made from what people read."""
    return consent_given(FormAnswer(slug, value, box=True)) if isinstance(value, bool) else None


def _made_up(email: Any) -> bool:
    return (text(email) or "").lower().endswith(_MADE_UP)


def _answers(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The answers by the slug of their question, with or without a label beside them."""
    found: dict[str, Any] = {}
    for place in ("userFieldsResponses", "responses"):
        for slug, answer in object_at(payload, place).items():
            value = _answered(answer)
            if value not in (None, "", [], {}):
                found[slug] = value
    return found


def _answered(answer: Any) -> Any:
    """What was answered; of a question without an answer only the label is there, and forms may name choices alone."""
    match answer:
        case {"value": value}:
            return value
        case {"response": list(choices)}:
            return [_label(choice) for choice in choices]
        case {"response": choice}:
            return _label(choice)
        case {"label": _}:
            return None
        case _:
            return answer


def _label(choice: Any) -> Any:
    return choice.get("label") if isinstance(choice, dict) else choice


ADAPTER = CalCom()
