"""HubSpot: webhooks of apps, which name contacts and deals, and of workflows, which bring a contact along.

https://developers.hubspot.com/docs/api/webhooks
"""

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    BadSignature,
    CrmFact,
    ErasureFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Unmappable,
)
from services.capture.adapters.batches import BatchAdapter, batch_name, readings_of
from services.capture.adapters.bodies import object_at, objects_at, read_json
from services.capture.adapters.fields import happened_at, ignored, person_of, text
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.records import looked_up, record_id, required_id
from services.capture.adapters.signatures import TOLERANCE, header_bytes, hmac_sha256, keys, require_any

_MILLISECONDS = re.compile(r"[0-9]{1,15}", re.ASCII)
_ESCAPED = re.compile("%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)  # what HubSpot signs unescaped
_OBJECTS = {"0-1": "contact", "0-2": "company", "0-3": "deal"}
_ASSOCIATION = "associationChange"
_ENDS = ("from", "to")
_STAGES = ("lifecyclestage", "hs_lead_status", "dealstage")
_CONTACT = "email,firstname,lastname,phone,company,hs_analytics_source,createdate"
_DEAL = "dealname,dealstage,amount"
_FIELDS = {
    "email": "email",
    "firstname": "first_name",
    "lastname": "last_name",
    "phone": "phone",
    "mobilephone": "phone",
    "company": "company",
    "jobtitle": "title",
    "country": "country",
    "state": "region",
    "industry": "industry",
}


class HubSpot(BatchAdapter):
    """The creation of a contact is a lead, by a second call; what changes later is a change in the CRM."""

    kind: ClassVar[str] = "hubspot"
    api: ClassVar[str | None] = "https://api.hubapi.com"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        """By version 3 where it is there, whatever else is; the older ones prove no time, and must be allowed."""
        if request.headers.all("x-hubspot-signature-v3"):
            _verify_v3(request, secrets, now)
        elif settings.allow_legacy:
            _verify_legacy(request, secrets)
        else:
            raise BadSignature("the header X-HubSpot-Signature-v3 is needed")

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        """By the events and not by the body, which counts the attempts."""
        return delivery_name(self.kind, request, lambda: batch_name([_name(told) for told in _told(request)]))

    def lookups(self, request: HookRequest) -> Sequence[str]:
        try:
            paths = [_path(told) for told in _told(request)]
        except Unmappable:
            return ()
        return tuple(dict.fromkeys(path for path in paths if path is not None))

    def readings(self, request: HookRequest, settings: MappingSettings) -> Sequence[Reading]:
        body = read_json(request.raw_body)
        return readings_of(
            _told(request),
            lambda told: self._reading(told, body, request, settings),
            lambda told: f"{self.kind}:{_name(told)}",
            request,
        )

    def _reading(self, told: Mapping[str, Any], body: Any, request: HookRequest, settings: MappingSettings) -> Reading:
        key = f"{self.kind}:{_name(told)}"
        if _is_workflow(told):
            contact = object_at(told, "properties")
            written = {name: object_at(contact, name).get("value") for name in contact}
            at = written.get("lastmodifieddate")
            lead = _lead(key, _contact_id(told), written, at, "workflow", request, settings)
            return Reading((lead,), written, body)
        path = _path(told)
        if path not in request.found and (_what(told)[0] == "deal" or _what(told)[1] == _ASSOCIATION):
            path = None  # a deal moves, whoever it is with
        record = {} if path is None else looked_up(request, path)
        values = object_at(record, "properties")
        if path is not None and not values:
            raise Unmappable(f"the answer to {path} is not a record")
        return Reading((_fact(key, told, record, request, settings),), {**told, **values}, body)


def _verify_v3(request: HookRequest, secrets: Sequence[str], now: datetime) -> None:
    timestamp = request.headers.get("x-hubspot-request-timestamp") or ""
    if not _MILLISECONDS.fullmatch(timestamp):
        raise BadSignature("the header X-HubSpot-Request-Timestamp is a number of milliseconds")
    if abs(now.timestamp() - int(timestamp) / 1_000) > TOLERANCE.total_seconds():
        raise BadSignature("the timestamp is more than five minutes off")
    method, sent = request.method.encode(), timestamp.encode()
    expected = (
        base64.b64encode(hmac_sha256(key, method, address, request.raw_body, sent))
        for key in keys(secrets)
        for address in _addresses(request)
    )
    require_any(expected, (header_bytes(value) for value in request.headers.all("x-hubspot-signature-v3")))


def _verify_legacy(request: HookRequest, secrets: Sequence[str]) -> None:
    """The versions before the third: a bare hash over the secret, and in the second over the address."""
    match request.headers.get("x-hubspot-signature-version"):
        case "v1":
            signed = [request.raw_body]
        case "v2":
            signed = [request.method.encode() + address + request.raw_body for address in _addresses(request)]
        case _:
            raise BadSignature("the header X-HubSpot-Signature-Version is v1 or v2")
    expected = (hashlib.sha256(key + rest).hexdigest().encode() for key in keys(secrets) for rest in signed)
    require_any(expected, (header_bytes(value) for value in request.headers.all("x-hubspot-signature")))


def _addresses(request: HookRequest) -> Iterator[bytes]:
    """The address as it came, and as HubSpot's documentation has it: with some of its escapes undone."""
    yield request.url.encode(errors="replace")
    undone = _ESCAPED.sub(lambda found: chr(int(found[0][1:], 16)), request.url)
    if undone != request.url:
        yield undone.encode(errors="replace")


def _told(request: HookRequest) -> list[Mapping[str, Any]]:
    """The events of an app, or the one contact of a workflow."""
    body = read_json(request.raw_body)
    told = body if isinstance(body, list) else [body]
    if not told or not all(isinstance(item, dict) for item in told):
        raise Unmappable("the body is neither a list of events nor a contact")
    return told


def _is_workflow(told: Mapping[str, Any]) -> bool:
    return "vid" in told and "subscriptionType" not in told and isinstance(told.get("properties"), dict)


def _contact_id(told: Mapping[str, Any]) -> str:
    return required_id(told.get("vid"), "vid")


def _object_id(told: Mapping[str, Any]) -> str:
    """The record; of two that were made one, the one that stays; of two that were tied, the one it is told of."""
    names = ("objectId", "newObjectId", "primaryObjectId", "fromObjectId")
    return required_id(next((told[name] for name in names if told.get(name)), None), "objectId")


def _tied(told: Mapping[str, Any]) -> Mapping[str, str]:
    """The two records that were tied or parted, by their sorts, where one is a deal and the other whose it may be."""
    named = str(told.get("associationType")).lower().split("_to_")
    if len(named) != len(_ENDS):
        named = [_OBJECTS.get(str(told.get(f"{end}ObjectTypeId")), "") for end in _ENDS]
    ends = {sort: record_id(told.get(f"{end}ObjectId")) for sort, end in zip(named, _ENDS, strict=True)}
    if ends.keys() not in ({"deal", "contact"}, {"deal", "company"}):
        return {}
    return {sort: known for sort, known in ends.items() if known is not None}


def _name(told: Mapping[str, Any]) -> str:
    """The name of an event: `eventId` alone is not unique."""
    if _is_workflow(told):
        changed = object_at(object_at(told, "properties"), "lastmodifieddate").get("value")
        return f"{record_id(told.get('portal-id')) or ''}:workflow:{_contact_id(told)}:{record_id(changed) or ''}"
    portal, subscription, at, event = (
        record_id(told.get(name)) or "" for name in ("portalId", "subscriptionId", "occurredAt", "eventId")
    )
    other = record_id(told.get("toObjectId"))
    record = _object_id(told) if other is None else f"{_object_id(told)}-{other}"
    return f"{portal}:{subscription}:{record}:{at}:{event}"


def _what(told: Mapping[str, Any]) -> tuple[str, str]:
    """The sort of object, and what happened to it: `contact.creation`, or `object.creation` with the sort apart."""
    sort, _, happened = str(told.get("subscriptionType")).partition(".")
    return (_OBJECTS.get(str(told.get("objectTypeId")), sort) if sort == "object" else sort), happened


def _path(told: Mapping[str, Any]) -> str | None:
    """What must be asked about an event: who was created, whose deal it is."""
    match _what(told):
        case "contact", "creation":
            return f"/crm/v3/objects/contacts/{_object_id(told)}?properties={_CONTACT}"
        case "deal", "creation" | "propertyChange":
            return _deal_path(_object_id(told))
        case _, happened if happened == _ASSOCIATION and (deal := _tied(told).get("deal")):
            return _deal_path(deal)
        case _:
            return None


def _deal_path(deal: str) -> str:
    return f"/crm/v3/objects/deals/{deal}?properties={_DEAL}&associations=contacts,companies"


def _fact(
    key: str, told: Mapping[str, Any], record: Mapping[str, Any], request: HookRequest, settings: MappingSettings
) -> Fact:
    object_id, event = _object_id(told), str(told.get("subscriptionType"))
    match _what(told):
        case "contact", "creation":
            values, at = object_at(record, "properties"), told.get("occurredAt")
            return _lead(key, object_id, values, at, event, request, settings)
        case "contact", "privacyDeletion":
            at, timed_by = happened_at(told.get("occurredAt"), request)
            person = Person(external_id=object_id)
            return ErasureFact(idempotency_key=key, occurred_at=at, timed_by=timed_by, event=event, person=person)
        case "contact", "propertyChange" | "deletion" | "merge":
            return _change(key, told, Person(external_id=object_id), request)
        case "deal", "creation" | "propertyChange" | "deletion" | "merge":
            change = _change(key, told, Person(external_id=_associated(record, "contacts")), request)
            return replace(change, deal=True, account=_associated(record, "companies"))
        case "company", "propertyChange" | "deletion" | "merge":
            return _change(key, told, Person(), request)
        case _, happened if happened == _ASSOCIATION:
            return _association(key, told, record, request)
        case "contact" | "deal", _:
            return ignored(key, request, "subscription_type")
        case _:
            return ignored(key, request, "object")


def _lead(  # noqa: PLR0913  # what a lead is made of
    key: str,
    contact_id: str,
    values: Mapping[str, Any],
    at: Any,
    event: str,
    request: HookRequest,
    settings: MappingSettings,
) -> LeadFact:
    occurred_at, timed_by = happened_at(at, request)
    fields: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if text(values.get(name)) is not None:
            fields.setdefault(field, values[name])
    return LeadFact(
        idempotency_key=key,
        occurred_at=occurred_at,
        timed_by=timed_by,
        event=event,
        person=person_of(fields, settings.phone_country, Person(external_id=contact_id)),
        external_id=contact_id,
    )


def _change(key: str, told: Mapping[str, Any], person: Person, request: HookRequest) -> CrmFact:
    """What became of a record; its stage where it is the stage that changed."""
    at, timed_by = happened_at(told.get("occurredAt"), request)
    changed, value = text(told.get("propertyName")), text(told.get("propertyValue"))
    return CrmFact(
        idempotency_key=key,
        occurred_at=at,
        timed_by=timed_by,
        event=str(told.get("subscriptionType")),
        person=person,
        external_id=_object_id(told),
        stage=value if changed in _STAGES else None,
        properties={} if changed is None else {changed: value},
    )


def _association(key: str, told: Mapping[str, Any], record: Mapping[str, Any], request: HookRequest) -> Fact:
    """A deal's contact is whose it is: as the CRM has it now, where it could be asked, else the one that was added.

    Parting a deal from the last one it was with leaves it theirs, as it does where nobody is told of that.
    """
    tied, added = _tied(told), not told.get("associationRemoved")
    contact = _associated(record, "contacts") or (tied.get("contact") if added and not record else None)
    company = _associated(record, "companies") or (tied.get("company") if added and not record else None)
    if "deal" not in tied or (contact is None and company is None):
        return ignored(key, request, "association")
    change = _change(key, told, Person(external_id=contact), request)
    return replace(change, external_id=tied["deal"], deal=True, account=company, only_tied=True)


def _associated(deal: Mapping[str, Any], sort: str) -> str | None:
    """The first record of a sort that a deal is with; before anybody tied one to it, there is none."""
    results = objects_at(object_at(object_at(deal, "associations"), sort), "results")
    return next((known for one in results if (known := record_id(one.get("id")))), None)


ADAPTER = HubSpot()
