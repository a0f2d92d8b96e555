"""Zoho CRM's API v6: records are written by a field without duplicates, users found in the list of the active ones.

https://www.zoho.com/crm/developer/docs/api/v6/upsert-records.html,
https://www.zoho.com/crm/developer/docs/api/v6/merge-records.html,
https://www.zoho.com/crm/developer/docs/api/v6/refresh.html
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from services.routing.crm.domain import (
    FORM,
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

API = "/crm/v6"
AUTH_URL = "https://accounts.zoho.com"
MODULES: Mapping[RecordKind, str] = {"lead": "Leads", "deal": "Deals"}
STAGES: Mapping[RecordKind, str] = {"lead": "Lead_Status", "deal": "Stage"}
WANTED: Mapping[RecordKind, Mapping[str, str]] = {"lead": {"Last_Name": UNKNOWN}, "deal": {"Stage": "Qualification"}}
LATER = frozenset({"INTERNAL_ERROR", "RECORD_LOCKED"})
LIMITS = {"TOO_MANY_REQUESTS": 60, "LIMIT_EXCEEDED": 3_600}
EXPIRED = frozenset({"INVALID_TOKEN", "AUTHENTICATION_FAILURE", "OAUTH_SCOPE_MISMATCH"})
SESSION_S = 3_600
HURRY = "too many requests"
SCHEDULED, NO_CONTENT = "SCHEDULED", 204


class Zoho:
    """Leads and deals of an organization. The answer with a token names the data centre that it is for."""

    base_url: str | None = "https://www.zohoapis.com"
    fields: Mapping[RecordKind, Mapping[str, str]] = {
        "lead": {
            "Email": "lead.email",
            "Phone": "lead.phone",
            "First_Name": "lead.first_name",
            "Last_Name": "lead.last_name",
            "Company": "lead.company",
            "Designation": "lead.title",
        },
        "deal": {"Deal_Name": "deal.name", "Amount": "deal.amount", "Closing_Date": "deal.close_date"},
    }
    ids: Mapping[RecordKind, str] = {"lead": "Email", "deal": "Throughline_Id"}
    merges = True

    def token_call(self, base_url: str, credentials: Mapping[str, str], auth_url: str | None) -> Call | None:
        """A token by a refresh token; ten in ten minutes are given at most."""
        if "token" in credentials:
            return None
        body = urlencode({"grant_type": "refresh_token", **credentials}).encode()
        return Call("POST", f"{auth_url or AUTH_URL}/oauth/v2/token", body, FORM)

    def token_in(self, answer: Answer) -> Token:
        """The token, how long it lasts, and where; what is wrong comes with status 200 too."""
        content = granted(answer)
        lasts = int(content.get("expires_in") or SESSION_S)
        return Token(str(content["access_token"]), lasts, content.get("api_domain"))

    def headers(self, token: str) -> Mapping[str, str]:
        """Zoho's own word for a bearer."""
        return {"authorization": f"Zoho-oauthtoken {token}"}

    def whoami(self) -> Call:
        """The user of the token."""
        return Call("GET", f"{API}/users?type=CurrentUser")

    def user_call(self, email: str) -> Call:  # the list cannot be searched
        """The active users."""
        return Call("GET", f"{API}/users?type=ActiveUsers&per_page=200")

    def user_in(self, answer: Answer, email: str) -> str | None:
        """The active user with this address; an empty list comes as 204."""
        content = content_of(answer)
        if not answer.is_success:
            raise ValueError("no users")
        users = content.get("users", ()) if isinstance(content, dict) else ()
        found = [user for user in users if str(user.get("email", "")).casefold() == email.casefold()]
        return str(found[0]["id"]) if found else None

    def upsert(self, record: Record) -> Call:
        """One record; workflows of the CRM run as for any other."""
        content = {**_content(record), record.id_field: record.id_value}
        body = {"data": [content], "duplicate_check_fields": [record.id_field]}
        return Call("POST", f"{API}/{MODULES[record.kind]}/upsert", as_json(body))

    def update(self, record: Record, crm_id: str) -> Call:
        """By Zoho's id."""
        place = f"{API}/{MODULES[record.kind]}/{quote(crm_id, safe='')}"
        return Call("PUT", place, as_json({"data": [_content(replace(record, known=True))]}))

    def twin_call(self, record: Record, refused: Reading) -> Call | None:  # a duplicate is named
        """None."""
        return None

    def adopt(self, record: Record, answer: Answer) -> tuple[str, Call] | None:  # nothing is asked for
        """None."""
        return None

    def after(self, record: Record, crm_id: str) -> Call | None:  # a deal knows contacts, not leads
        """A search for the contact with the person's address."""
        if record.kind != "deal" or record.email is None:
            return None
        return Call("GET", f"{API}/Contacts/search?{urlencode({'email': record.email, 'per_page': 1})}")

    def tie(self, answer: Answer, crm_id: str) -> Call | None:
        """The contact's name in the deal; no workflow runs for it, since one ran for the deal."""
        content = content_of(answer)
        found = content.get("data") if isinstance(content, dict) else None
        if not found:
            return None
        tied = {"data": [{"Contact_Name": {"id": found[0]["id"]}}], "trigger": []}
        return Call("PUT", f"{API}/Deals/{quote(crm_id, safe='')}", as_json(tied))

    def merge(self, into: str, gone: str, field: str | None) -> Call | None:
        """One lead of two, at once or as a job of Zoho's; what the first one has counts."""
        place = f"{API}/Leads/{quote(into, safe='')}/actions/merge"
        return Call("POST", place, as_json({"merge": [{"data": [{"id": gone}]}]}))

    def erase(self, crm_id: str) -> Call:
        """Into the recycle bin, which is emptied after 60 days."""
        return Call("DELETE", f"{API}/Leads/{quote(crm_id, safe='')}")

    def read(self, answer: Answer) -> Reading:
        """What became of the record stands in `data`, or `merge`, whatever the status; else what the call lacked."""
        content = content_of(answer)
        told = content if isinstance(content, dict) else {}
        merging = told.get("merge")
        results = told.get("data") or merging
        first = results[0] if isinstance(results, list) and results else told
        details = first.get("details")
        details = details if isinstance(details, dict) else {}
        if answer.is_success and first.get("code") == "SUCCESS":
            action = f": {first['action']}" if first.get("action") else ""  # told of an upsert alone
            return Reading("done", f"answered {answer.status}{action}", str(details.get("id")))
        if answer.is_success and (answer.status == NO_CONTENT or first.get("code") == SCHEDULED):
            return Reading("done", f"answered {answer.status}" + (f": {SCHEDULED}" if merging else ""))
        code, name = first.get("code"), details.get("api_name")
        if code is None and HURRY in str(told.get("error_description")).casefold():  # to who asks for tokens
            code = "TOO_MANY_REQUESTS"
        # A merge tells under the same code that the fields of the one record would not have room for those of two.
        refused = reading_of(answer, [code], LATER, EXPIRED, {} if merging else LIMITS)
        # A wrong id is told as a wrong value, of the address or of the record.
        gone = refused.gone or (code == "INVALID_DATA" and (name == "id" or (name is None and "id" in details)))
        twin = str(details["id"]) if code == "DUPLICATE_DATA" and name == "Email" and details.get("id") else None
        return replace(refused, said=refused.said + (f" {name}" if name else ""), gone=gone, twin=twin)


def _content(record: Record) -> dict[str, Any]:
    owner = {} if record.owner is None else {"Owner": {"id": record.owner}}
    return {**record.filled_up(WANTED), **record.places(STAGES[record.kind], "Owner", "Pipeline"), **owner}
