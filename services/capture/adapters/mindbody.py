"""Mindbody: clients, what they buy and what they book. https://developers.mindbodyonline.com/WebhooksDocumentation

Ids are unique per site only, and so are named with their site. A sale names its client by the id that the studio sees,
which is therefore how a person is known here; a client's own record goes by the id that never changes.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    Answer,
    BookingFact,
    ConversionFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Unmappable,
)
from services.capture.adapters.amounts import decimal_amount, id_at
from services.capture.adapters.bodies import object_at, read_object
from services.capture.adapters.fields import happened_at, ignored, person_of, text
from services.capture.adapters.meetings import BookingEvent, meeting_time
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any

_PHONES = ("mobilePhone", "homePhone", "workPhone")


class Mindbody(Adapter):
    """Before a subscription may be made active, its address must answer a HEAD request."""

    kind: ClassVar[str] = "mindbody"

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        return Answer() if request.method == "HEAD" else None

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = (header_bytes(value) for value in request.headers.all("x-mindbody-signature"))
        require_any((_signature(key, request.raw_body) for key in keys(secrets)), given)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: read_object(request.raw_body)["messageId"])

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        event = _Event(body, request, settings, self.delivery_id(request))
        return Reading((event.fact(),), event.data, body)


def _signature(key: bytes, raw_body: bytes) -> bytes:
    return b"sha256=" + base64.b64encode(hmac_sha256(key, raw_body))


class _Event:
    """An event, and the client, sale or booking that it is about."""

    def __init__(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings, key: str) -> None:
        self.body = body
        self.request = request
        self.settings = settings
        self.key = key
        self.data = object_at(body, "eventData")

    def fact(self) -> Fact:
        match self.body.get("eventId"):
            case "client.created" | "client.updated":
                return self._client()
            case "clientSale.created":
                return self._sale()
            case "appointmentBooking.created":
                return self._booking("booked", "appointmentId", "startDateTime")
            case "appointmentBooking.cancelled":
                return self._booking("canceled", "appointmentId", "startDateTime")
            case "appointmentBooking.updated" if self._says("status", "completed"):
                return self._booking("held", "appointmentId", "startDateTime")
            case "classRosterBooking.created":
                return self._booking("booked", "classRosterBookingId", "classStartDateTime")
            case "classRosterBooking.cancelled":
                return self._booking("canceled", "classRosterBookingId", "classStartDateTime")
            case "classRosterBookingStatus.updated" if self._says("signedInStatus", "signedin"):
                return self._booking("held", "classRosterBookingId", "classStartDateTime")
            case _:
                return ignored(self.key, self.request, "event_type")

    def _client(self) -> Fact:
        at, timed_by = happened_at(self.body.get("eventInstanceOriginationDateTime"), self.request)
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            person=self._person(),
            external_id=self._of_site("clientUniqueId") or self._of_site("clientId"),
        )

    def _sale(self) -> Fact:
        """A sale has no currency of its own: the studio's is for the source's owner to say."""
        name = self._of_site("saleId")
        if name is None:
            raise Unmappable("a sale has a siteId and a saleId")
        currency = self.data.get("currency") or self.settings.currency
        if currency is None:
            raise Unmappable("a sale has no currency, and the source has none by default")
        minor, code = decimal_amount(self.data.get("totalAmountPaid"), currency)
        if minor < 0:
            return ignored(self.key, self.request, "return")  # it does not say of which sale
        at, timed_by = happened_at(self.body.get("eventInstanceOriginationDateTime"), self.request)
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event="sale_created",
            person=Person(external_id=self._of_site("purchasingClientId")),
            external_id=name,
            amount_minor=minor,
            currency=code,
        )

    def _booking(self, event: BookingEvent, named_by: str, timed_at: str) -> Fact:
        name = self._of_site(named_by)
        if name is None:
            raise Unmappable(f"a booking has a siteId and a {named_by}")
        at, timed_by = happened_at(self.body.get("eventInstanceOriginationDateTime"), self.request)
        return BookingFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=self._booker(),
            external_id=name,
            starts_at=meeting_time(self.data.get(timed_at)),
        )

    def _person(self) -> Person:
        data = self.data
        fields = {
            "external_id": self._of_site("clientId"),
            "email": data.get("email"),
            "phone": next((phone for name in _PHONES if (phone := text(data.get(name)))), None),
            "first_name": data.get("firstName"),
            "last_name": data.get("lastName"),
            "country": data.get("country"),
            "consent.email": data.get("sendPromotionalEmails"),
            "consent.sms": data.get("sendPromotionalTexts"),
        }
        return person_of(fields, self.settings.phone_country)

    def _booker(self) -> Person:
        fields = {
            "external_id": self._of_site("clientId"),
            "email": self.data.get("clientEmail"),
            "phone": self.data.get("clientPhone"),
            "first_name": self.data.get("clientFirstName"),
            "last_name": self.data.get("clientLastName"),
        }
        return person_of(fields, self.settings.phone_country)

    def _says(self, name: str, word: str) -> bool:
        return (text(self.data.get(name)) or "").lower() == word

    def _of_site(self, name: str) -> str | None:
        site, own = id_at(self.data, "siteId"), id_at(self.data, name)
        return f"{site}:{own}" if site and own else None


ADAPTER = Mindbody()
