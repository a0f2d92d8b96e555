"""HubSpot's CRM API v3: contacts and deals are written by a unique property, owners found by their address.

https://developers.hubspot.com/docs/reference/api/crm/objects/contacts,
https://developers.hubspot.com/docs/reference/api/crm/owners,
https://developers.hubspot.com/docs/developer-tooling/platform/usage-guidelines
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from services.routing.crm.domain import (
    FORM,
    Call,
    Reading,
    Record,
    RecordKind,
    Token,
    as_json,
    content_of,
    granted,
    reading_of,
)
from shared.outbound import Answer

OBJECTS: Mapping[RecordKind, str] = {"lead": "contacts", "deal": "deals"}
STAGES: Mapping[RecordKind, str] = {"lead": "hs_lead_status", "deal": "dealstage"}
LATER = frozenset({"CONFLICT"})
LIMITS = {"RATE_LIMITS": 1, "RATE_LIMIT": 1, "SECONDLY": 1, "TEN_SECONDLY_ROLLING": 10, "DAILY": 3_600}
EXPIRED = frozenset({"EXPIRED_AUTHENTICATION", "INVALID_AUTHENTICATION", "MISSING_SCOPES"})
MOVING, MOVING_S = 477, 3_600
"""An account that is on its way to another data centre; how long that takes is in `Retry-After`, a day at most."""
OTHER = re.compile(r"existing id: *(\w+)", re.IGNORECASE)
SESSION_S = 1_800


class HubSpot:
    """Contacts and deals of an account, by a private app's token or by OAuth."""

    base_url: str | None = "https://api.hubapi.com"
    fields: Mapping[RecordKind, Mapping[str, str]] = {
        "lead": {
            "email": "lead.email",
            "phone": "lead.phone",
            "firstname": "lead.first_name",
            "lastname": "lead.last_name",
            "company": "lead.company",
            "jobtitle": "lead.title",
        },
        "deal": {
            "dealname": "deal.name",
            "amount": "deal.amount",
            "closedate": "deal.close_date",
        },
    }
    ids: Mapping[RecordKind, str] = {"lead": "email", "deal": "throughline_deal_id"}
    merges = True

    def token_call(self, base_url: str, credentials: Mapping[str, str], auth_url: str | None) -> Call | None:
        """None for a private app's token, else a token by a refresh token."""
        if "token" in credentials:
            return None
        body = urlencode({"grant_type": "refresh_token", **credentials}).encode()
        return Call("POST", f"{auth_url or base_url}/oauth/v1/token", body, FORM)

    def token_in(self, answer: Answer) -> Token:
        """The token and how long it lasts."""
        content = granted(answer)
        return Token(str(content["access_token"]), int(content.get("expires_in") or SESSION_S))

    def headers(self, token: str) -> Mapping[str, str]:
        """A bearer's."""
        return {"authorization": f"Bearer {token}"}

    def whoami(self) -> Call:
        """The first owner."""
        return Call("GET", "/crm/v3/owners?limit=1")

    def user_call(self, email: str) -> Call:
        """Owners by address."""
        return Call("GET", f"/crm/v3/owners?{urlencode({'email': email, 'limit': 1})}")

    def user_in(self, answer: Answer, email: str) -> str | None:
        """The owner with this address."""
        content = content_of(answer)
        if not answer.is_success or not isinstance(content, dict):
            raise ValueError("no owners")
        owners = [one for one in content.get("results", ()) if str(one.get("email", "")).casefold() == email.casefold()]
        return str(owners[0]["id"]) if owners else None

    def upsert(self, record: Record) -> Call:
        """One record in a batch, which is how there is an upsert."""
        one = {"idProperty": record.id_field, "id": record.id_value, "properties": _properties(record)}
        return Call("POST", f"/crm/v3/objects/{OBJECTS[record.kind]}/batch/upsert", as_json({"inputs": [one]}))

    def update(self, record: Record, crm_id: str) -> Call:
        """By HubSpot's id."""
        place = f"/crm/v3/objects/{OBJECTS[record.kind]}/{quote(crm_id, safe='')}"
        return Call("PATCH", place, as_json({"properties": _properties(record)}))

    def twin_call(self, record: Record, refused: Reading) -> Call | None:  # a conflict names it
        """None."""
        return None

    def adopt(self, record: Record, answer: Answer) -> tuple[str, Call] | None:  # nothing is asked for
        """None."""
        return None

    def after(self, record: Record, crm_id: str) -> Call | None:
        """A deal belongs to its contact."""
        if record.kind != "deal" or record.person is None:
            return None
        return Call("PUT", f"/crm/v4/objects/deals/{crm_id}/associations/default/contacts/{record.person}")

    def tie(self, answer: Answer, crm_id: str) -> Call | None:  # it is tied
        """Nothing."""
        return None

    def merge(self, into: str, gone: str, field: str | None) -> Call | None:
        """One contact of two; what the first one has counts."""
        body = {"primaryObjectId": into, "objectIdToMerge": gone}
        return Call("POST", "/crm/v3/objects/contacts/merge", as_json(body))

    def erase(self, crm_id: str) -> Call:
        """For good, with all that the contact said and did."""
        return Call("POST", "/crm/v3/objects/contacts/gdpr-delete", as_json({"objectId": crm_id}))

    def read(self, answer: Answer) -> Reading:
        """200 with the record; 207 with what was wrong with it; else a category, and codes of single properties."""
        content = content_of(answer)
        told = content if isinstance(content, dict) else {}
        errors = told.get("errors") or []
        results = told.get("results")
        if answer.is_success and not errors:
            crm_id = str(results[0]["id"]) if isinstance(results, list) and results else told.get("id")
            return Reading("done", f"answered {answer.status}", crm_id)
        codes = [told.get("category") or told.get("errorType"), told.get("policyName")]
        for error in errors:
            names = (error.get("context") or {}).get("propertyName") or ()
            codes.append(" ".join([str(error.get("code") or error.get("category") or ""), *map(str, names)]).strip())
        reading = reading_of(answer, codes, LATER, EXPIRED, LIMITS)
        if answer.status == MOVING:
            return replace(reading, what="later", rest_s=answer.retry_after_s or MOVING_S)
        if "CONFLICT" in codes:
            other = OTHER.search(" ".join(str(one.get("message")) for one in (told, *errors)))
            return reading if other is None else replace(reading, what="refused", twin=other[1])
        return reading


def _properties(record: Record) -> dict[str, Any]:
    return {**record.fields, **record.places(STAGES[record.kind], "hubspot_owner_id", "pipeline")}
