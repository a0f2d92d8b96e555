"""Lead ads of Meta, which come in one way from Facebook and Instagram.

https://developers.facebook.com/docs/marketing-api/guides/lead-ads
"""

import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Protocol

from services.capture.adapters.adapter import (
    PLAIN,
    Adapter,
    Answer,
    HookRequest,
    LeadFact,
    MappingSettings,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.batches import BatchAdapter, batch_name, readings_of
from services.capture.adapters.bodies import object_at, objects_at, read_object
from services.capture.adapters.fields import (
    CONSENT_CHANNELS,
    click_ids_of,
    happened_at,
    ignored,
    person_of,
    text,
    touch_of,
    utm_of,
)
from services.capture.adapters.lead_ads import form_fields, is_test_lead, named_values
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.records import looked_up, record_id, required_id
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any
from services.capture.mapping import FORM_SUBMITTED

_FIELDS = (
    "id,created_time,ad_id,ad_name,adset_id,adset_name,campaign_id,campaign_name,form_id,is_organic,platform,"
    "field_data,custom_disclaimer_responses"
)
_TEST_ID = "444444444444"  # what the test button of an app's webhook page sends; there is no such lead
_CHALLENGE = re.compile(r"[A-Za-z0-9_.-]{1,200}", re.ASCII)
_TERMS = ("terms", "privacy", "policy")  # agreeing to these allows no mail
_OF_HANDSHAKE = ("hub.mode", "hub.challenge", "hub.verify_token")


class ByMeta(Adapter, Protocol):
    """What all webhooks of Meta's apps have in common: signed by the app's secret, and tried out by a GET."""

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        given = (header_bytes(value) for value in request.headers.all("x-hub-signature-256"))
        require_any((_signature(key, request.raw_body) for key in keys(secrets)), given)

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        query = request.query
        if request.method != "GET" or not any(name in query for name in _OF_HANDSHAKE):
            return None
        challenge = query.get("hub.challenge", "")
        tokens = keys([settings.verify_token or "", *secrets])
        token = query.get("hub.verify_token", "").encode(errors="replace")
        known = sum(hmac.compare_digest(token, ours) for ours in tokens)
        if not known or query.get("hub.mode") != "subscribe" or not _CHALLENGE.fullmatch(challenge):
            return Answer(403)
        return Answer(body=challenge.encode(), content_type="text/plain")


class MetaLeadAds(ByMeta, BatchAdapter):
    """A delivery has ids only, of many leads perhaps; the answers to the form come by a second call each.

    The older header `X-Hub-Signature` is SHA-1, and proves nothing here.
    """

    api: ClassVar[str | None] = "https://graph.facebook.com"

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name(_lead_ids(request)))

    def lookups(self, request: HookRequest) -> Sequence[str]:
        try:
            ids = [record_id(lead.get("leadgen_id")) for lead in _leads(read_object(request.raw_body))]
        except Unmappable:
            return ()
        return tuple(dict.fromkeys(_path(known) for known in ids if known and known != _TEST_ID))

    def readings(self, request: HookRequest, settings: MappingSettings) -> Sequence[Reading]:
        body = read_object(request.raw_body)
        readings = readings_of(
            _leads(body),
            lambda lead: self._reading(lead, body, request, settings),
            lambda lead: f"{self.kind}:{record_id(lead.get('leadgen_id'))}",
            request,
        )
        return readings or [Reading((ignored(self.delivery_id(request), request, "field"),), {}, body)]

    def _reading(
        self, notice: Mapping[str, Any], body: Mapping[str, Any], request: HookRequest, settings: MappingSettings
    ) -> Reading:
        lead_id = required_id(notice.get("leadgen_id"), "leadgen_id")
        key = f"{self.kind}:{lead_id}"
        if lead_id == _TEST_ID:
            return Reading((ignored(key, request, "test"),), {}, body)
        lead = looked_up(request, _path(lead_id))
        if record_id(lead.get("id", lead_id)) != lead_id or not isinstance(lead.get("field_data"), list):
            raise Unmappable(f"the answer about {lead_id} is not that lead")
        answers = {name: _value(field) for field in objects_at(lead, "field_data") if (name := text(field.get("name")))}
        if is_test_lead(answers):
            return Reading((ignored(key, request, "test"),), answers, body)
        boxes = {
            name: box.get("is_checked")
            for box in objects_at(lead, "custom_disclaimer_responses")
            if (name := text(box.get("checkbox_key")))
        }
        at, timed_by = happened_at(lead.get("created_time") or notice.get("created_time"), request)
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(form_fields(answers) | _consent(boxes), settings.phone_country),
            touch=touch_of({}, _touch(lead_id, lead, notice, answers, settings)),
            external_id=lead_id,
        )
        return Reading((fact,), {**boxes, **answers}, body)


def _signature(key: bytes, raw_body: bytes) -> bytes:
    return b"sha256=" + hmac_sha256(key, raw_body).hex().encode()


def _path(lead_id: str) -> str:
    return f"/v24.0/{lead_id}?fields={_FIELDS}"


def _leads(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What is said of each lead; pages tell of other fields than `leadgen` too."""
    if not isinstance(body.get("entry"), list):
        raise Unmappable("a delivery has entries")
    for entry in objects_at(body, "entry"):
        for change in objects_at(entry, "changes"):
            if change.get("field") == "leadgen":
                yield object_at(change, "value")


def _lead_ids(request: HookRequest) -> list[str]:
    leads = _leads(read_object(request.raw_body))
    return list(dict.fromkeys(required_id(lead.get("leadgen_id"), "leadgen_id") for lead in leads))


def _value(field: Mapping[str, Any]) -> Any:
    """The one answer, or all of them."""
    values = field.get("values")
    return values[0] if isinstance(values, list) and len(values) == 1 else values


def _consent(boxes: Mapping[str, Any]) -> dict[str, Any]:
    """A box is consent to what its key names; of one that names nothing only the owner's mapping knows."""
    return {
        f"consent.{channel}": checked
        for key, checked in boxes.items()
        for channel in CONSENT_CHANNELS
        if channel in key.lower() and not any(word in key.lower() for word in _TERMS)
    }


def _touch(
    lead_id: str,
    lead: Mapping[str, Any],
    notice: Mapping[str, Any],
    answers: Mapping[str, Any],
    settings: MappingSettings,
) -> Touch:
    return Touch(
        type=settings.touch_type or FORM_SUBMITTED,
        touch_id=lead_id,
        channel="organic_social" if text(lead.get("is_organic")) == "true" else "paid_social",
        campaign=text(lead.get("campaign_name")) or text(lead.get("campaign_id")),
        platform=text(lead.get("platform")),
        utm=utm_of(answers),
        click_ids=click_ids_of(answers),
        properties=named_values(
            page_id=notice.get("page_id"),
            form_id=lead.get("form_id") or notice.get("form_id"),
            campaign_id=lead.get("campaign_id"),
            adset_id=lead.get("adset_id") or notice.get("adgroup_id"),
            adset_name=lead.get("adset_name"),
            ad_id=lead.get("ad_id") or notice.get("ad_id"),
            ad_name=lead.get("ad_name"),
        ),
    )
