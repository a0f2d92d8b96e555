"""What the lead forms of ad platforms tell, and what does not pass for one."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    ErasureFact,
    Fact,
    HookRequest,
    Ignored,
    LeadFact,
    MappingSettings,
    Touch,
    Unmappable,
)
from services.capture.adapters.told import told as told_in_words
from tests.samples.signed import Sample, sample
from tests.unit.capture.told import body_of

META = ("facebook", "instagram")
FACEBOOK, GOOGLE, LINKEDIN, TIKTOK = sample("facebook"), sample("google_ads"), sample("linkedin"), sample("tiktok")


def facts(known: Sample, body: Any, answers: Mapping[str, Any] | None = None, **defaults: Any) -> list[Fact]:
    """The facts of another body by the same sender, with what is answered under the ids in the paths asked for."""
    adapter = adapters()[known.kind]
    request = known.with_body(json.dumps(body).encode())
    adapter.verify(request, [known.secret], known.now)
    stored = adapter.stored(request, [known.secret])
    if answers is not None:
        paths = adapter.lookups(stored)
        found = {path: answers[name] for path in paths if (name := path.partition("?")[0].split("/")[-1]) in answers}
        stored = replace(stored, found=found)
    return adapter.facts(stored, MappingSettings.of({}, defaults) if defaults else known.settings)


def lead(known: Sample, body: Any, answers: Mapping[str, Any] | None = None, **defaults: Any) -> LeadFact:
    (fact,) = facts(known, body, answers, **defaults)
    assert isinstance(fact, LeadFact)
    return fact


def touch(fact: LeadFact) -> Touch:
    assert fact.touch is not None
    return fact.touch


def reasons(told: list[Fact]) -> list[str | None]:
    return [fact.reason if isinstance(fact, Ignored) else None for fact in told]


def refused(known: Sample, request: HookRequest, secrets: list[str] | None = None) -> bool:
    try:
        adapters()[known.kind].verify(request, secrets or [known.secret], known.now)
    except BadSignature:
        return True
    return False


# Meta


def notice(*lead_ids: str, field: str = "leadgen") -> dict[str, Any]:
    """One change in the entry of one page."""
    changes = [{"field": field, "value": {"leadgen_id": known, "created_time": 1772621430}} for known in lead_ids]
    return {"id": "280550669270589", "time": 1772621432, "changes": changes}


def delivery(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"object": "page", "entry": list(entries)}


def answered(lead_id: str, *boxes: dict[str, Any], is_organic: bool = False, **answers: str | list[str]) -> Any:
    given = {"email": "nora@acme.com"} | answers
    fields = [
        {"name": name, "values": [value] if isinstance(value, str) else value} for name, value in given.items() if value
    ]
    return {
        "id": lead_id,
        "created_time": "2026-03-04T10:50:30+0000",
        "campaign_id": "309",
        "is_organic": is_organic,
        "platform": "ig",
        "field_data": fields,
        "custom_disclaimer_responses": list(boxes),
    }


@pytest.mark.parametrize("kind", META)
@pytest.mark.parametrize("header", [None, "", "sha256=", "sha1=aa", "sha256=" + "0" * 64, "sha256=ä", "0" * 64])
def test_a_header_of_meta_that_is_no_signature_is_refused(kind: str, header: str | None) -> None:
    known = sample(kind)
    assert refused(known, known.with_headers(x_hub_signature_256=header))


def test_the_older_signature_of_meta_proves_nothing() -> None:
    old = hmac.new(FACEBOOK.secret.encode(), FACEBOOK.request.raw_body, hashlib.sha1).hexdigest()
    request = FACEBOOK.with_headers(x_hub_signature_256=None, x_hub_signature=f"sha1={old}")
    assert refused(FACEBOOK, request)


@pytest.mark.parametrize("known", [FACEBOOK, LINKEDIN, GOOGLE, TIKTOK], ids=lambda known: known.kind)
def test_two_secrets_are_live_while_they_change(known: Sample) -> None:
    assert not refused(known, known.request, ["another-secret", known.secret])
    assert refused(known, known.request, ["another-secret"])
    assert refused(known, known.request, [""])


def shake(known: Sample, query: str, **defaults: str) -> int | None:
    """The status of the answer to a handshake."""
    request = replace(known.request, method="GET", url=f"https://x.example/h?{query}", raw_body=b"")
    answer = adapters()[known.kind].handshake(request, [known.secret], MappingSettings.of({}, defaults))
    return None if answer is None else answer.status


def test_a_handshake_of_meta_needs_the_token() -> None:
    asked = "hub.mode=subscribe&hub.challenge=123&hub.verify_token="
    assert shake(FACEBOOK, f"{asked}ours", verify_token="ours") == 200
    assert shake(FACEBOOK, f"{asked}{FACEBOOK.secret}") == 200
    assert shake(FACEBOOK, asked) == 403
    assert shake(FACEBOOK, f"{asked}theirs", verify_token="ours") == 403
    assert shake(FACEBOOK, "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=ours", verify_token="ours") == 403
    assert shake(FACEBOOK, "hub.mode=subscribe&hub.challenge=<b>&hub.verify_token=ours", verify_token="ours") == 403
    assert shake(FACEBOOK, "hub.mode=subscribe&hub.verify_token=ours", verify_token="ours") == 403
    assert shake(FACEBOOK, "page=1") is None


def test_every_lead_of_every_entry_is_a_fact_of_its_own() -> None:
    body = delivery(notice("1", "2"), notice("9", field="feed"), notice("3", "1"))
    answers = {known: answered(known, email=f"lead{known}@acme.com") for known in "123"}
    told = facts(FACEBOOK, body, answers)
    assert [fact.idempotency_key for fact in told] == ["facebook:1", "facebook:2", "facebook:3"]
    assert [fact.person.email for fact in told if isinstance(fact, LeadFact)] == [
        "lead1@acme.com",
        "lead2@acme.com",
        "lead3@acme.com",
    ]


def test_a_mapping_is_applied_to_each_lead_by_itself() -> None:
    request = FACEBOOK.with_body(json.dumps(delivery(notice("1", "2"))).encode())
    adapter = adapters()["facebook"]
    answers = [answered("1", boss="a@acme.com"), answered("2", boss="b@acme.com")]
    found = dict(zip(adapter.lookups(request), answers, strict=True))
    told = adapter.facts(replace(request, found=found), MappingSettings.of({"email": "boss"}, {}))
    assert [fact.person.email for fact in told if isinstance(fact, LeadFact)] == ["a@acme.com", "b@acme.com"]


def test_batches_that_begin_alike_are_two_deliveries() -> None:
    names = {
        adapters()["facebook"].delivery_id(FACEBOOK.with_body(json.dumps(body).encode()))
        for body in (delivery(notice("1")), delivery(notice("1", "2")), delivery(notice("1", "3")))
    }
    assert len(names) == 3
    assert "facebook:1" in names


def test_changes_of_other_fields_are_ignored() -> None:
    assert reasons(facts(FACEBOOK, delivery(notice("9", field="feed")))) == ["field"]
    assert reasons(facts(FACEBOOK, delivery())) == ["field"]


def test_test_leads_of_meta_are_ignored() -> None:
    assert reasons(facts(FACEBOOK, delivery(notice("444444444444")), {})) == ["test"]
    answer = answered("7", email="test@meta.com", full_name="<test lead: dummy data for full_name>")
    assert reasons(facts(FACEBOOK, delivery(notice("7")), {"7": answer})) == ["test"]


@pytest.mark.parametrize(
    "answer", [None, [], {"error": {"code": 100}}, {"id": "7"}, answered("8"), {"id": "7", "field_data": {}}]
)
def test_an_answer_that_is_not_the_lead_cannot_be_mapped(answer: Any) -> None:
    with pytest.raises(Unmappable):
        facts(FACEBOOK, delivery(notice("7")), {"7": answer})


def test_a_lead_that_was_not_looked_up_cannot_be_mapped() -> None:
    with pytest.raises(Unmappable):
        facts(FACEBOOK, delivery(notice("7")), {})


@pytest.mark.parametrize("lead_id", ["../me", "7?fields=x", "", None, 1.5, True, {}])
def test_only_an_id_is_asked_for(lead_id: Any) -> None:
    body = delivery(notice(lead_id))
    assert adapters()["facebook"].lookups(FACEBOOK.with_body(json.dumps(body).encode())) == ()
    with pytest.raises(Unmappable):
        facts(FACEBOOK, body, {})


def test_an_organic_lead_was_not_paid_for() -> None:
    told = touch(lead(FACEBOOK, delivery(notice("7")), {"7": answered("7", is_organic=True)}))
    assert (told.channel, told.campaign, told.platform) == ("organic_social", "309", "ig")


def test_a_box_is_consent_to_what_its_key_names() -> None:
    boxes = [
        {"checkbox_key": "email_marketing", "is_checked": "1"},
        {"checkbox_key": "sms_offers", "is_checked": ""},
        {"checkbox_key": "whatsapp_terms", "is_checked": "1"},
        {"checkbox_key": "optional_1", "is_checked": "1"},
    ]
    assert lead(FACEBOOK, delivery(notice("7")), {"7": answered("7", *boxes)}).person.consent == {"email": "granted"}


def test_answers_of_meta_find_their_fields() -> None:
    answer = answered(
        "7", email="", work_email="Nora@Acme.com", topics=["a", "b"], utm_source="meta", first_name="Nora", city="Bonn"
    )
    told = lead(FACEBOOK, delivery(notice("7")), {"7": answer})
    assert (told.person.email, told.person.first_name) == ("nora@acme.com", "Nora")
    assert (told.person.attributes, touch(told).utm) == ({"topics": ["a", "b"], "city": "Bonn"}, {"source": "meta"})


# Google Ads


def test_a_google_lead_needs_the_key() -> None:
    odd: list[Any] = [None, "", 1, "wrong", {}, [GOOGLE.secret]]
    for key in odd:
        body = json.dumps(body_of(GOOGLE) | {"google_key": key}).encode()
        assert refused(GOOGLE, replace(GOOGLE.request, raw_body=body))


def test_the_key_is_not_kept() -> None:
    stored = adapters()["google_ads"].stored(GOOGLE.request, [GOOGLE.secret])
    assert GOOGLE.secret.encode() not in stored.raw_body


def test_a_test_lead_of_google_is_ignored() -> None:
    assert reasons(facts(GOOGLE, body_of(GOOGLE) | {"is_test": True})) == ["test"]


def test_ids_of_google_come_as_numbers_or_texts() -> None:
    body = body_of(GOOGLE) | {"campaign_id": "67279508566", "lead_id": 9223372036854775807}
    told = lead(GOOGLE, body)
    assert (told.external_id, told.idempotency_key) == ("9223372036854775807", "google_ads:9223372036854775807")
    assert touch(told).campaign == "67279508566"


def test_a_google_lead_with_little_in_it_is_a_lead() -> None:
    body = {
        "google_key": GOOGLE.secret,
        "user_column_data": [{"column_id": "WORK_EMAIL", "string_value": "A@acme.com"}],
    }
    told = lead(GOOGLE, body)
    assert (told.person.email, told.timed_by, told.external_id) == ("a@acme.com", "receipt", None)


def test_a_google_lead_without_columns_cannot_be_mapped() -> None:
    with pytest.raises(Unmappable):
        facts(GOOGLE, {"google_key": GOOGLE.secret, "lead_id": "x"})


def test_something_odd_beside_the_key_is_no_bad_signature() -> None:
    body = json.dumps(body_of(GOOGLE) | {"note": "\0"}).encode()
    assert not refused(GOOGLE, replace(GOOGLE.request, raw_body=body))


# LinkedIn


@pytest.mark.parametrize("header", [None, "", "ä", "0" * 64, "hmacsha256=" + "0" * 64])
def test_a_header_of_linkedin_that_is_no_signature_is_refused(header: str | None) -> None:
    assert refused(LINKEDIN, LINKEDIN.with_headers(x_li_signature=header))


def test_linkedin_signs_more_than_the_body() -> None:
    bare = hmac.new(LINKEDIN.secret.encode(), LINKEDIN.request.raw_body, hashlib.sha256).hexdigest()
    assert refused(LINKEDIN, LINKEDIN.with_headers(x_li_signature=bare))


def test_nobody_can_have_a_delivery_signed_as_a_challenge() -> None:
    assert shake(LINKEDIN, "challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0&applicationId=1") == 200
    assert shake(LINKEDIN, "challengeCode=hmacsha256%3D%7B%7D") == 403
    assert shake(LINKEDIN, "challengeCode=") == 403
    assert shake(LINKEDIN, "") is None


def test_a_deleted_response_is_an_erasure_and_asks_nothing() -> None:
    body = body_of(LINKEDIN) | {"leadAction": "DELETED"}
    assert adapters()["linkedin"].lookups(LINKEDIN.with_body(json.dumps(body).encode())) == ()
    (fact,) = facts(LINKEDIN, body)
    assert isinstance(fact, ErasureFact)
    assert fact.idempotency_key == f"linkedin:{body['leadGenFormResponse']}:DELETED"
    created = adapters()["linkedin"].facts(LINKEDIN.request, LINKEDIN.settings)[0]
    assert isinstance(created, LeadFact)
    assert fact.person.external_id == created.person.external_id == body["leadGenFormResponse"]


def test_an_erasure_says_whom_it_is_about() -> None:
    (fact,) = facts(LINKEDIN, body_of(LINKEDIN) | {"leadAction": "DELETED"})
    assert told_in_words(fact)["external_id"] == body_of(LINKEDIN)["leadGenFormResponse"]


def test_other_actions_of_linkedin_are_ignored() -> None:
    assert reasons(facts(LINKEDIN, body_of(LINKEDIN) | {"leadAction": "UPDATED"})) == ["lead_action"]
    assert reasons(facts(LINKEDIN, body_of(LINKEDIN) | {"type": "ORGANIZATION_SOCIAL_ACTION"})) == ["type"]


def response(**changes: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(json.dumps(LINKEDIN.told["fetch"]["response"]))
    return {answer["id"]: answer | changes}


def test_answers_that_nothing_is_mapped_from_are_attributes() -> None:
    choice = {"multipleChoiceAnswer": {"options": [3]}}
    form = {"answers": [{"questionId": 5, "answerDetails": choice}]}
    campaign = {"sponsoredLeadMetadata": {"campaign": "urn:li:sponsoredCampaign:8"}}
    told = lead(LINKEDIN, body_of(LINKEDIN), response(formResponse=form, leadMetadata=campaign))
    assert (told.person.attributes, touch(told).campaign) == ({"5": 3}, "urn:li:sponsoredCampaign:8")


def test_a_lead_of_a_page_was_not_paid_for() -> None:
    told = lead(LINKEDIN, body_of(LINKEDIN) | {"leadType": "COMPANY"}, response())
    assert touch(told).channel == "organic_social"


def test_a_test_lead_of_linkedin_is_ignored() -> None:
    assert reasons(facts(LINKEDIN, body_of(LINKEDIN), response(testLead=True))) == ["test"]


@pytest.mark.parametrize("changes", [{"id": "another"}, {"formResponse": None}])
def test_an_answer_that_is_not_the_response_cannot_be_mapped(changes: dict[str, Any]) -> None:
    with pytest.raises(Unmappable):
        facts(LINKEDIN, body_of(LINKEDIN), response(**changes))


def test_linkedin_is_asked_with_a_version() -> None:
    assert adapters()["linkedin"].authorization("x")["linkedin-version"].isdigit()


# TikTok


def signed_by_tiktok(secret: str, seconds: int, stated: int | None = None) -> HookRequest:
    signed = f"{seconds}.".encode() + TIKTOK.request.raw_body
    mac = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return TIKTOK.with_headers(tiktok_signature=f"t={stated or seconds},s={mac}")


def test_tiktoks_signature_goes_before_the_token() -> None:
    now = int(TIKTOK.now.timestamp())
    assert not refused(TIKTOK, signed_by_tiktok(TIKTOK.secret, now))
    assert refused(TIKTOK, signed_by_tiktok("another-secret", now))
    assert refused(TIKTOK, signed_by_tiktok(TIKTOK.secret, now - 301))
    assert refused(TIKTOK, signed_by_tiktok(TIKTOK.secret, now - 301, stated=now))
    for header in ("", "t=,s=", "s=00", "ä"):
        assert refused(TIKTOK, TIKTOK.with_headers(tiktok_signature=header))


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong"])
def test_a_lead_of_tiktok_needs_the_token(query: str) -> None:
    assert refused(TIKTOK, replace(TIKTOK.request, url=TIKTOK.request.url.partition("?")[0] + query))


def test_leads_of_tiktok_are_read_leniently() -> None:
    entry = body_of(TIKTOK)["entry"][0]
    several = {"object": "LEAD", "entry": [entry, entry | {"id": 7}, {"changes": entry["changes"]}]}
    told = facts(TIKTOK, several)
    assert [fact.idempotency_key for fact in told[:2]] == ["tiktok:3660038439145596919", "tiktok:7"]
    assert told[2].timed_by == "receipt"
    assert lead(TIKTOK, {"entry": entry}).person.email == "luca.thornby@example.com"


def test_a_ping_of_tiktoks_developer_platform_creates_nothing() -> None:
    ping = {"client_key": "aw1", "event": "tiktok.ping", "create_time": 1752894700622, "content": "{}"}
    assert reasons(facts(TIKTOK, ping)) == ["test"]
    assert reasons(facts(TIKTOK, ping | {"event": "authorization.removed"})) == ["event_type"]


def test_what_tiktok_sends_beside_leads_is_ignored() -> None:
    assert reasons(facts(TIKTOK, body_of(TIKTOK) | {"object": "AD_REVIEW"})) == ["object"]
    dummy = {"id": "1", "changes": [{"field": "email", "value": "<Test lead: dummy data for email>"}]}
    assert reasons(facts(TIKTOK, {"object": "LEAD", "entry": [dummy]})) == ["test"]
    with pytest.raises(Unmappable):
        facts(TIKTOK, {"object": "LEAD"})
