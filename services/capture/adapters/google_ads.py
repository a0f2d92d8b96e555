"""Google Ads lead forms. https://developers.google.com/google-ads/webhook/docs/implementation"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

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
from services.capture.adapters.bodies import objects_at, read_object
from services.capture.adapters.carried import text_in_body
from services.capture.adapters.fields import click_ids_of, happened_at, ignored, person_of, text, touch_of, utm_of
from services.capture.adapters.lead_ads import form_fields, named_values
from services.capture.adapters.naming import delivery_name
from services.capture.adapters.signatures import keys, require_any
from services.capture.mapping import FORM_SUBMITTED


class GoogleAds(Adapter):
    """Nothing is signed: the key that the form's owner typed in comes back in the body, and is blanked there."""

    kind: ClassVar[str] = "google_ads"

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        require_any(keys(secrets), text_in_body(request, "google_key"))

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        return delivery_name(self.kind, request, lambda: read_object(request.raw_body)["lead_id"])

    def answer(self, request: HookRequest) -> Answer:
        return Answer(body=b"{}", content_type="application/json")

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        body = read_object(request.raw_body)
        key = self.delivery_id(request)
        if not isinstance(body.get("user_column_data"), list):
            raise Unmappable("a lead has a list user_column_data")
        answers = _answers(body)
        if text(body.get("is_test")) == "true":
            return Reading((ignored(key, request, "test"),), answers, body)
        at, timed_by = happened_at(body.get("lead_submit_time"), request)
        fact = LeadFact(
            idempotency_key=key,
            occurred_at=at,
            timed_by=timed_by,
            person=person_of(form_fields(answers), settings.phone_country),
            touch=touch_of({}, _touch(key, body, answers, settings)),
            external_id=text(body.get("lead_id")),
        )
        return Reading((fact,), answers, body)


def _answers(body: Mapping[str, Any]) -> dict[str, Any]:
    """The answers by the id of their column; its name is only a label, and can be missing."""
    columns = objects_at(body, "user_column_data")
    named = [(text(column.get("column_id")) or text(column.get("column_name")), column) for column in columns]
    return {name: column.get("string_value") for name, column in named if name}


def _touch(key: str, body: Mapping[str, Any], answers: Mapping[str, Any], settings: MappingSettings) -> Touch:
    return Touch(
        type=settings.touch_type or FORM_SUBMITTED,
        touch_id=key.partition(":")[2],
        channel="paid_search",
        campaign=text(body.get("campaign_id")),
        utm=utm_of(answers),
        click_ids=click_ids_of({"gclid": body.get("gcl_id")}, answers),
        properties=named_values(
            form_id=body.get("form_id"),
            adgroup_id=body.get("adgroup_id"),
            creative_id=body.get("creative_id"),
            asset_group_id=body.get("asset_group_id"),
            lead_stage=body.get("lead_stage"),
        ),
    )


ADAPTER = GoogleAds()
