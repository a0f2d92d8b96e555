"""What HubSpot tells of contacts and deals, and what does not pass for HubSpot."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import CrmFact, ErasureFact, Headers, LeadFact, Unmappable
from tests.samples.signed import sample
from tests.unit.capture.answered import change, facts, one, reason, refused
from tests.unit.capture.told import body_of

HUBSPOT = sample("hubspot")
EVENT = body_of(HUBSPOT)[0]  # type: ignore[index]  # the body is a list


def event(sort: str, **changes: Any) -> dict[str, Any]:
    return {**EVENT, "subscriptionType": sort} | changes


def contact(**properties: str) -> dict[str, Any]:
    return {"id": "1", "properties": {"email": "nora@acme.com"} | properties}


def test_a_creation_is_a_lead() -> None:
    fact = one(HUBSPOT, [event("contact.creation", objectId=1)], {"1": contact(firstname="Nora")})
    assert isinstance(fact, LeadFact)
    assert (fact.person.first_name, fact.person.external_id, fact.external_id) == ("Nora", "1", "1")
    renamed = one(HUBSPOT, [event("object.creation", objectTypeId="0-1", objectId=1)], {"1": contact()})
    assert isinstance(renamed, LeadFact)


@pytest.mark.parametrize("name", ["lifecyclestage", "hs_lead_status"])
def test_another_stage_is_a_change_in_the_crm(name: str) -> None:
    changed = {"propertyName": name, "propertyValue": "salesqualifiedlead"}
    fact = change(HUBSPOT, [event("contact.propertyChange", **changed)])
    assert (fact.stage, fact.external_id, fact.event) == ("salesqualifiedlead", "121108961", "contact.propertyChange")
    assert fact.person.external_id == "121108961"


def test_another_value_is_a_change_without_a_stage() -> None:
    fact = change(HUBSPOT, [event("contact.propertyChange", propertyName="city", propertyValue="Bonn")])
    assert (fact.stage, fact.properties) == (None, {"city": "Bonn"})


@pytest.mark.parametrize("happened", ["deletion", "merge"])
def test_what_became_of_a_contact_is_a_change(happened: str) -> None:
    assert change(HUBSPOT, [event(f"contact.{happened}")]).event == f"contact.{happened}"


def test_a_deal_is_about_its_contact() -> None:
    deal = {"id": "5", "properties": {"dealstage": "closedwon"}}
    tied = deal | {"associations": {"contacts": {"results": [{"id": "77", "type": "deal_to_contact"}]}}}
    moved = [event("deal.propertyChange", objectId=5, propertyName="dealstage", propertyValue="closedwon")]
    fact = change(HUBSPOT, moved, {"5": tied})
    assert (fact.stage, fact.external_id, fact.person.external_id) == ("closedwon", "5", "77")
    for answers in ({"5": deal}, None):
        untied = change(HUBSPOT, moved, answers)
        assert (untied.stage, untied.external_id, untied.person.identified) == ("closedwon", "5", False)


TIED = {"objectId": None, "propertyName": None, "propertyValue": None, "associationRemoved": False}


@pytest.mark.parametrize(
    "told",
    [
        event("deal.associationChange", **TIED, associationType="DEAL_TO_CONTACT", fromObjectId=5, toObjectId=78),
        event("contact.associationChange", **TIED, associationType="CONTACT_TO_DEAL", fromObjectId=78, toObjectId=5),
        event(
            "object.associationChange",
            **TIED | {"objectTypeId": "0-3", "fromObjectTypeId": "0-3", "toObjectTypeId": "0-1"},
            fromObjectId=5,
            toObjectId=78,
        ),
    ],
    ids=["of the deal", "of the contact", "of any object"],
)
def test_a_deal_that_is_tied_to_a_contact_is_theirs_as_hubspot_has_it_now(told: dict[str, Any]) -> None:
    record = contact() | {"associations": {"contacts": {"results": [{"id": "77"}, {"id": "78"}]}}}
    for answers, contact_id in (({"5": record}, "77"), (None, "78")):
        fact = change(HUBSPOT, [told], answers)
        assert (fact.deal, fact.only_tied, fact.external_id, fact.person.external_id) == (True, True, "5", contact_id)
        assert (fact.stage, fact.properties) == (None, {})
    removed = told | {"associationRemoved": True}
    assert change(HUBSPOT, [removed], {"5": record}).person.external_id == "77"
    for answers in ({"5": {"id": "5", "properties": {"amount": "1"}}}, None):
        assert reason(one(HUBSPOT, [removed], answers)) == "association"


def test_a_deal_that_is_tied_to_a_company_is_known_by_it_and_other_ties_are_ignored() -> None:
    ends = {"fromObjectId": 5, "toObjectId": 9}
    fact = change(HUBSPOT, [event("deal.associationChange", **TIED, associationType="DEAL_TO_COMPANY", **ends)])
    assert (fact.external_id, fact.account, fact.person.identified) == ("5", "9", False)
    other = event("contact.associationChange", **TIED, associationType="CONTACT_TO_COMPANY", **ends)
    assert reason(one(HUBSPOT, [other])) == "association"


def test_ties_of_one_deal_have_names_of_their_own() -> None:
    told = event("deal.associationChange", **TIED, associationType="DEAL_TO_CONTACT", fromObjectId=5, toObjectId=78)
    names = {
        adapters()["hubspot"].delivery_id(HUBSPOT.with_body(json.dumps([told | {"toObjectId": to}]).encode()))
        for to in (77, 78, 78)
    }
    assert len(names) == 2


def test_what_changes_at_a_company_is_a_change_of_nobody() -> None:
    fact = change(HUBSPOT, [event("company.propertyChange", objectId=9, propertyName="name", propertyValue="Acme")])
    assert (fact.external_id, fact.person.identified, fact.properties) == ("9", False, {"name": "Acme"})


def test_a_deal_that_nobody_was_asked_about_holds_up_no_contact() -> None:
    body = [event("contact.creation"), event("deal.propertyChange", objectId=5, eventId=2)]
    several = facts(HUBSPOT, HUBSPOT.with_body(json.dumps(body).encode()), {"121108961": contact()})
    assert [type(fact) for fact in several] == [LeadFact, CrmFact]


def test_a_privacy_deletion_is_an_erasure() -> None:
    fact = one(HUBSPOT, [event("contact.privacyDeletion")])
    assert isinstance(fact, ErasureFact)
    assert fact.person.external_id == "121108961"


def test_other_events_of_hubspot_are_ignored() -> None:
    assert reason(one(HUBSPOT, [event("company.creation")])) == "object"
    assert reason(one(HUBSPOT, [event("contact.restore")])) == "subscription_type"
    assert reason(one(HUBSPOT, [event("conversation.newMessage")])) == "object"


def test_every_event_is_a_fact_of_its_own_and_each_contact_is_asked_for_once() -> None:
    body = [event("contact.creation", eventId=1), event("contact.creation", eventId=2), event("contact.deletion")]
    request = HUBSPOT.with_body(json.dumps([*body, body[0]]).encode())
    assert len(adapters()["hubspot"].lookups(request)) == 1
    several = facts(HUBSPOT, request, {"121108961": contact()})
    assert [type(fact) for fact in several] == [LeadFact, LeadFact, CrmFact]


def test_a_batch_sent_again_has_the_same_name() -> None:
    def name(attempt: int, **changes: Any) -> str:
        body = [event("contact.creation", attemptNumber=attempt), event("contact.deletion", eventId=2, **changes)]
        return adapters()["hubspot"].delivery_id(HUBSPOT.with_body(json.dumps(body).encode()))

    assert name(0) == name(3)
    assert name(0) != name(0, objectId=5)


@pytest.mark.parametrize("answer", [None, {}, {"status": "error"}, {"properties": []}])
def test_an_answer_that_is_no_contact_cannot_be_mapped(answer: Any) -> None:
    with pytest.raises(Unmappable):
        one(HUBSPOT, [event("contact.creation")], {"121108961": answer})


def test_an_event_about_nothing_cannot_be_mapped() -> None:
    for body in ([], [1], [event("contact.creation", objectId=None)], "x"):
        with pytest.raises(Unmappable):
            facts(HUBSPOT, HUBSPOT.with_body(json.dumps(body).encode()))


def test_a_workflow_brings_its_contact_along() -> None:
    values = {"email": "nora@acme.com", "jobtitle": "CTO", "lastmodifieddate": "1772624430263", "hs_x": "1"}
    body = {"vid": 7, "portal-id": 4, "properties": {name: {"value": value} for name, value in values.items()}}
    fact = one(HUBSPOT, body)
    assert isinstance(fact, LeadFact)
    assert fact.idempotency_key == "hubspot:4:workflow:7:1772624430263"
    assert (fact.external_id, fact.person.title, fact.person.attributes) == ("7", "CTO", {})


@pytest.mark.parametrize("header", [None, "", "ä", "AAAA"])
def test_an_older_signature_beside_a_bad_one_proves_nothing(header: str | None) -> None:
    request = HUBSPOT.with_headers(x_hubspot_signature_v3=header)
    assert refused(HUBSPOT, request)
    assert refused(HUBSPOT, request, allow_legacy=True) == (header is not None)


def test_the_older_signatures_must_be_allowed() -> None:
    bare = HUBSPOT.with_headers(x_hubspot_signature_v3=None)
    signed = HUBSPOT.secret + "POST" + bare.url + bare.raw_body.decode()
    second = replace(
        bare,
        headers=Headers.of(
            {
                "x-hubspot-signature": hashlib.sha256(signed.encode()).hexdigest(),
                "x-hubspot-signature-version": "v2",
            }
        ),
    )
    assert refused(HUBSPOT, second)
    assert not refused(HUBSPOT, second, allow_legacy=True)
    for version in ("v1", "v3", ""):
        headers = Headers((("x-hubspot-signature-version", version), *second.headers.pairs[:1]))
        assert refused(HUBSPOT, replace(second, headers=headers), allow_legacy=True)


@pytest.mark.parametrize("stamp", [None, "", "now", "-1", "1772624430", "9" * 20, "१२३"])
def test_a_timestamp_of_hubspot_counts_milliseconds(stamp: str | None) -> None:
    assert refused(HUBSPOT, HUBSPOT.with_headers(x_hubspot_request_timestamp=stamp))


@pytest.mark.parametrize(("minutes", "refuses"), [(-6, True), (-4, False), (4, False), (6, True)])
def test_hubspot_is_believed_for_five_minutes_around_now(minutes: int, refuses: bool) -> None:
    request = HUBSPOT.with_body(HUBSPOT.request.raw_body, HUBSPOT.now + timedelta(minutes=minutes))
    assert refused(HUBSPOT, request) is refuses


def test_the_address_is_signed_with_or_without_its_escapes() -> None:
    url = HUBSPOT.request.url + "?from=a%3Ab%2Fc"
    stamp = HUBSPOT.request.headers.get("x-hubspot-request-timestamp") or ""
    for signed_url, refuses in ((url, False), (HUBSPOT.request.url + "?from=a:b/c", False), (url + "x", True)):
        signed = f"POST{signed_url}{HUBSPOT.request.raw_body.decode()}{stamp}".encode()
        mac = base64.b64encode(hmac.new(HUBSPOT.secret.encode(), signed, hashlib.sha256).digest()).decode()
        request = replace(HUBSPOT.with_headers(x_hubspot_signature_v3=mac), url=url)
        assert refused(HUBSPOT, request) is refuses
