"""The calls of Segment's tracking API, which RudderStack shares: one event, an array of them, or a `batch`.

https://segment.com/docs/connections/spec/
"""

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from services.capture.adapters.adapter import (
    ConversionFact,
    Fact,
    Headers,
    HookRequest,
    LeadFact,
    MappingSettings,
    Person,
    Reading,
    Touch,
    TouchFact,
    Unmappable,
)
from services.capture.adapters.bodies import object_at, read_json
from services.capture.adapters.fields import (
    LONGEST_TEXT,
    click_ids_of,
    happened_at,
    ignored,
    is_tracking,
    lead_field,
    person_of,
    query_of,
    text,
    touch_of,
    type_name,
    utm_of,
)
from services.capture.adapters.mail import batch_name, content_name, facts_of_many, link, short
from shared.money import NotAnAmount, UnknownCurrency, exponent, parse_minor

_CAMPAIGN = {"source": "source", "medium": "medium", "name": "campaign", "term": "term", "content": "content"}
_PURCHASE = "order_completed"
_CURRENCY = "USD"  # what a revenue without a currency is in, by the specification, if the source's owner says nothing
_COMPANY = {"name": "company", "industry": "industry", "employees": "employees", "employee_count": "employees"}
_PLACE = {"country": "country", "state": "region", "region": "region"}
_NOT_ATTRIBUTES = frozenset({"id", "company", "address", "anonymousId", "userId"})
_NEVER_BY_TRAITS = frozenset({"external_id", "anonymous_id"})  # calls have fields of their own for these
_API = re.compile(r".*/v1/(?P<call>identify|track|page|screen|group|alias)/?")
_TEST = "segment-test-message-"  # what the event tester sends
_LARGEST = 1_048_576
_MOST_DIGITS = 15


def calls_name(request: HookRequest) -> str | None:
    """The delivery's own name: the `messageId` of its call, one for all if there are several."""
    return batch_name([_name(call) for call in _calls(read_json(request.raw_body))])


def read_calls(kind: str, request: HookRequest, settings: MappingSettings) -> Reading:
    """The facts of every call in the body; Unmappable if it has none."""
    body = read_json(request.raw_body)
    calls = _calls(body)
    if not calls:
        raise Unmappable("the delivery has no calls")
    readers = [
        (key, _reader(_Call(key, call, request, settings))) for call in calls if (key := f"{kind}:{_name(call)}")
    ]
    return Reading(facts_of_many(readers, request), _answers(calls), body)


def unpacked(request: HookRequest) -> HookRequest:
    """The request with a gzipped body unpacked, so that what is to be blanked in it can be found."""
    if (request.headers.get("content-encoding") or "").strip().lower() != "gzip":
        return request
    try:
        unzip = zlib.decompressobj(wbits=31)
        body = unzip.decompress(request.raw_body, _LARGEST)
    except zlib.error:
        return request
    if not unzip.eof:
        return request
    kept = tuple((name, value) for name, value in request.headers.pairs if name != "content-encoding")
    return replace(request, raw_body=body, headers=Headers(kept))


def _calls(body: Any) -> list[Mapping[str, Any]]:
    """The calls, each with the time of sending and the context of its batch where it has none of its own."""
    whole = body if isinstance(body, dict) else {}
    calls = body if isinstance(body, list) else whole.get("batch", [body])
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise Unmappable("the body is neither a call nor a batch of them")
    if "batch" not in whole:
        return calls
    sent = {"sentAt": whole["sentAt"]} if "sentAt" in whole else {}
    context = object_at(whole, "context")
    return [{**sent, **call, "context": {**context, **object_at(call, "context")}} for call in calls]


def _name(call: Mapping[str, Any]) -> str:
    """The sender's name for the call. Without one, its content but for the times of sending, which attempts change."""
    return short(call.get("messageId")) or content_name(
        {name: value for name, value in call.items() if name not in ("sentAt", "receivedAt")}
    )


def _named_in(request: HookRequest) -> str | None:
    """The type of the call by the address of the tracking API that it was sent to."""
    found = _API.fullmatch(request.url.partition("?")[0])
    return None if found is None else found["call"]


def _answers(calls: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(calls) != 1:
        return {}
    context = object_at(calls[0], "context")
    return {**object_at(context, "traits"), **object_at(calls[0], "traits"), **object_at(calls[0], "properties")}


def _reader(call: "_Call") -> Callable[[], Fact]:
    return call.fact


class _Call:
    """One call."""

    def __init__(self, key: str, call: Mapping[str, Any], request: HookRequest, settings: MappingSettings) -> None:
        self.key = key
        self.call = call
        self.request = request
        self.settings = settings
        self.context = object_at(call, "context")
        self.properties = object_at(call, "properties")

    def fact(self) -> Fact:
        told = text(self.call.get("type")) or _named_in(self.request)
        if self._touch_id().startswith(_TEST):
            return ignored(self.key, self.request, "test")
        match told:
            case "identify":
                return self._identify()
            case "track":
                event = short(self.call.get("event"))
                if event is None:
                    raise Unmappable("what is tracked has a name, `event`")
                if type_name(event) == _PURCHASE and text(self.properties.get("revenue")) is not None:
                    return self._purchase(event)
                return self._touched(event)
            case "page" | "screen":
                return self._touched(told)
            case None:
                raise Unmappable("a call has a type")
            case _:
                return ignored(self.key, self.request, "event_type")

    def _identify(self) -> Fact:
        at, timed_by = happened_at(self._time(), self.request)
        touch = Touch(
            type=self.settings.touch_type or "identify",
            touch_id=self._touch_id(),
            utm=self._utm(),
            click_ids=click_ids_of(*self._places()),
        )
        return LeadFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            person=self._person(),
            touch=touch,
            external_id=self._user(),
        )

    def _touched(self, event: str) -> Fact:
        at, timed_by = happened_at(self._time(), self.request)
        return TouchFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=self._person(),
            touch=self._visit(event),
            external_id=self._user(),
        )

    def _purchase(self, event: str) -> Fact:
        at, timed_by = happened_at(self._time(), self.request)
        currency = (text(self.properties.get("currency")) or self.settings.currency or _CURRENCY).upper()
        try:
            minor = parse_minor(_decimal(self.properties.get("revenue"), currency), currency)
        except (NotAnAmount, UnknownCurrency) as exc:
            raise Unmappable(str(exc)) from exc
        if minor < 0:
            raise Unmappable("a purchase has no revenue below nothing")
        return ConversionFact(
            idempotency_key=self.key,
            occurred_at=at,
            timed_by=timed_by,
            event=event,
            person=self._person(),
            external_id=short(self.properties.get("order_id")) or self._touch_id(),
            amount_minor=minor,
            currency=currency,
            touch=self._visit(event),
        )

    def _visit(self, event: str) -> Touch:
        page = object_at(self.context, "page")
        touch = Touch(
            type=self.settings.touch_type or type_name(event) or "tracked",
            touch_id=self._touch_id(),
            url=self._page(),
            utm=self._utm(),
            click_ids=click_ids_of(*self._places()),
            referrer=link(self.properties.get("referrer")) or link(page.get("referrer")),
        )
        named = {"name": self.call.get("name")} if event in ("page", "screen") else {}
        properties = {**named, **self.properties}
        return touch_of({f"touch.properties.{name}": value for name, value in properties.items() if name}, touch)

    def _touch_id(self) -> str:
        return self.key.partition(":")[2]

    def _page(self) -> str | None:
        return link(self.properties.get("url")) or link(object_at(self.context, "page").get("url"))

    def _places(self) -> tuple[Mapping[str, Any], ...]:
        """What can say how the visit came: what was sent along by name, and the address of the page."""
        return self.properties, object_at(self.call, "traits"), query_of(self._page())

    def _utm(self) -> dict[str, str]:
        """By these; without any the campaign of the call, whose name is what is called the campaign elsewhere."""
        campaign = object_at(self.context, "campaign")
        told = {name: said for written, name in _CAMPAIGN.items() if (said := short(campaign.get(written)))}
        return utm_of(*self._places()) or told

    def _user(self) -> str | None:
        user = text(self.call.get("userId"))
        return user if user is not None and len(user) <= LONGEST_TEXT else None

    def _person(self) -> Person:
        traits = {**object_at(self.context, "traits"), **object_at(self.call, "traits")}
        ids = {"external_id": self.call.get("userId"), "anonymous_id": self.call.get("anonymousId")}
        return person_of(_fields(traits) | ids, self.settings.phone_country)

    def _time(self) -> Any:
        """The time by the sender's clock, put right by what the clock said when the call was sent."""
        if (told := self.call.get("timestamp")) not in (None, ""):
            return told
        times = {name: self.call.get(name) for name in ("originalTimestamp", "sentAt", "receivedAt")}
        original, sent, received = (_happened_or_none(value, self.request) for value in times.values())
        if original is None or sent is None:
            return times["originalTimestamp"] or times["receivedAt"]
        late = max(sent - original, timedelta())
        return ((received or self.request.received_at) - late).isoformat()


def _decimal(revenue: Any, currency: str) -> str:
    """The revenue as decimal text. What a browser added up is a little off, and is rounded to the minor unit."""
    if not isinstance(revenue, Decimal):
        return text(revenue) or ""
    if not -_MOST_DIGITS < revenue.adjusted() < _MOST_DIGITS:
        raise NotAnAmount("the revenue is out of all proportion")
    return format(revenue.quantize(Decimal(1).scaleb(-exponent(currency)), ROUND_HALF_EVEN), "f")


def _happened_or_none(value: Any, request: HookRequest) -> datetime | None:
    """The time as told; None for none. A clock may be days ahead, which is what this is to put right."""
    far = replace(request, received_at=request.received_at + timedelta(days=3_650))
    try:
        at, timed_by = happened_at(value, far)
    except (Unmappable, OverflowError):
        return None
    return at if timed_by == "source" else None


def _fields(traits: Mapping[str, Any]) -> dict[str, Any]:
    """The traits in the vocabulary of a lead; what is no field of it is an attribute."""
    fields: dict[str, Any] = {}
    company = traits.get("company")
    if isinstance(company, dict):
        fields |= {field: company[name] for name, field in _COMPANY.items() if name in company}
    elif company is not None:
        fields["company"] = company
    address = object_at(traits, "address")
    fields |= {field: address[name] for name, field in _PLACE.items() if name in address}
    for name, value in traits.items():
        field = lead_field(name)
        if name in _NOT_ATTRIBUTES or field in _NEVER_BY_TRAITS or not name or is_tracking(name):
            continue
        fields[field or f"attributes.{name}"] = value
    return fields
