"""Hosted forms through the API on real PostgreSQL: what people send, once, with proof, and what machines send."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from shared.events import ConsentChanged, IdentityLinked, LeadCaptured, LeadMerged, TouchRecorded
from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.capture_world import Capture
from tests.service.forms_world import ACME, ANN, FORM, Forms, carried, proof_for
from throughline.services import service_code


@pytest_asyncio.fixture
async def forms(settings: Settings) -> AsyncIterator[Forms]:
    clock = FrozenClock(datetime.now(UTC))
    async with harness(service_code("capture"), settings, clock=clock) as made:
        yield Forms(Capture(made), clock)


async def test_a_form_is_saved_in_versions_and_listed(forms: Forms) -> None:
    form_id = await forms.made()
    client = forms.client
    saved = await client.put(f"/v1/forms/{form_id}", json={**FORM, "name": "Contact us"})
    assert (saved.status_code, saved.json()["version"], saved.json()["document"]["name"]) == (200, 2, "Contact us")
    assert (await client.get(f"/v1/forms/{form_id}")).json() == saved.json()
    assert [item["form_id"] for item in (await forms.capture.get("forms")).json()["items"]] == [form_id]
    assert (await client.put("/v1/forms/00000000-0000-4000-8000-000000000000", json=FORM)).status_code == 404
    again = [await forms.capture.post("forms", FORM, idempotency_key="k1") for _ in range(2)]
    assert again[0].json()["form_id"] == again[1].json()["form_id"]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"fields": []}, "/fields"),
        ({"fields": [{"id": "company", "label": "Company"}]}, "/fields"),
        ({"fields": [{"id": "email", "type": "email"}]}, "/fields/0/label"),
        ({"fields": [{"id": "email", "type": "text", "label": "E"}]}, "/fields/0/type"),
        ({"fields": [{"id": "1", "type": "email", "label": "E"}]}, "/fields/0/id"),
        ({"fields": [FORM["fields"][0], FORM["fields"][0]]}, "/fields/1/id"),
        ({"fields": [FORM["fields"][0], {"id": "a", "label": "A", "pattern": "("}]}, "/fields/1/pattern"),
        ({"fields": [FORM["fields"][0], {"id": "a", "label": "A", "pattern": "(?=x)"}]}, "/fields/1/pattern"),
        ({"fields": [FORM["fields"][0], {"id": "a", "label": "A", "type": "select"}]}, "/fields/1/options"),
        ({"fields": [FORM["fields"][0], {"id": "a", "label": "A", "maps_to": "score"}]}, "/fields/1/maps_to"),
        ({"fields": [FORM["fields"][0], {"id": "a", "label": {"de": "A"}}]}, "/fields/1/label"),
        ({"consents": [{"id": "news", "text": "x", "channel": "fax"}]}, "/consents/0/channel"),
        ({"consents": [{"id": "email", "text": "x"}]}, "/consents/0/id"),
        ({"consents": [{"id": "news", "text": "x", "purpose": "all"}]}, "/consents/0/purpose"),
        ({"consents": [], "double_opt_in": True}, "/double_opt_in"),
        ({"redirect": "https://evil.example/"}, "/redirect"),
        ({"redirect": "javascript:alert(1)"}, "/redirect"),
        ({"redirect": "https://www.acme.com@evil.example/"}, "/redirect"),
        ({"redirect": "https://www.acme.com/;script-src *"}, "/redirect"),
        ({"origins": ["acme.com; script-src *"]}, "/origins/0"),
        ({"theme": {"accent": "red;}"}}, "/theme/accent"),
        ({"spam": True}, "/spam"),
    ],
)
async def test_a_form_that_cannot_work_is_refused_with_its_faults(
    forms: Forms, changes: dict[str, Any], pointer: str
) -> None:
    answer = await forms.capture.post("forms", {**FORM, **changes})
    assert answer.status_code == 422
    assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


async def test_the_page_is_plain_html_that_nothing_can_be_added_to(forms: Forms) -> None:
    form_id = await forms.made()
    page = await forms.client.get(f"/f/{form_id}")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith(f"frame-ancestors {ACME}")
    assert "unsafe" not in policy
    assert '<label for="email">Work email</label>' in page.text
    assert 'type="email"' in page.text
    assert 'autocomplete="email"' in page.text
    assert 'type="tel"' in page.text
    assert not re.search(r'(src|href)="(?!#)', page.text)
    german = await forms.client.get(f"/f/{form_id}", headers={"accept-language": "fr;q=0.3,de-AT;q=0.9"})
    assert "Sprechen Sie mit uns" in german.text
    assert '<html lang="de">' in german.text


async def test_what_somebody_sends_is_a_lead_a_touch_and_consent_with_its_proof(forms: Forms) -> None:
    form_id = await forms.made()
    fields = await forms.opened(form_id, "?lang=de", **{"user-agent": "Firefox"})
    fields |= {
        "_url": f"{ACME}/pricing?utm_source=news",
        "_visitor": "0123456789abcdef",
        "_referrer": "https://x.example/",
    }
    fields |= {"email": " Ann@Example.com", "first_name": "Ann", "phone": "0151 12345678", "zip": "12345", "news": "on"}
    answer = await forms.sent(form_id, fields, **{"x-forwarded-for": "8.8.4.77", "user-agent": "Firefox"})
    assert answer.status_code == 303
    thanks = await forms.client.get(f"/f/{answer.headers['location']}")
    assert "Vielen Dank" in thanks.text
    lead = await forms.lead()
    assert lead is not None
    assert (lead["first_name"], lead["phone"]) == ("Ann", "+4915112345678")
    assert lead["attributes"] == {"postcode": "12345", "campaign": "spring"}
    (touch,) = await forms.capture.harness.told(TouchRecorded)
    assert (touch.type, touch.source, touch.page, touch.origin) == (
        "form_submitted",
        "news",
        f"{ACME}/pricing",
        form_id,
    )
    (link,) = await forms.capture.harness.told(IdentityLinked)
    assert link.anonymous_lead_id == forms.capture.harness.runtime.ids.of_anonymous_id("0123456789abcdef")
    consent = (await forms.capture.get(f"leads/{lead['lead_id']}/consent")).json()
    (entry,) = consent["entries"]
    assert (entry["purpose"], entry["state"]) == ("newsletter", "granted")
    proof = entry["evidence"]
    assert (proof["text"], proof["text_version"], proof["form_id"]) == ("Schickt mir Neues.", "1", form_id)
    assert (proof["ip"], proof["user_agent"]) == ("8.8.4.0", "Firefox")
    assert proof["url"] == f"{ACME}/pricing?utm_source=news"


async def test_a_box_left_empty_says_nothing(forms: Forms) -> None:
    form_id = await forms.made()
    assert (await forms.filled(form_id, email=ANN)).status_code == 303
    assert await forms.capture.harness.told(ConsentChanged) == []


async def test_what_is_wrong_is_said_in_place_and_what_was_typed_is_kept(forms: Forms) -> None:
    form_id = await forms.made()
    fields = await forms.opened(form_id)
    wrong = {**fields, "email": "nonsense", "first_name": '"><script>alert(1)</script>', "zip": "12", "size": "xl"}
    page = await forms.sent(form_id, wrong)
    assert page.status_code == 422
    for name in ("email", "zip", "size"):
        assert f'id="{name}-fault"' in page.text
        assert f'href="#{name}"' in page.text
    assert 'value="nonsense"' in page.text
    assert "<script>alert" not in page.text
    assert carried(page.text)["_token"] == fields["_token"]
    assert await forms.capture.harness.told(LeadCaptured) == []
    assert (await forms.sent(form_id, {**wrong, "email": ANN, "zip": "", "size": "s"})).status_code == 303


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({"email": ""}, {"email"}),
        ({"email": "a@b"}, {"email"}),
        ({"email": ANN, "phone": "call me"}, {"phone"}),
        ({"email": ANN, "first_name": "x" * 501}, {"first_name"}),
        ({"email": ANN, "first_name": "a\x00b"}, {"first_name"}),
        ({"email": ANN, "zip": "12345\n"}, set()),
        ({"email": ANN, "zip": "１２３４５"}, {"zip"}),
        ({"email": ANN, "nonsense": "x"}, set()),
        ({"email": ANN, "campaign": "mine"}, set()),
        ({"email": [ANN, "b@example.com"]}, set()),
    ],
)
async def test_each_answer_is_checked(forms: Forms, answers: dict[str, Any], wrong: set[str]) -> None:
    form_id = await forms.made()
    page = await forms.filled(form_id, **answers)
    assert set(re.findall(r'id="(\w+)-fault"', page.text)) == wrong
    lead = await forms.lead()
    assert (lead is None) == bool(wrong)
    if lead:
        assert lead["attributes"]["campaign"] == "spring"


async def test_one_form_sent_ten_times_at_once_is_one_touch(forms: Forms) -> None:
    form_id = await forms.made()
    fields = {**await forms.opened(form_id), "email": ANN, "news": "on"}
    answers = await asyncio.gather(*(forms.sent(form_id, fields) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {303}
    assert len({touch.event_id for touch in await forms.capture.harness.told(TouchRecorded)}) == 1
    assert len(await forms.capture.harness.told(LeadCaptured)) == 1
    (submission,) = await forms.submissions(form_id)
    assert (submission["state"], submission["lead_id"]) == ("accepted", (await forms.lead() or {})["lead_id"])


async def test_back_and_send_again_is_the_same_touch_with_the_answers_corrected(forms: Forms) -> None:
    form_id = await forms.made()
    fields = {**await forms.opened(form_id), "email": ANN, "first_name": "An"}
    await forms.sent(form_id, fields)
    forms.clock.move(timedelta(seconds=5))
    await forms.sent(form_id, {**fields, "first_name": "Ann"})
    await forms.sent(form_id, {**await forms.opened(form_id), "email": ANN, "first_name": "Ann"})  # opened anew
    assert (await forms.lead() or {})["first_name"] == "Ann"
    assert len({touch.touch_id for touch in await forms.capture.harness.told(TouchRecorded)}) == 1


async def test_one_token_does_not_serve_a_flood(forms: Forms) -> None:
    form_id = await forms.made()
    fields = await forms.opened(form_id)
    for number in range(6):
        assert (await forms.sent(form_id, {**fields, "email": f"p{number}@example.com"})).status_code == 303
    spam = await forms.submissions(form_id, state="spam")
    assert {tuple(item["reasons"]) for item in spam} == {
        ("sent_too_often",),
        ("too_many_without_proof", "sent_too_often"),
    }


async def test_what_a_machine_sends_is_kept_for_a_review_and_never_told(forms: Forms) -> None:
    form_id = await forms.made()
    trapped = await forms.filled(form_id, email="a@example.com", homepage="https://spam.example")
    fields = await forms.opened(form_id)
    forms.clock.move(timedelta(seconds=-9))
    fast = await forms.sent(form_id, {**fields, "email": "b@example.com"})
    forged = await forms.sent(form_id, {"email": "c@example.com", "_token": "AAAA"})
    wrong = await forms.filled(form_id, email="d@example.com", _proof="0")
    people = await forms.filled(form_id, email=ANN)
    assert (
        len({(answer.status_code, answer.headers["location"]) for answer in (trapped, fast, forged, wrong, people)})
        == 1
    )
    reasons = [item["reasons"] for item in reversed(await forms.submissions(form_id, state="spam"))]
    assert sorted(reasons) == [["never_shown"], ["too_fast"], ["trap_filled_in"], ["wrong_proof"]]
    assert len(await forms.capture.harness.told(LeadCaptured)) == 1
    rows = await forms.capture.rows("SELECT form_submissions::text AS row FROM form_submissions")
    assert not [row for row in rows if "example" in row["row"]]


async def test_a_form_with_proof_may_be_sent_sooner_and_more_often(forms: Forms) -> None:
    form_id = await forms.made()
    for number in range(8):
        fields = await forms.opened(form_id)
        forms.clock.move(timedelta(seconds=-7))
        fields |= {"email": f"p{number}@example.com", "_proof": proof_for(fields["_token"])}
        await forms.sent(form_id, fields)
    assert {item["state"] for item in await forms.submissions(form_id)} == {"accepted"}
    for number in range(6):
        await forms.filled(form_id, email=f"q{number}@example.com")
    spam = await forms.submissions(form_id, state="spam")
    assert [item["reasons"] for item in spam] == [["too_many_without_proof"]]


async def test_a_review_releases_or_discards_and_says_who(forms: Forms) -> None:
    form_id = await forms.made()
    for email in (ANN, "bot@example.com"):
        await forms.filled(form_id, email=email, first_name="Ann", homepage="x", news="on")
    came = forms.clock.now()
    bot, ann = await forms.submissions(form_id, state="spam")
    path = f"/v1/forms/{form_id}/submissions"
    shown = (await forms.client.get(f"{path}/{ann['submission_id']}")).json()
    assert shown["values"]["email"] == [ANN]
    forms.clock.move(timedelta(days=1))
    released = [await forms.client.post(f"{path}/{ann['submission_id']}:release") for _ in range(2)]
    assert [answer.status_code for answer in released] == [204, 404]
    lead = await forms.lead()
    assert lead is not None
    (touch,) = await forms.capture.harness.told(TouchRecorded)
    assert touch.occurred_at <= came
    assert len(await forms.capture.harness.told(ConsentChanged)) == 1
    gone = await forms.client.post(f"{path}/{bot['submission_id']}:discard", json={"reason": "a robot"})
    assert gone.status_code == 204
    assert (await forms.client.get(f"{path}/{bot['submission_id']}")).json()["values"] is None
    audit = await forms.capture.rows("SELECT action, detail FROM audit_entries ORDER BY id")
    assert [entry["action"] for entry in audit] == ["submission.released", "submission.discarded"]


async def test_a_page_that_was_open_for_days_is_sent_again_with_its_answers(forms: Forms) -> None:
    form_id = await forms.made()
    fields = {**await forms.opened(form_id), "email": ANN}
    forms.clock.move(timedelta(days=2))
    page = await forms.sent(form_id, fields)
    assert page.status_code == 422
    assert f'value="{ANN}"' in page.text
    assert await forms.lead() is None
    forms.clock.move(timedelta(seconds=10))
    assert (await forms.sent(form_id, {**fields, **carried(page.text)})).status_code == 303
    assert await forms.lead() is not None


async def test_what_people_have_open_is_taken_as_they_saw_it(forms: Forms) -> None:
    form_id = await forms.made()
    fields = {**await forms.opened(form_id), "email": ANN, "news": "on"}
    added = {"id": "budget", "label": "Budget", "required": True}
    changed = {**FORM, "fields": [*FORM["fields"], added], "consents": [{"id": "news", "text": "All sorts of mail."}]}
    assert (await forms.client.put(f"/v1/forms/{form_id}", json=changed)).status_code == 200
    assert (await forms.sent(form_id, fields)).status_code == 303
    lead = await forms.lead()
    assert lead is not None
    (entry,) = (await forms.capture.get(f"leads/{lead['lead_id']}/consent")).json()["entries"]
    assert (entry["purpose"], entry["evidence"]["text"], entry["evidence"]["text_version"]) == (
        "newsletter",
        "Send me news.",
        "1",
    )


async def test_multipart_and_json_are_taken_as_well(forms: Forms) -> None:
    form_id = await forms.made()
    fields = {**await forms.opened(form_id), "email": ANN}
    parts = {name: (None, value) for name, value in fields.items()}
    assert (await forms.client.post(f"/f/{form_id}", files=parts)).status_code == 303
    client, headers = forms.client, {"accept": "application/json", "origin": ACME}
    opened = await client.get(f"/f/{form_id}", headers=headers)
    assert opened.headers["access-control-allow-origin"] == ACME
    forms.clock.move(timedelta(seconds=3))
    token = opened.json()["token"]
    body = {"email": "ben@example.com", "news": True, "_token": token, "_proof": int(proof_for(token))}
    bad = await client.post(f"/f/{form_id}", json={**body, "email": "x", "zip": "1"}, headers=headers)
    assert [fault["pointer"] for fault in bad.json()["errors"]] == ["/email", "/zip"]
    good = await client.post(f"/f/{form_id}", json=body, headers=headers)
    assert (good.status_code, good.json()["title"], good.json()["confirmation_sent"]) == (200, "Thank you", False)
    assert good.headers["access-control-allow-origin"] == ACME
    assert await forms.lead("ben@example.com") is not None
    assert {item["state"] for item in await forms.submissions(form_id)} == {"accepted"}


async def test_a_number_in_json_keeps_all_its_digits(forms: Forms) -> None:
    budget = {"id": "budget", "type": "number", "label": "Budget"}
    form_id = await forms.made(fields=[*FORM["fields"], budget])
    token = (await forms.client.get(f"/f/{form_id}", headers={"accept": "application/json"})).json()["token"]
    forms.clock.move(timedelta(seconds=3))
    body = {"email": ANN, "budget": 1_234_567.0, "_token": token, "_proof": int(proof_for(token))}
    assert (await forms.client.post(f"/f/{form_id}", json=body)).status_code == 200
    assert (await forms.lead(ANN) or {})["attributes"]["budget"] == 1_234_567


async def test_a_redirect_leads_where_the_form_says_and_nowhere_else(forms: Forms) -> None:
    form_id = await forms.made(redirect=f"{ACME}/thanks?x=1")
    answer = await forms.filled(form_id, email=ANN, _redirect="https://evil.example", redirect="https://evil.example")
    assert answer.headers["location"] == f"{ACME}/thanks?x=1"
    embedded = await forms.filled(form_id, email="ben@example.com", _embed="1")
    page = await forms.client.get(f"/f/{embedded.headers['location']}")
    assert f'data-redirect="{ACME}/thanks?x=1"' in page.text


async def test_a_stranger_can_tie_nobody_by_a_form(forms: Forms) -> None:
    form_id = await forms.made()
    await forms.capture.lead(phone="+4915112345678", first_name="Ben")
    await forms.filled(form_id, email="eve@example.com", phone="+4915112345678")
    assert [fact for fact in await forms.capture.harness.told(LeadMerged) if fact.identifier is None] == []
    (ben,) = (await forms.capture.get("leads", phone="+4915112345678")).json()["items"]
    assert (ben["first_name"], ben["email"]) == ("Ben", None)
    await forms.filled(form_id, email=ANN, phone="+4915187654321")
    (ann,) = (await forms.capture.get("leads", phone="+4915187654321")).json()["items"]
    assert ann["email"] == ANN
