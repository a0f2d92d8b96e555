"""Servers that behave as the public documentation of three CRMs says, as far as Throughline asks them."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import orjson

from tests.service.local_server import Asked, LocalServer, reply

PLACES_OF_ONE = len(["", "services", "data", "v61.0", "sobjects", "Lead", "id"])


class CrmServer(ABC):
    """One CRM: who may come in, its users, its records; `next_answers` are given before it does anything."""

    token_path: ClassVar[str]
    scheme: ClassVar[str] = "Bearer"
    limited: ClassVar[bytes]
    refused: ClassVar[bytes]
    refused_code: ClassVar[str]

    def __init__(self, users: dict[str, str]) -> None:
        self.users = users
        self.token = "none yet"
        self.tokens_given = 0
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        self.contacts: dict[str, str] = {}
        self.associations: set[tuple[str, str]] = set()
        self.marks: dict[str, Any] = {}
        self.next_answers: list[bytes] = []
        self.server = LocalServer(respond=self.respond)

    async def respond(self, asked: Asked) -> bytes:
        """An answer to one request."""
        path = urlsplit(asked.target).path
        if path == self.token_path:
            form = {name: values[0] for name, values in parse_qs(asked.body.decode()).items()}
            if form.get("client_id") != "us" or form.get("client_secret") != "secret":
                return self.wrong_client()
            self.tokens_given += 1
            self.token = f"token-{self.tokens_given}"
            return reply(200, self.given())
        if asked.headers.get("authorization") != f"{self.scheme} {self.token}":
            return self.expired()
        if self.next_answers:
            return self.next_answers.pop(0)
        return self.work(asked, path, parse_qs(urlsplit(asked.target).query))

    def put(self, kind: str, key: str, values: dict[str, Any]) -> tuple[str, bool]:
        """Write a record; answers its id, and whether it is new."""
        is_new = (kind, key) not in self.records
        record = self.records.setdefault((kind, key), {"id": f"{kind}{len(self.records) + 1}"})
        record.update(values)
        return record["id"], is_new

    def change(self, crm_id: str, values: dict[str, Any]) -> bool:
        """Change a record by its id; False where there is none."""
        found = [record for record in self.records.values() if record["id"] == crm_id]
        for record in found:
            record.update(values)
        return bool(found)

    def drop(self, crm_id: str) -> bool:
        """Delete a record; False where there is none."""
        keys = [key for key, record in self.records.items() if record["id"] == crm_id]
        for key in keys:
            del self.records[key]
        return bool(keys)

    @abstractmethod
    def given(self) -> dict[str, Any]:
        """What is answered with a token."""

    @abstractmethod
    def wrong_client(self) -> bytes:
        """What is answered to somebody else."""

    @abstractmethod
    def expired(self) -> bytes:
        """What is answered to a token that is none."""

    @abstractmethod
    def work(self, asked: Asked, path: str, query: dict[str, list[str]]) -> bytes:
        """What is answered to who may come in."""


class SalesforceServer(CrmServer):
    """https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm."""

    token_path = "/services/oauth2/token"
    limited = reply(403, [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}])
    refused = reply(
        400,
        [{"message": "Email: invalid email address: ann@", "errorCode": "INVALID_EMAIL_ADDRESS", "fields": ["Email"]}],
    )
    refused_code = "INVALID_EMAIL_ADDRESS Email"

    def given(self) -> dict[str, Any]:
        return {
            "access_token": self.token,
            "instance_url": f"http://127.0.0.1:{self.server.port}",
            "token_type": "Bearer",
        }

    def wrong_client(self) -> bytes:
        return reply(400, {"error": "invalid_client_id", "error_description": "client identifier invalid"})

    def expired(self) -> bytes:
        return reply(401, [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}])

    def work(self, asked: Asked, path: str, query: dict[str, list[str]]) -> bytes:
        if path.endswith("/limits"):
            return reply(200, {"DailyApiRequests": {"Max": 15_000, "Remaining": 14_998}})
        if path.endswith("/query"):
            return self.found(query["q"][0])
        parts = path.split("/")
        if path.endswith("/OpportunityContactRole"):
            role = orjson.loads(asked.body)
            self.associations.add((role["OpportunityId"], role["ContactId"]))
            return reply(201, {"id": "role1", "success": True, "errors": []})
        if asked.method == "DELETE":
            return reply(204) if self.drop(parts[-1]) else reply(404, [{"message": "no", "errorCode": "NOT_FOUND"}])
        content = orjson.loads(asked.body)
        if len(parts) == PLACES_OF_ONE:
            self.marks[parts[-1]] = content
            return reply(204)
        kind, id_field, key = parts[-3:]
        if asked.method != "PATCH" or id_field in content or "Id" in content:
            return reply(400, [{"message": "no", "errorCode": "INVALID_FIELD"}])
        wanted = {"Lead": ("LastName", "Company"), "Opportunity": ("Name", "StageName", "CloseDate")}[kind]
        missing = [name for name in wanted if not {**self.records.get((kind, key), {}), **content}.get(name)]
        if missing:
            return reply(400, [{"message": "missing", "errorCode": "REQUIRED_FIELD_MISSING", "fields": missing}])
        crm_id, is_new = self.put(kind, key, content)
        return reply(201 if is_new else 200, {"id": crm_id, "success": True, "errors": [], "created": is_new})

    def found(self, asked: str) -> bytes:
        """What a query for a user finds, or for a contact, and whether that one has a part in the opportunity."""
        known = self.contacts if " FROM Contact WHERE " in asked else self.users
        found: list[dict[str, Any]] = [{"Id": one} for email, one in known.items() if f"'{email}'" in asked]
        for one in found if known is self.contacts else ():
            roles = [{"Id": "role1"} for deal, of in self.associations if of == one["Id"] and f"'{deal}'" in asked]
            one["OpportunityContactRoles"] = {"totalSize": len(roles), "records": roles} if roles else None
        return reply(200, {"totalSize": len(found), "done": True, "records": found})


class HubSpotServer(CrmServer):
    """https://developers.hubspot.com/docs/reference/api/other-resources/error-handling."""

    token_path = "/oauth/v1/token"
    limited = reply(
        429,
        {"status": "error", "message": "You have reached your ten_secondly_rolling limit.", "errorType": "RATE_LIMIT",
         "policyName": "TEN_SECONDLY_ROLLING"},
        retry_after="1",
    )  # fmt: skip
    refused = reply(
        400,
        {"status": "error", "message": "Property values were not valid: ann@", "category": "VALIDATION_ERROR",
         "errors": [{"message": "Email address ann@ is invalid", "code": "INVALID_EMAIL",
                     "context": {"propertyName": ["email"]}}]},
    )  # fmt: skip
    refused_code = "VALIDATION_ERROR, INVALID_EMAIL email"

    def given(self) -> dict[str, Any]:
        return {"access_token": self.token, "refresh_token": "again", "expires_in": 1_800, "token_type": "bearer"}

    def wrong_client(self) -> bytes:
        return reply(400, {"status": "BAD_CLIENT_ID", "message": "missing or unknown client id"})

    def expired(self) -> bytes:
        return reply(401, {"status": "error", "message": "expired", "category": "EXPIRED_AUTHENTICATION"})

    def work(self, asked: Asked, path: str, query: dict[str, list[str]]) -> bytes:
        if path == "/crm/v3/owners":
            wanted = query.get("email", [None])[0]
            found = [{"id": user, "email": email} for email, user in self.users.items() if wanted in (None, email)]
            return reply(200, {"results": found})
        parts = path.split("/")
        if parts[2] == "v4":
            self.associations.add((parts[5], parts[9]))
            return reply(200, {"status": "COMPLETE"})
        kind = parts[4]
        content = orjson.loads(asked.body)
        if parts[5] == "gdpr-delete":
            return reply(204) if self.drop(content["objectId"]) else reply(404, {"category": "OBJECT_NOT_FOUND"})
        if parts[5] == "merge":
            if not self.drop(content["objectIdToMerge"]):
                return reply(404, {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "resource not found"})
            return reply(200, {"id": content["primaryObjectId"], "properties": {}})
        if asked.method == "PATCH":
            return self.changed(parts[5], content["properties"])
        (one,) = orjson.loads(asked.body)["inputs"]
        values = {one["idProperty"]: one["id"], **one["properties"]}
        crm_id, is_new = self.put(kind, one["id"], values)
        return reply(200, {"status": "COMPLETE", "results": [{"id": crm_id, "new": is_new, "properties": values}]})

    def changed(self, crm_id: str, properties: dict[str, Any]) -> bytes:
        """No two contacts have the same address."""
        others = [one["id"] for one in self.records.values() if one.get("email") == properties.get("email") is not None]
        if others and others != [crm_id]:
            return self.conflict(others[0])
        if not self.change(crm_id, properties):
            return reply(404, {"status": "error", "category": "OBJECT_NOT_FOUND", "message": "Object not found."})
        return reply(200, {"id": crm_id, "properties": properties})

    def conflict(self, crm_id: str) -> bytes:
        """As HubSpot tells who has an address."""
        told = {"category": "CONFLICT", "message": f"Contact already exists. Existing ID: {crm_id}"}
        return reply(409, {"status": "error", **told})


class ZohoServer(CrmServer):
    """https://www.zoho.com/crm/developer/docs/api/v6/status-codes.html."""

    token_path = "/oauth/v2/token"
    scheme = "Zoho-oauthtoken"
    limited = reply(429, {"code": "TOO_MANY_REQUESTS", "details": {}, "message": "slow down", "status": "error"})
    refused = reply(
        202,
        {"data": [{"code": "INVALID_DATA", "details": {"expected_data_type": "email", "api_name": "Email"},
                   "message": "invalid data ann@", "status": "error"}]},
    )  # fmt: skip
    refused_code = "INVALID_DATA Email"

    def given(self) -> dict[str, Any]:
        return {"access_token": self.token, "api_domain": f"http://127.0.0.1:{self.server.port}", "expires_in": 3_600}

    def wrong_client(self) -> bytes:
        return reply(200, {"error": "invalid_client"})

    def expired(self) -> bytes:
        return reply(401, {"code": "INVALID_TOKEN", "details": {}, "message": "invalid oauth token", "status": "error"})

    def work(self, asked: Asked, path: str, query: dict[str, list[str]]) -> bytes:
        if path.endswith("/users"):
            return reply(200, {"users": [{"id": user, "email": email} for email, user in self.users.items()]})
        _, _, _, kind, crm_id, *_ = path.split("/")
        if crm_id == "search":
            known = [{"id": one} for email, one in self.contacts.items() if email == query["email"][0]]
            return reply(200, {"data": known}) if known else reply(204)
        if path.endswith("/actions/merge"):
            (one,) = orjson.loads(asked.body)["merge"][0]["data"]
            if not self.drop(one["id"]):
                place = {"api_name": "id", "json_path": "$.merge[0].data[0].id"}
                return reply(400, {"merge": [{"code": "INVALID_DATA", "details": place, "status": "error"}]})
            done = {"code": "SUCCESS", "details": {"id": crm_id}, "message": "records merged", "status": "success"}
            return reply(200, {"merge": [done]})
        if asked.method == "DELETE":
            if not self.drop(crm_id):
                problem = {"code": "INVALID_DATA", "details": {"id": crm_id}, "status": "error"}
                return reply(400, {"data": [problem]})
            return reply(200, {"data": [{"code": "SUCCESS", "details": {"id": crm_id}, "status": "success"}]})
        content = orjson.loads(asked.body)
        if asked.method == "PUT":
            (one,) = content["data"]
            if "Contact_Name" in one:
                self.associations.add((crm_id, one["Contact_Name"]["id"]))
            elif not self.change(crm_id, one):
                problem = {"code": "INVALID_DATA", "details": {"api_name": "id"}, "status": "error"}
                return reply(202, {"data": [problem]})
            return reply(200, {"data": [{"code": "SUCCESS", "details": {"id": crm_id}, "status": "success"}]})
        (one,), (key,) = content["data"], content["duplicate_check_fields"]
        wanted = {"Leads": ("Last_Name",), "Deals": ("Deal_Name", "Stage")}[kind]
        if missing := [name for name in wanted if not one.get(name)]:
            problem = {"code": "MANDATORY_NOT_FOUND", "details": {"api_name": missing[0]}, "status": "error"}
            return reply(202, {"data": [problem]})
        crm_id, is_new = self.put(kind, one[key], one)
        done = {"code": "SUCCESS", "action": "insert" if is_new else "update", "details": {"id": crm_id}}
        return reply(200, {"data": [done]})
