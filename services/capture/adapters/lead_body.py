"""Bodies that name the fields of a lead as the API does: what senders write who have no shape of their own."""

from collections.abc import Mapping
from typing import Any

from services.capture.adapters.fields import (
    LEAD_FIELDS,
    UTM_FIELDS,
    click_ids_of,
    is_tracking,
    lead_field,
    utm_of,
)
from services.capture.adapters.request import BLANK

_GROUPS = ("attributes", "consent", "touch")
_OF_TOUCH = {"url": "touch.url", "page_url": "touch.url", "referrer": "touch.referrer"}
_OF_DELIVERY = frozenset({"occurred_at", "idempotency_key", "utm"})


def api_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body in the vocabulary of `fields`: groups laid flat, and what is no field of a lead as an attribute."""
    found = tracking_fields(body)
    for name, value in body.items():
        if name in _OF_DELIVERY or is_tracking(name) or value == BLANK:
            continue
        if name in _GROUPS and isinstance(value, Mapping):
            found |= _flat(name, value)
        elif name in LEAD_FIELDS or name.partition(".")[0] in _GROUPS:
            found[name] = value
        else:
            found.setdefault(_OF_TOUCH.get(name) or lead_field(name) or f"attributes.{name}", value)
    return found


def tracking_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the body says about the visit, in fields of its own or in an object `utm`."""
    nested = body.get("utm")
    places = [body]
    if isinstance(nested, Mapping):
        places += [nested, {f"utm_{name}": value for name, value in nested.items() if name in UTM_FIELDS}]
    told = utm_of(*places) | click_ids_of(*places)
    return {f"touch.{name}": value for name, value in told.items()}


def _flat(group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if group == "touch" and name == "properties" and isinstance(value, Mapping):
            found |= {f"touch.properties.{inner}": worth for inner, worth in value.items()}
        else:
            found[f"{group}.{name}"] = value
    return found
