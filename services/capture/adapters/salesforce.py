"""Salesforce outbound messages: SOAP, with the records as they are when the message is sent.

https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_om_outboundmessaging_understanding.htm
"""

import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar
from xml.etree.ElementTree import Element, ParseError, XMLParser

from services.capture.adapters.adapter import (
    PLAIN,
    Answer,
    BadSignature,
    CrmFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Unmappable,
)
from services.capture.adapters.batches import BatchAdapter, batch_name
from services.capture.adapters.carried import token_in_address
from services.capture.adapters.fields import happened_at, ignored, person_of
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.records import required_id
from services.capture.adapters.request import BLANK
from services.capture.adapters.signatures import keys, require_any

_MESSAGE = "{http://soap.sforce.com/2005/09/outbound}"
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_ACKNOWLEDGED = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse>'
    b"</soapenv:Body></soapenv:Envelope>"
)
_DECLARES = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_SESSION = re.compile(rb"(<(?:[\w.-]+:)?SessionId\b[^>]*(?<!/)>).*?(</(?:[\w.-]+:)?SessionId\b)", re.DOTALL)
_FIELDS = {
    "FirstName": "first_name",
    "LastName": "last_name",
    "Name": "name",
    "Email": "email",
    "Phone": "phone",
    "MobilePhone": "phone",
    "Company": "company",
    "Title": "title",
    "Country": "country",
    "CountryCode": "country",
    "MailingCountry": "country",
    "State": "region",
    "MailingState": "region",
    "Industry": "industry",
    "NumberOfEmployees": "employees",
    "AnnualRevenue": "annual_revenue",
}
_PEOPLE = ("Lead", "Contact")
_OWN_FIELD = "__c"  # how the names of fields end that a company has made for itself


class Salesforce(BatchAdapter):
    """Nothing is signed: the token in the address counts, and the organization, where the source names it."""

    kind: ClassVar[str] = "salesforce"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_any(keys(secrets), token_in_address(request))
        if settings.organization_id is None:
            return
        try:
            told = _message(request).findtext(f"{_MESSAGE}OrganizationId") or ""
        except Unmappable as exc:
            raise BadSignature("the message tells no organization") from exc
        if not _same_record(told.strip(), settings.organization_id):
            raise BadSignature("the message is from another organization")

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name([name for name, _ in _notifications(request)]))

    def answer(self, request: HookRequest) -> Answer:
        return Answer(body=_ACKNOWLEDGED, content_type="text/xml; charset=utf-8")

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        """Also without the session, which opens the whole of Salesforce."""
        kept = super().stored(request, secrets)
        blanked = _SESSION.sub(rb"\1" + BLANK.encode() + rb"\2", kept.raw_body)
        return replace(kept, raw_body=blanked)

    def readings(self, request: HookRequest, settings: MappingSettings) -> Sequence[Reading]:
        notifications = _notifications(request)
        if not notifications:
            raise Unmappable("the message has no notification")
        return [self._reading(name, record, request, settings) for name, record in notifications]

    def _reading(self, name: str, record: Element, request: HookRequest, settings: MappingSettings) -> Reading:
        key, values = f"{self.kind}:{name}", _values(record)
        sort = record.get(_TYPE, "").rpartition(":")[2]
        return Reading((_fact(key, sort, values, request, settings),), values, {"type": sort, **values})


def _fact(key: str, sort: str, values: Mapping[str, str], request: HookRequest, settings: MappingSettings) -> Fact:
    if sort not in (*_PEOPLE, "Opportunity"):
        return ignored(key, request, "object")
    record = _long_id(values.get("Id", ""))
    at, timed_by = happened_at(values.get("LastModifiedDate") or values.get("SystemModstamp"), request)
    if sort == "Opportunity":
        return CrmFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=Person(external_id=_long_id(values.get("ContactId", "")) or None),
            external_id=required_id(record, "Id"),
            stage=values.get("StageName"),
            deal=True,
            account=_long_id(values.get("AccountId", "")) or None,
            properties={name: values[name] for name in ("Name", "Amount", "CurrencyIsoCode") if name in values},
        )
    if values.get("IsDeleted", "").lower() == "true":
        return CrmFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            event="deleted",
            person=Person(external_id=record),
            external_id=required_id(record, "Id"),
        )
    return LeadFact(
        idempotency_key=key,
        occurred_at=at,
        timed_by=timed_by,
        person=person_of(_fields(values), settings.phone_country, Person(external_id=record or None)),
        external_id=record or None,
    )


def _fields(values: Mapping[str, str]) -> dict[str, Any]:
    """What is known of a person; of two fields that say the same, the first named here."""
    fields: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if values.get(name):
            fields.setdefault(field, values[name])
    if values.get("HasOptedOutOfEmail", "").lower() == "true":
        fields["consent.email"] = "denied"
    own = {f"attributes.{name}": value for name, value in values.items() if name.endswith(_OWN_FIELD)}
    return fields | own


def _message(request: HookRequest) -> Element:
    """The `notifications` of the message. Unmappable for XML that declares anything, and for what is no such message.

    Whatever encoding it claims, it is read as UTF-8 without NUL, and so in none in which a declaration could hide.
    """
    if _DECLARES.search(request.raw_body) or b"\x00" in request.raw_body:
        raise Unmappable("the XML declares a document type or entities")
    try:
        parser = XMLParser(encoding="utf-8")  # noqa: S314  # what could be expanded or fetched is refused above
        parser.feed(request.raw_body.decode("utf-8-sig"))
        envelope: Element = parser.close()
    except (ParseError, ValueError) as exc:
        raise Unmappable("the body is not XML") from exc
    message = next(envelope.iter(f"{_MESSAGE}notifications"), None)
    if message is None:
        raise Unmappable("the XML is not an outbound message")
    return message


def _notifications(request: HookRequest) -> list[tuple[str, Element]]:
    """The records, each with the name of its notification."""
    return list(_named_records(_message(request)))


def _named_records(message: Element) -> Iterator[tuple[str, Element]]:
    for notification in message.iterfind(f"{_MESSAGE}Notification"):
        record = notification.find(f"{_MESSAGE}sObject")
        if record is None:
            raise Unmappable("a notification has an sObject")
        yield required_id((notification.findtext(f"{_MESSAGE}Id") or "").strip(), "Notification/Id"), record


def _values(record: Element) -> dict[str, str]:
    """The fields that have a value, by their names without a namespace."""
    return {field.tag.rpartition("}")[2]: field.text.strip() for field in record if field.text and field.text.strip()}


def _same_record(one: str, other: str) -> bool:
    """Whether two ids denote one record: the last three of 18 characters only say which of the 15 are capitals."""
    told, known = one[:15].encode(errors="replace"), other.strip()[:15].encode(errors="replace")
    return len(told) == len(known) and hmac.compare_digest(told, known)


def _long_id(known: str) -> str:
    """The id with its 18 characters, where it came with 15 of which case matters."""
    if len(known) != 15:
        return known
    chunks = (known[start : start + 5] for start in (0, 5, 10))
    capitals = (sum(character.isupper() << place for place, character in enumerate(chunk)) for chunk in chunks)
    return known + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[number] for number in capitals)


ADAPTER = Salesforce()
