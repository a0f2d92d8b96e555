"""What Salesforce and Zoho tell of their records, and what does not pass for one of them."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import CrmFact, Fact, Headers, HookRequest, Ignored, LeadFact, Unmappable
from tests.samples.signed import Sample, sample
from tests.unit.capture.answered import change, facts, one, reason, refused
from tests.unit.capture.told import body_of

SALESFORCE, HUBSPOT, ZOHO = sample("salesforce"), sample("hubspot"), sample("zoho")
ORGANIZATION = "00D5g0000054726616"


@pytest.mark.parametrize("known", [SALESFORCE, HUBSPOT, ZOHO], ids=lambda known: known.kind)
def test_two_secrets_are_live_while_they_change(known: Sample) -> None:
    adapters()[known.kind].verify(known.request, ["another-secret", known.secret], known.now)
    assert refused(known, known.request, "another-secret")


# Salesforce


def message(*records: str, organization: str = ORGANIZATION) -> HookRequest:
    """An outbound message with these records, each an `sObject`."""
    notifications = "".join(
        f"<Notification><Id>04l{place:015}</Id>{record}</Notification>" for place, record in enumerate(records)
    )
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body>'
        '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
        f"<OrganizationId>{organization}</OrganizationId><SessionId>00D5g!AQcAQFh</SessionId>{notifications}"
        "</notifications></e:Body></e:Envelope>"
    )
    return replace(SALESFORCE.request, raw_body=body.encode())


def record(sort: str = "Lead", **fields: str) -> str:
    values = {"Id": "00Q5g00007064fb291", "Email": "nora@acme.com"} | fields
    written = "".join(f"<sf:{name}>{value}</sf:{name}>" for name, value in values.items() if value)
    return f'<sObject xsi:type="sf:{sort}" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">{written}</sObject>'


def told(*records: str) -> list[Fact]:
    return facts(SALESFORCE, message(*records))


def test_every_notification_is_a_fact_of_its_own() -> None:
    several = told(record(), record("Contact", Email="b@acme.com"), record("Account"))
    assert [fact.idempotency_key for fact in several] == [f"salesforce:04l{place:015}" for place in range(3)]
    assert [type(fact) for fact in several] == [LeadFact, LeadFact, Ignored]
    assert reason(several[2]) == "object"


def test_the_organization_must_be_ours() -> None:
    for known in (ORGANIZATION, ORGANIZATION[:15]):
        assert not refused(SALESFORCE, message(record()), organization_id=known)
        assert not refused(SALESFORCE, message(record(), organization=known), organization_id=ORGANIZATION)
    for other in ("00D5g0000054726", "00d5g000005472661", "", "00D"):
        theirs = message(record(), organization="00D5g0000099999AAA")
        assert refused(SALESFORCE, theirs, organization_id=other or ORGANIZATION)
    assert refused(SALESFORCE, replace(message(), raw_body=b"<a/>"), organization_id=ORGANIZATION)


def test_a_message_needs_the_token() -> None:
    for query in ("", "?token=", "?token=wrong"):
        url = SALESFORCE.request.url.partition("?")[0] + query
        assert refused(SALESFORCE, replace(SALESFORCE.request, url=url))


@pytest.mark.parametrize(
    "declared",
    [
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://x.example/a.dtd">',
        "<!doctype a>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_xml_that_declares_anything_is_not_read(declared: str, encoding: str) -> None:
    text = message(record()).raw_body.decode()
    head, mark, rest = text.partition("?>")
    body = (head.replace("UTF-8", encoding) + mark + declared + rest).encode(encoding)
    with pytest.raises(Unmappable):
        facts(SALESFORCE, replace(SALESFORCE.request, raw_body=body))


@pytest.mark.parametrize("body", [b"", b"<a>", b"<a/>", b"{}", b"<a>" * 100_000])
def test_what_is_no_message_cannot_be_mapped(body: bytes) -> None:
    with pytest.raises(Unmappable):
        facts(SALESFORCE, replace(SALESFORCE.request, raw_body=body))


def test_a_message_without_records_cannot_be_mapped() -> None:
    with pytest.raises(Unmappable):
        told()
    with pytest.raises(Unmappable):
        told("")


def test_the_session_is_not_kept() -> None:
    stored = adapters()["salesforce"].stored(message(record()), [SALESFORCE.secret])
    assert b"AQcAQFh" not in stored.raw_body
    assert SALESFORCE.secret not in stored.url
    assert adapters()["salesforce"].facts(stored)


@pytest.mark.parametrize(
    "session",
    ["<SessionId><![CDATA[00D!AQcAQFh<x>]]></SessionId>", "<a:SessionId>00D!AQcAQFh</a:SessionId >", "<SessionId/>"],
)
def test_the_session_is_not_kept_however_it_is_written(session: str) -> None:
    body = message(record()).raw_body.replace(b"<SessionId>00D5g!AQcAQFh</SessionId>", session.encode())
    stored = adapters()["salesforce"].stored(replace(SALESFORCE.request, raw_body=body), [SALESFORCE.secret])
    assert b"AQcAQFh" not in stored.raw_body
    assert b"nora@acme.com" in stored.raw_body


def test_short_and_long_ids_are_one_record() -> None:
    (short,), (long,) = told(record(Id="00Q5g00000ABCde")), told(record(Id="00Q5g00000ABCdeEAH"))
    assert isinstance(short, LeadFact)
    assert isinstance(long, LeadFact)
    assert len(str(short.external_id)) == 18
    assert str(short.external_id)[:15] == str(long.external_id)[:15]
    assert short.external_id == long.external_id == short.person.external_id


def test_fields_of_salesforce_find_their_place() -> None:
    fields = {"Title": "CTO", "NumberOfEmployees": "40", "AnnualRevenue": "1000000.0", "Team_Size__c": "11-50"}
    (fact,) = told(record(MobilePhone="+14155550140", HasOptedOutOfEmail="true", Rating="Hot", **fields))
    assert isinstance(fact, LeadFact)
    person = fact.person
    assert (person.title, person.employees, person.annual_revenue, person.phone) == (
        "CTO",
        40,
        1_000_000,
        "+14155550140",
    )
    assert (person.attributes, person.consent) == ({"Team_Size__c": "11-50"}, {"email": "denied"})
    assert fact.timed_by == "receipt"


def test_an_opportunity_is_a_stage_of_its_contact() -> None:
    (fact,) = told(record("Opportunity", StageName="Closed Won", ContactId="0035g00000ABCdeEAH"))
    assert isinstance(fact, CrmFact)
    assert (fact.stage, fact.person.external_id) == ("Closed Won", "0035g00000ABCdeEAH")
    (untied,) = told(record("Opportunity", StageName="Closed Won", AccountId="0015g00000ABCde"))
    assert isinstance(untied, CrmFact)
    assert (untied.stage, untied.person.identified, untied.deal) == ("Closed Won", False, True)
    assert untied.account == "0015g00000ABCdeAAH"


def test_a_deleted_record_is_a_change() -> None:
    (fact,) = told(record(IsDeleted="true"))
    assert isinstance(fact, CrmFact)
    assert (fact.event, fact.stage) == ("deleted", None)


# Zoho


def notified(**changes: Any) -> dict[str, Any]:
    return body_of(ZOHO) | changes


def zoho_record(known: str, **fields: Any) -> dict[str, Any]:
    return {"data": [{"id": known, "Email": f"lead{known}@acme.com"} | fields]}


def test_every_new_record_is_a_lead_of_its_own() -> None:
    answers = {known: zoho_record(known) for known in ("1", "2")}
    request = ZOHO.with_body(json.dumps(notified(ids=["1", "2", "1"])).encode())
    several = facts(ZOHO, request, answers)
    assert [fact.person.email for fact in several if isinstance(fact, LeadFact)] == ["lead1@acme.com", "lead2@acme.com"]
    assert [fact.idempotency_key.rpartition(":")[2] for fact in several] == ["1", "2"]


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_what_became_of_a_record_is_a_change(operation: str) -> None:
    body = notified(operation=operation)
    assert adapters()["zoho"].lookups(ZOHO.with_body(json.dumps(body).encode())) == ()
    fact = change(ZOHO, body)
    assert (fact.event, fact.external_id, fact.person.external_id) == (operation, body["ids"][0], body["ids"][0])


@pytest.mark.parametrize("module", ["Leads", "Deals", "Accounts"])
def test_a_change_is_one_whatever_the_record_says_now(module: str) -> None:
    body = notified(ids=["1"], module=module, operation="update", affected_fields=[{"1": ["Stage"]}])
    fact = change(ZOHO, body)
    assert (fact.event, fact.external_id, fact.stage) == ("update", "1", None)
    assert fact.properties == {"affected_fields": ["Stage"]}


def test_a_stage_that_is_told_is_not_asked_for() -> None:
    told = [{"record_id": "1", "values": {"Lead_Status": "Contacted", "Phone": "555-555-1111"}}]
    affected = [{"1": ["Lead_Status", "Phone"]}]
    body = notified(ids=["1"], operation="update", affected_values=told, affected_fields=affected)
    assert adapters()["zoho"].lookups(ZOHO.with_body(json.dumps(body).encode())) == ()
    assert (change(ZOHO, body).stage, change(ZOHO, body).person.external_id) == ("Contacted", "1")


def test_a_try_of_a_workflow_creates_nothing() -> None:
    body = {"Email": "nora@acme.com", "is_test": "true", "token": ZOHO.secret}
    assert reason(one(ZOHO, body)) == "test"


def test_a_stage_that_changed_is_asked_for() -> None:
    body = notified(ids=["1"], operation="update", affected_fields=[{"1": ["Lead_Status"]}])
    fact = change(ZOHO, body, {"1": zoho_record("1", Lead_Status="Qualified")})
    assert (fact.stage, fact.person.external_id) == ("Qualified", "1")


def test_a_deal_of_zoho_is_about_its_contact() -> None:
    deal = zoho_record("1", Stage="Closed Won", Contact_Name={"id": "77", "name": "Nora"})
    fact = change(ZOHO, notified(ids=["1"], module="Deals", operation="update"), {"1": deal})
    assert (fact.stage, fact.external_id, fact.person.external_id) == ("Closed Won", "1", "77")


def test_other_notifications_of_zoho_are_ignored() -> None:
    assert reason(one(ZOHO, notified(module="Accounts"))) == "module"
    assert reason(one(ZOHO, notified(operation="merge"))) == "operation"
    assert reason(one(ZOHO, notified(ids=[]))) == "no_record"


@pytest.mark.parametrize("answer", [None, {"data": []}, {"data": [{"id": "2"}]}, {"code": "INVALID_TOKEN"}])
def test_an_answer_that_is_not_the_record_cannot_be_mapped(answer: Any) -> None:
    with pytest.raises(Unmappable):
        one(ZOHO, notified(ids=["1"]), {"1": answer})


@pytest.mark.parametrize("ids", [None, "1", [None], ["../1"], [{}]])
def test_only_ids_are_asked_for(ids: Any) -> None:
    body = notified(ids=ids)
    assert adapters()["zoho"].lookups(ZOHO.with_body(json.dumps(body).encode())) == ()
    with pytest.raises(Unmappable):
        one(ZOHO, body, {})


def test_a_notification_needs_the_token() -> None:
    for token in (None, "", "wrong", 1, [ZOHO.secret]):
        assert refused(ZOHO, replace(ZOHO.request, raw_body=json.dumps(notified(token=token)).encode()))


def test_the_token_is_not_kept() -> None:
    assert ZOHO.secret.encode() not in adapters()["zoho"].stored(ZOHO.request, [ZOHO.secret]).raw_body


def test_a_token_of_zoho_is_not_long() -> None:
    adapter = adapters()["zoho"]
    assert adapter.secret_fault("x" * 51)
    assert adapter.secret_fault("short")
    assert adapter.secret_fault(adapter.new_secret()) is None


def test_a_form_of_zoho_names_its_fields_as_it_likes() -> None:
    fields = {"First_Name": "Nora", "Email": "Nora@Acme.com", "Team": "11-50"}
    form = {"content-type": "application/x-www-form-urlencoded"}
    in_body = replace(
        ZOHO.request, headers=Headers.of(form), raw_body=urlencode(fields | {"token": ZOHO.secret}).encode()
    )
    in_address = replace(in_body, url=f"{ZOHO.request.url}?token={ZOHO.secret}", raw_body=urlencode(fields).encode())
    in_header = replace(
        in_body,
        headers=Headers.of(form | {"authorization": f"Bearer {ZOHO.secret}"}),
        raw_body=urlencode(fields).encode(),
    )
    for request in (in_body, in_address, in_header):
        (fact,) = facts(ZOHO, request)
        assert isinstance(fact, LeadFact)
        assert (fact.person.first_name, fact.person.email) == ("Nora", "nora@acme.com")
        assert (fact.person.attributes, fact.timed_by) == ({"Team": "11-50"}, "receipt")


def test_a_workflow_of_zoho_may_ask_as_people_do() -> None:
    body = {"Your Name": "Nora Falk", "Work Email": "nora@acme.com", "Newsletter": "yes", "token": ZOHO.secret}
    fact = one(ZOHO, body)
    assert isinstance(fact, LeadFact)
    assert (fact.person.last_name, fact.person.email) == ("Falk", "nora@acme.com")
    assert (fact.person.consent, fact.person.attributes) == ({"email": "granted"}, {})


def test_zoho_is_asked_in_its_own_words() -> None:
    assert adapters()["zoho"].authorization("x") == {"authorization": "Zoho-oauthtoken x"}
