"""Zoho CRM: notifications, which name records, and the webhooks of workflows and forms, with fields of any name.

https://www.zoho.com/crm/developer/docs/api/v8/notifications/enable.html
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    CrmFact,
    Fact,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.batches import BatchAdapter, batch_name, readings_of
from services.capture.adapters.bodies import object_at, objects_at, read_any
from services.capture.adapters.carried import bearer_token, text_in_body, token_in_address
from services.capture.adapters.fields import happened_at, ignored, person_of, text, touch_of
from services.capture.adapters.form_answers import is_test, owner_fields
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.records import looked_up, record_id, required_id
from services.capture.adapters.signatures import keys, require_any
from services.capture.mapping import FORM_SUBMITTED

_LONGEST_TOKEN = 50
_PEOPLE = ("Leads", "Contacts")
_OPERATIONS = ("insert", "update", "delete")
_STAGES = ("Lead_Status", "Stage")
_FIELDS = {
    "First_Name": "first_name",
    "Last_Name": "last_name",
    "Email": "email",
    "Phone": "phone",
    "Mobile": "phone",
    "Company": "company",
    "Designation": "title",
    "Title": "title",
    "Country": "country",
    "Mailing_Country": "country",
    "State": "region",
    "Mailing_State": "region",
    "Industry": "industry",
    "No_of_Employees": "employees",
    "Annual_Revenue": "annual_revenue",
}


class Zoho(BatchAdapter):
    """Nothing is signed: a notification echoes the token that its channel was made with."""

    kind: ClassVar[str] = "zoho"
    api: ClassVar[str | None] = "https://www.zohoapis.com"
    api_hosts: ClassVar[frozenset[str]] = frozenset(
        f"www.zohoapis.{region}" for region in ("com", "eu", "in", "com.au", "jp", "ca", "sa", "com.cn", "uk", "ae")
    )

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        carried = [*text_in_body(request, "token"), *token_in_address(request), *bearer_token(request)]
        require_any(keys(secrets), carried)

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name(_names(_body(request))))

    def lookups(self, request: HookRequest) -> Sequence[str]:
        try:
            body = _body(request)
            return tuple(dict.fromkeys(_path(body, record) for record in _asked_for(body)))
        except Unmappable:
            return ()

    def authorization(self, credential: str) -> Mapping[str, str]:
        return {"authorization": f"Zoho-oauthtoken {credential}"}

    def readings(self, request: HookRequest, settings: MappingSettings) -> Sequence[Reading]:
        body = _body(request)
        if not _is_notification(body):
            return [self._written(body, request, settings)]
        needed = [record for record in _asked_for(body) if _is_needed(body, request, record)]

        def reading(named: tuple[str, str]) -> Reading:
            name, record = named
            values = _record(request, _path(body, record), record) if record in needed else {}
            return Reading((_fact(f"{self.kind}:{name}", record, body, values, request, settings),), values, body)

        named = zip(_names(body), _ids(body), strict=True)
        readings = readings_of(named, reading, lambda each: f"{self.kind}:{each[0]}", request)
        return readings or [Reading((ignored(self.delivery_id(request), request, "no_record"),), {}, body)]

    def _written(self, body: Mapping[str, Any], request: HookRequest, settings: MappingSettings) -> Reading:
        """The lead that a workflow or a form writes, in fields that its owner has named."""
        key = self.delivery_id(request)
        if is_test(body):
            return Reading((ignored(key, request, "test"),), body, body)
        fields = owner_fields({name: value for name, value in body.items() if name != "token"}, settings)
        at, timed_by = happened_at(None, request)
        touch = Touch(type=settings.touch_type or FORM_SUBMITTED, touch_id=key.partition(":")[2])
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(fields, settings.phone_country),
            touch=touch_of(fields, touch),
        )
        return Reading((fact,), body, body)

    def secret_fault(self, secret: str) -> str | None:
        if len(secret) > _LONGEST_TOKEN:
            return f"a token of Zoho has at most {_LONGEST_TOKEN} characters"
        return super().secret_fault(secret)


def _body(request: HookRequest) -> Mapping[str, Any]:
    body = read_any(request)
    if not isinstance(body, dict):
        raise Unmappable("the body is neither an object nor a form")
    return body


def _is_notification(body: Mapping[str, Any]) -> bool:
    return "ids" in body and "operation" in body


def _module(body: Mapping[str, Any]) -> str:
    return required_id(body.get("module"), "module")


def _ids(body: Mapping[str, Any]) -> list[str]:
    ids = body.get("ids")
    if not isinstance(ids, list):
        raise Unmappable("the ids are not a list")
    return list(dict.fromkeys(required_id(known, "an id") for known in ids))


def _names(body: Mapping[str, Any]) -> list[str]:
    """The names of a notification's records; other bodies name nothing."""
    if not _is_notification(body):
        return []
    channel, at, operation = (record_id(body.get(name)) or "" for name in ("channel_id", "server_time", "operation"))
    return [f"{channel}:{at}:{operation}:{record}" for record in _ids(body)]


def _asked_for(body: Mapping[str, Any]) -> list[str]:
    """The records that must be looked up: who is new, which deals moved, and whose stage is said to have changed."""
    if not _is_notification(body):
        return []
    match body.get("module"), body.get("operation"):
        case ("Leads" | "Contacts", "insert") | ("Deals", "insert" | "update"):
            return _ids(body)
        case "Leads" | "Contacts", "update":
            return [record for record in _ids(body) if _changed_stage(body, record)]
        case _:
            return []


def _is_needed(body: Mapping[str, Any], request: HookRequest, record: str) -> bool:
    """Whether nothing can be told without the answer: of a new person. A change is one, whatever it led to."""
    is_new = body.get("module") in _PEOPLE and body.get("operation") == "insert"
    return is_new or _path(body, record) in request.found


def _path(body: Mapping[str, Any], record: str) -> str:
    return f"/crm/v8/{_module(body)}/{record}"


def _record(request: HookRequest, path: str, record: str) -> Mapping[str, Any]:
    """The record that was answered: the only one of a list."""
    records = objects_at(looked_up(request, path), "data")
    if len(records) != 1 or record_id(records[0].get("id", record)) != record:
        raise Unmappable(f"the answer to {path} is not that record")
    return records[0]


def _affected(body: Mapping[str, Any], record: str) -> list[str]:
    """The names of the fields that changed, as far as they are told."""
    named = [each.get(record) for each in objects_at(body, "affected_fields")]
    return [name for names in named if isinstance(names, list) for name in names if isinstance(name, str)]


def _values_told(body: Mapping[str, Any], record: str) -> Mapping[str, Any]:
    """The new values of a record, where the channel was made to tell them."""
    told = (each for each in objects_at(body, "affected_values") if record_id(each.get("record_id")) == record)
    return next((object_at(each, "values") for each in told), {})


def _changed_stage(body: Mapping[str, Any], record: str) -> bool:
    """Whether a stage changed that is not told."""
    affected, told = _affected(body, record), _values_told(body, record)
    return any(stage in affected and stage not in told for stage in _STAGES)


def _fact(  # noqa: PLR0913  # a record and all that is around it
    key: str,
    record: str,
    body: Mapping[str, Any],
    values: Mapping[str, Any],
    request: HookRequest,
    settings: MappingSettings,
) -> Fact:
    module, operation = body.get("module"), body.get("operation")
    if operation not in _OPERATIONS:
        return ignored(key, request, "operation")
    if module not in (*_PEOPLE, "Deals") and operation == "insert":
        return ignored(key, request, "module")
    at, timed_by = happened_at(body.get("server_time"), request)
    if module in _PEOPLE and operation == "insert":
        return LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(_fields(values), settings.phone_country, Person(external_id=record)),
            external_id=record,
        )
    known = {**values, **_values_told(body, record)}
    buyer = record if module in _PEOPLE else record_id(object_at(values, "Contact_Name").get("id"))
    account = object_at(values, "Account_Name") if module == "Deals" else {}
    return CrmFact(
        idempotency_key=key,
        occurred_at=at,
        timed_by=timed_by,
        event=str(operation),
        person=Person(external_id=buyer),
        external_id=record,
        stage=next((stage for name in _STAGES if (stage := text(known.get(name)))), None),
        deal=module == "Deals",
        account=record_id(account.get("id")),
        company=text(account.get("name")),
        properties={"affected_fields": affected} if (affected := _affected(body, record)) else {},
    )


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a person; of two fields that say the same, the first named here."""
    fields: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if text(values.get(name)) is not None:
            fields.setdefault(field, values[name])
    if account := text(object_at(values, "Account_Name").get("name")):
        fields.setdefault("company", account)
    if values.get("Email_Opt_Out") is True:
        fields["consent.email"] = "denied"
    return fields


ADAPTER = Zoho()
