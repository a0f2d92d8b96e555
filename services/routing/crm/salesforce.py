"""Salesforce's REST API: records are written by an external id, users found by a query.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/resources_sobject_upsert_patch.htm,
https://help.salesforce.com/s/articleView?id=xcloud.remoteaccess_oauth_client_credentials_flow.htm,
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_duplicaterules.htm
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from services.routing.crm.domain import (
    FORM,
    JSON,
    UNKNOWN,
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

DATA = "/services/data/v61.0"
OBJECTS: Mapping[RecordKind, str] = {"lead": "Lead", "deal": "Opportunity"}
STAGES: Mapping[RecordKind, str] = {"lead": "Status", "deal": "StageName"}
WANTED: Mapping[RecordKind, Mapping[str, str]] = {
    "lead": {"LastName": UNKNOWN, "Company": UNKNOWN},
    "deal": {"StageName": "Prospecting"},
}
LATER = frozenset(
    {
        "UNABLE_TO_LOCK_ROW",
        "SERVER_UNAVAILABLE",
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "API_CURRENTLY_DISABLED",
    }
)
# Requests are counted over the last 24 hours, so that some are free again soon; for storage somebody has to make room.
LIMITS = {"REQUEST_LIMIT_EXCEEDED": 900, "STORAGE_LIMIT_EXCEEDED": 3_600}
EXPIRED = frozenset({"INVALID_SESSION_ID", "INVALID_AUTH_HEADER", "API_DISABLED_FOR_ORG"})
TWIN = "DUPLICATES_DETECTED"
ACKNOWLEDGED = {**JSON, "sforce-duplicate-rule-header": "allowSave=true"}
SESSION_S = 900  # an answer does not say how long; this is the shortest that an organization can set


class Salesforce:
    """Leads and opportunities of an organization; its own domain is the base address."""

    base_url: str | None = None
    fields: Mapping[RecordKind, Mapping[str, str]] = {
        "lead": {
            "Email": "lead.email",
            "Phone": "lead.phone",
            "FirstName": "lead.first_name",
            "LastName": "lead.last_name",
            "Company": "lead.company",
            "Title": "lead.title",
        },
        "deal": {"Name": "deal.name", "Amount": "deal.amount", "CloseDate": "deal.close_date"},
    }
    ids: Mapping[RecordKind, str] = {"lead": "Throughline_Id__c", "deal": "Throughline_Id__c"}
    merges = False

    def token_call(self, base_url: str, credentials: Mapping[str, str], auth_url: str | None) -> Call | None:
        """A token by client credentials, or by a refresh token."""
        if "token" in credentials:
            return None
        grant = "refresh_token" if "refresh_token" in credentials else "client_credentials"
        body = urlencode({"grant_type": grant, **credentials}).encode()
        return Call("POST", f"{auth_url or base_url}/services/oauth2/token", body, FORM)

    def token_in(self, answer: Answer) -> Token:
        """The session, and the address of the instance that it is for."""
        content = granted(answer)
        return Token(str(content["access_token"]), SESSION_S, content.get("instance_url"))

    def headers(self, token: str) -> Mapping[str, str]:
        """A bearer's."""
        return {"authorization": f"Bearer {token}"}

    def whoami(self) -> Call:
        """How much of the limits is left."""
        return Call("GET", f"{DATA}/limits")

    def user_call(self, email: str) -> Call:
        """A query."""
        return _query(f"SELECT Id FROM User WHERE Email = {_text(email)} AND IsActive = true")

    def user_in(self, answer: Answer, email: str) -> str | None:  # asked for by it
        """The oldest active user with the address."""
        content = content_of(answer)
        if not answer.is_success or not isinstance(content, dict):
            raise ValueError("no users")
        return next((str(row["Id"]) for row in content.get("records", ())), None)

    def upsert(self, record: Record) -> Call:
        """One record by its external id; the id itself must not stand in the body."""
        content = _content(record)
        content.pop(record.id_field, None)
        place = f"{OBJECTS[record.kind]}/{quote(record.id_field)}/{quote(record.id_value, safe='')}"
        return Call("PATCH", f"{DATA}/sobjects/{place}", as_json(content))

    def update(self, record: Record, crm_id: str) -> Call:
        """By Salesforce's id."""
        place = f"{DATA}/sobjects/{OBJECTS[record.kind]}/{quote(crm_id, safe='')}"
        return Call("PATCH", place, as_json(_content(replace(record, known=True))))

    def twin_call(self, record: Record, refused: Reading) -> Call | None:
        """A query for the oldest lead with the address that is nobody's here and not a contact yet."""
        email = record.fields.get("Email")
        if record.kind != "lead" or email is None or TWIN not in refused.said:
            return None
        free = f"IsConverted = false AND {record.id_field} = null"
        return _query(f"SELECT Id FROM Lead WHERE Email = {_text(str(email))} AND {free}")

    def adopt(self, record: Record, answer: Answer) -> tuple[str, Call] | None:
        """Our id is written into it. It is no new record, so the alert that it has others like it is acknowledged."""
        content = content_of(answer)
        found = content.get("records") if isinstance(content, dict) else None
        if not found:
            return None
        crm_id = str(found[0]["Id"])
        body = {**_content(replace(record, known=True)), record.id_field: record.id_value}
        return crm_id, Call("PATCH", f"{DATA}/sobjects/Lead/{quote(crm_id, safe='')}", as_json(body), ACKNOWLEDGED)

    def after(self, record: Record, crm_id: str) -> Call | None:  # an opportunity knows contacts, not leads
        """A query for the contact with the person's address, and whether it has a part in the opportunity."""
        if record.kind != "deal" or record.email is None:
            return None
        roles = f"SELECT Id FROM OpportunityContactRoles WHERE OpportunityId = {_text(crm_id)}"
        return _query(f"SELECT Id, ({roles}) FROM Contact WHERE Email = {_text(record.email)}")

    def tie(self, answer: Answer, crm_id: str) -> Call | None:
        """A part in the opportunity; who is its primary contact, sales says."""
        content = content_of(answer)
        found = content.get("records") if isinstance(content, dict) else None
        if not found or found[0].get("OpportunityContactRoles"):
            return None
        role = {"OpportunityId": crm_id, "ContactId": found[0]["Id"]}
        return Call("POST", f"{DATA}/sobjects/OpportunityContactRole", as_json(role))

    def merge(self, into: str, gone: str, field: str | None) -> Call | None:  # only SOAP and Apex merge leads
        """A mark, in a field made for it."""
        if field is None:
            return None
        return Call("PATCH", f"{DATA}/sobjects/Lead/{quote(gone, safe='')}", as_json({field: into}))

    def erase(self, crm_id: str) -> Call:
        """Into the recycle bin, which the organization empties after 15 days."""
        return Call("DELETE", f"{DATA}/sobjects/Lead/{quote(crm_id, safe='')}")

    def read(self, answer: Answer) -> Reading:
        """201 with the id, or 200 (204 before version 46); 300 is several records of one id."""
        content = content_of(answer)
        if answer.is_success:
            crm_id = content.get("id") if isinstance(content, dict) else None
            return Reading("done", f"answered {answer.status}", crm_id)
        errors = content if isinstance(content, list) else []
        codes = [
            " ".join([str(error.get("errorCode")), *map(str, error.get("fields") or ())])
            for error in errors
            if isinstance(error, dict)
        ]
        return reading_of(answer, codes, LATER, EXPIRED, LIMITS)


def _content(record: Record) -> dict[str, Any]:
    return {**record.filled_up(WANTED), **record.places(STAGES[record.kind], "OwnerId")}


def _query(asked: str) -> Call:
    """Asks for the oldest record that fits."""
    return Call("GET", f"{DATA}/query?{urlencode({'q': f'{asked} ORDER BY CreatedDate LIMIT 1'})}")


def _text(value: str) -> str:
    """A text in a query; what would end it is escaped."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
