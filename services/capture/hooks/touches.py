"""What facts of sources are as touches."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from services.capture.adapters.facts import BookingFact, CrmFact, Touch
from services.capture.facts.inputs import TouchFields


def meeting(fact: BookingFact) -> Touch:
    """What was made of a meeting."""
    details = {"starts_at": fact.starts_at and fact.starts_at.isoformat(), "host_email": fact.host_email}
    given = fact.touch or Touch(type="", touch_id="")
    return replace(
        given,
        type=f"meeting_{fact.event}",
        touch_id=fact.idempotency_key,
        properties={**given.properties, **{name: value for name, value in details.items() if value}},
    )


def stage_change(fact: CrmFact) -> Touch | None:
    """Where a record of a CRM stands now; None where that is not what was told."""
    if fact.only_tied:
        return None
    properties = {**fact.properties, **({"stage": fact.stage} if fact.stage else {})}
    return Touch(type="crm_stage_changed", touch_id=fact.idempotency_key, properties=properties)


def touch_fields(touch: Touch, occurred_at: datetime) -> TouchFields:
    """A source's touch in the words of the API."""
    utm: Mapping[str, str] = touch.utm
    properties = dict(touch.properties)
    if "term" in utm:
        properties.setdefault("utm_term", utm["term"])
    if touch.platform:
        properties.setdefault("platform", touch.platform)
    return TouchFields.model_construct(
        touch_id=touch.touch_id,
        type=touch.type,
        channel=touch.channel,
        source=utm.get("source"),
        medium=utm.get("medium"),
        campaign=utm.get("campaign") or touch.campaign,
        content=utm.get("content"),
        url=touch.url,
        referrer=touch.referrer,
        occurred_at=occurred_at,
        properties=properties,
        automated=touch.automated,
        automated_reason="the provider says a machine did it" if touch.automated else None,
    )
