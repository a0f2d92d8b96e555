"""TikTok leads, of the Business API. https://business-api.tiktok.com/portal/docs

How they look is known from receivers more than from documentation, and so they are read leniently.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from services.capture.adapters.adapter import (
    PLAIN,
    BadSignature,
    HookRequest,
    LeadFact,
    MappingSettings,
    Reading,
    Touch,
    Unmappable,
)
from services.capture.adapters.batches import BatchAdapter, batch_name
from services.capture.adapters.bodies import objects_at, read_object
from services.capture.adapters.carried import token_in_address
from services.capture.adapters.fields import click_ids_of, happened_at, ignored, person_of, text, touch_of, utm_of
from services.capture.adapters.lead_ads import form_fields, is_test_lead, named_values
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.records import record_id
from services.capture.adapters.signatures import header_bytes, hmac_sha256, keys, require_any, require_now
from services.capture.mapping import FORM_SUBMITTED

_SIGNATURE = re.compile(r"t=([0-9]{1,12}),\s*s=([0-9A-Fa-f]{64})", re.ASCII)


class TikTok(BatchAdapter):
    """The secret is in the address; a signature, which TikTok's developer platform makes, goes before it."""

    kind: ClassVar[str] = "tiktok"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        if not request.headers.all("tiktok-signature"):
            require_any(keys(secrets), token_in_address(request))
            return
        signature = _SIGNATURE.fullmatch((request.headers.get("tiktok-signature") or "").strip())
        if signature is None:
            raise BadSignature("the header TikTok-Signature is a time and a signature")
        seconds, given = signature.groups()
        require_now(seconds, now)
        expected = (hmac_sha256(key, seconds.encode(), b".", request.raw_body).hex().encode() for key in keys(secrets))
        require_any(expected, [header_bytes(given.lower())])

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: batch_name(_names(request)))

    def readings(self, request: HookRequest, settings: MappingSettings) -> Sequence[Reading]:
        body = read_object(request.raw_body)
        if "entry" not in body and (event := text(body.get("event"))):  # of the developer platform
            reason = "test" if event.endswith("ping") else "event_type"
            return [Reading((ignored(self.delivery_id(request), request, reason),), {}, body)]
        about = body.get("object")
        if isinstance(about, str) and about.upper() != "LEAD":
            return [Reading((ignored(self.delivery_id(request), request, "object"),), {}, body)]
        names = _names(request)
        return [
            self._reading(name, lead, body, request, settings) for name, lead in zip(names, _leads(body), strict=True)
        ]

    def _reading(
        self,
        name: str,
        lead: Mapping[str, Any],
        body: Mapping[str, Any],
        request: HookRequest,
        settings: MappingSettings,
    ) -> Reading:
        key = f"{self.kind}:{name}"
        changes = objects_at(lead, "changes")
        answers = {field: change.get("value") for change in changes if (field := text(change.get("field")))}
        if is_test_lead(answers) or text(lead.get("is_test")) == "true":
            return Reading((ignored(key, request, "test"),), answers, body)
        at, timed_by = happened_at(lead.get("create_time") or body.get("time"), request)
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(form_fields(answers), settings.phone_country),
            touch=touch_of({}, _touch(name, lead, answers, settings)),
            external_id=record_id(lead.get("id")),
        )
        return Reading((fact,), answers, body)


def _leads(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The leads of a delivery, which may be a list or a lone one."""
    entry = body.get("entry")
    leads: list[Mapping[str, Any]] = [entry] if isinstance(entry, dict) else objects_at(body, "entry")
    if not leads:
        raise Unmappable("a delivery has an entry")
    return leads


def _names(request: HookRequest) -> list[str]:
    """The names of the leads: their ids, and for one without an id what was sent, and where in it the lead stands."""
    sent = hashlib.sha256(request.raw_body).hexdigest()
    leads = _leads(read_object(request.raw_body))
    return [record_id(lead.get("id")) or (f"{sent}:{place}" if place else sent) for place, lead in enumerate(leads)]


def _touch(name: str, lead: Mapping[str, Any], answers: Mapping[str, Any], settings: MappingSettings) -> Touch:
    ids = ("page_id", "advertiser_id", "campaign_id", "adgroup_id", "adgroup_name", "ad_id", "ad_name")
    return Touch(
        type=settings.touch_type or FORM_SUBMITTED,
        touch_id=name,
        channel="paid_social",
        campaign=text(lead.get("campaign_name")) or text(lead.get("campaign_id")),
        utm=utm_of(answers),
        click_ids=click_ids_of(answers),
        properties=named_values(**{name: lead.get(name) for name in ids}),
    )


ADAPTER = TikTok()
