"""A page said who its visitor is. Nobody proved it: known people stay as they are, and nobody is merged."""

from typing import Any

import orjson

from services.capture.leads.handlers import LeadCall, capture_lead
from services.capture.leads.identifying import Named
from services.capture.leads.inputs import statements_of
from services.capture.leads.telling import Cause
from services.capture.sites.inputs import Traits
from shared.db import Tx
from shared.emails import parse_email
from shared.events import VisitorIdentified
from shared.phones import parse_phone
from shared.service import Runtime


async def on_identified(event: VisitorIdentified, tx: Tx, runtime: Runtime) -> None:
    """Link the browser to whoever is named, and make a lead of somebody nobody knows.

    One identifier counts. Two would let a page tie a stranger's number to an address of its own.
    """
    (opened,) = await runtime.keys.open_many(tx.connection, [(event.lead_id, event.personal)])
    if opened is None:
        return
    told: dict[str, Any] = orjson.loads(opened)
    traits = Traits.model_validate(told["traits"])
    named = _named(traits, told["anonymous_id"], event.origin)
    if named is None:
        return
    fields: dict[str, Any] = traits.model_dump(exclude={"user_id", "attributes"}, exclude_none=True)
    fields |= {"email": named.email, "phone": parse_phone(traits.phone) if traits.phone else None}
    external_ids = {event.origin: traits.user_id} if named.external_id and traits.user_id else {}
    call = LeadCall(
        named=named,
        told=dict(statements_of(fields, traits.attributes, external_ids)),
        cause=Cause(event.origin, event.occurred_at, event.received_at),
        stored_at=event.received_at,
        proven=False,
    )
    await capture_lead(call, tx, runtime)


def _named(traits: Traits, anonymous_id: str, site_id: str) -> Named | None:
    if traits.email and (email := parse_email(traits.email)):
        return Named(email=email, anonymous_id=anonymous_id, origin=site_id)
    if traits.user_id:
        return Named(external_id=traits.user_id, anonymous_id=anonymous_id, origin=site_id)
    if traits.phone and (phone := parse_phone(traits.phone)):
        return Named(phone=phone, anonymous_id=anonymous_id, origin=site_id)
    return None
