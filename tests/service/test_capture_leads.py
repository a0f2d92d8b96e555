"""Leads through the API on real PostgreSQL: one person is one lead, whoever calls in which order."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise, permutations
from typing import Any

import orjson
import pytest
import pytest_asyncio

from shared.events import ConsentChanged, IdentityLinked, LeadCaptured, LeadMerged, LeadPersonal, TouchRecorded
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture, ago
from throughline.services import service_code

ANN = "ann@example.com"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def test_a_new_lead_is_201_and_a_known_one_200_with_the_whole_profile(capture: Capture) -> None:
    first = await capture.post(
        "leads", {"email": " Ann@Example.com ", "first_name": "Ann", "consent": {"email": "granted"}}
    )
    again = await capture.post("leads", {"email": ANN, "company": "Acme", "attributes": {"plan": "pro"}})
    assert (first.status_code, again.status_code) == (201, 200)
    profile = again.json()
    assert profile["lead_id"] == first.json()["lead_id"] == capture.harness.runtime.ids.of_email(ANN)
    assert (profile["email"], profile["first_name"], profile["company"]) == (ANN, "Ann", "Acme")
    assert (profile["attributes"], profile["consent"]) == ({"plan": "pro"}, {"email": "granted"})
    assert (await capture.get(f"leads/{profile['lead_id']}")).json() == profile
    listed = (await capture.get("leads", email="ANN@example.com")).json()
    assert listed == {"items": [profile], "next_cursor": None}


async def test_what_is_told_of_a_lead_is_sealed_and_a_whole_snapshot(capture: Capture) -> None:
    await capture.lead(email=ANN, company="Acme")
    await capture.lead(email=ANN, phone="+4915112345678", title="Buyer")
    first, second = await capture.harness.told(LeadCaptured)
    assert (first.revision, second.revision, second.company) == (1, 2, "Acme")
    assert ANN not in second.encode().decode()
    async with capture.harness.runtime.database.reading() as connection:
        opened = await capture.harness.runtime.keys.open_many(connection, [(second.lead_id, second.personal)])
    assert opened[0] is not None
    personal = LeadPersonal.model_validate_json(opened[0])
    assert (personal.email, personal.phone, personal.title) == (ANN, "+4915112345678", "Buyer")
    assert personal.account_reason == f"the email address is at {ANN.partition('@')[2]}"


async def test_what_says_nothing_new_tells_nothing(capture: Capture) -> None:
    for _ in range(2):
        await capture.lead(email=ANN, company="Acme", consent={"email": "granted"}, occurred_at=ago(hours=1))
    assert len(await capture.harness.told(LeadCaptured)) == 1
    assert len(await capture.harness.told(ConsentChanged)) == 1


async def test_the_newest_word_about_a_field_counts_whatever_the_order(capture: Capture) -> None:
    await capture.lead(email=ANN, company="New", occurred_at=ago(hours=1))
    profile = await capture.lead(email=ANN, company="Old", title="Buyer", occurred_at=ago(hours=2))
    assert (profile["company"], profile["title"]) == ("New", "Buyer")
    assert profile["captured_at"].replace("Z", "+00:00") == ago(hours=2)


async def test_an_attribute_of_null_is_taken_back(capture: Capture) -> None:
    await capture.lead(email=ANN, attributes={"plan": "pro", "seats": 5})
    profile = await capture.lead(email=ANN, attributes={"plan": None})
    assert profile["attributes"] == {"seats": 5}


CALLS: tuple[dict[str, Any], ...] = (
    {"email": ANN, "first_name": "Ann"},
    {"external_id": "crm-1", "company": "Acme"},
    {"phone": "+4915112345678", "title": "Buyer"},
)


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_who_survives_a_merge_does_not_depend_on_the_order_of_calls(
    capture: Capture, order: tuple[int, ...]
) -> None:
    for index in order:
        await capture.lead(**CALLS[index])
    profile = await capture.lead(email=ANN, external_id="crm-1", phone="+4915112345678")
    assert profile["lead_id"] == capture.harness.runtime.ids.of_email(ANN)
    assert (profile["first_name"], profile["company"], profile["title"]) == ("Ann", "Acme", "Buyer")
    assert len(profile["lead_ids"]) == 3
    merged = [event for event in await capture.harness.told(LeadMerged) if event.identifier is None]
    assert {event.lead_id for event in merged} == {profile["lead_id"]}
    for lead_id in profile["lead_ids"]:
        assert (await capture.get(f"leads/{lead_id}")).json()["lead_id"] == profile["lead_id"]


async def test_a_phone_alone_never_ties_people_with_different_emails(capture: Capture) -> None:
    ann = await capture.lead(email=ANN, phone="+4915112345678")
    ben = await capture.lead(email="ben@example.com", phone="+4915112345678")
    assert ann["lead_id"] != ben["lead_id"]
    assert await capture.harness.told(LeadMerged) != []  # the phone's own id is Ann's
    assert all(event.identifier == "phone" for event in await capture.harness.told(LeadMerged))
    assert (await capture.lead(phone="+4915112345678"))["lead_id"] == ann["lead_id"]


async def test_a_phone_ties_somebody_without_an_email(capture: Capture) -> None:
    caller = await capture.lead(phone="+4915112345678")
    profile = await capture.lead(email=ANN, phone="+4915112345678")
    assert profile["lead_id"] == caller["lead_id"]
    (alias,) = await capture.harness.told(LeadMerged)
    assert (alias.from_lead_id, alias.lead_id, alias.identifier) == (
        capture.harness.runtime.ids.of_email(ANN),
        caller["lead_id"],
        "email",
    )


async def test_fifty_calls_at_once_make_one_lead(capture: Capture) -> None:
    answers = await asyncio.gather(
        *(capture.post("leads", {"email": ANN, "attributes": {f"a{n}": n}}) for n in range(50))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert len({answer.json()["lead_id"] for answer in answers}) == 1
    profile = (await capture.get("leads", email=ANN)).json()["items"][0]
    assert len(profile["attributes"]) == 50
    assert [event.revision for event in await capture.harness.told(LeadCaptured)] == list(range(1, 51))


async def test_of_many_calls_at_once_one_that_cannot_be_carried_out_fails_alone(capture: Capture) -> None:
    for n in range(4):
        await capture.lead(email=ANN, attributes={f"a{n}": "x" * 65_000})
    too_much = {"email": ANN, "attributes": {"a4": "x" * 65_000}}
    calls = [{"email": f"p{n}@example.com", "touch": {"type": "page_view"}} for n in range(40)]
    answers = await asyncio.gather(*(capture.post("leads", call) for call in [*calls[:20], too_much, *calls[20:]]))
    assert [answer.status_code for answer in answers] == [201] * 20 + [422] + [201] * 20
    assert answers[20].json()["type"] == "urn:throughline:problem:capture:profile-too-large"
    told = await capture.harness.told(TouchRecorded)
    assert sorted(touch.lead_id for touch in told) == sorted(
        answer.json()["lead_id"] for answer in answers if answer.status_code == 201
    )


async def test_fifty_calls_at_once_in_five_spellings_make_one_lead_and_tell_each_change_once(capture: Capture) -> None:
    spellings = (
        {"email": "Ann.Miller@Example.com"},
        {"email": "  ann.miller@example.com "},
        {"email": "ANN.MILLER@EXAMPLE.COM", "phone": "+49 151 12345678"},
        {"email": "ann.miller@example.com", "phone": "0049 151 / 123-456-78".replace("0049", "+49")},
        {"phone": "+4915112345678", "email": "Ann.miller@example.COM", "external_id": "crm-1"},
    )
    calls = [{**spellings[n % 5], "company": f"Company {n % 10}", "occurred_at": ago(hours=n % 10)} for n in range(50)]
    answers = await asyncio.gather(*(capture.post("leads", call) for call in calls))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    assert {answer.json()["lead_id"] for answer in answers} == {
        capture.harness.runtime.ids.of_email("ann.miller@example.com")
    }
    profile = (await capture.get("leads", email="ann.miller@example.com")).json()["items"][0]
    assert (profile["company"], profile["phone"], profile["external_ids"]) == (
        "Company 0",
        "+4915112345678",
        {"api": "crm-1"},
    )
    told = await capture.harness.told(LeadCaptured)
    assert [event.revision for event in told] == list(range(1, len(told) + 1))
    assert profile["revision"] == len(told) <= 25  # each is a change: the newest of ten companies, the first time
    async with capture.harness.runtime.database.reading() as connection:
        opened = await capture.harness.runtime.keys.open_many(connection, [(e.lead_id, e.personal) for e in told])
    seen = [(event.company, event.captured_at, block) for event, block in zip(told, opened, strict=True)]
    assert all(one != other for one, other in pairwise(seen))
    assert (await capture.get("leads")).json()["items"] == [profile]


async def test_each_field_shows_where_it_comes_from_and_what_lost(capture: Capture) -> None:
    ann = await capture.lead(email=ANN, company="Old", title="Buyer", occurred_at=ago(hours=3))
    await capture.lead(external_id="crm-1", company="New", country="DE", occurred_at=ago(hours=2))
    await capture.lead(email=ANN, attributes={"plan": "pro"}, occurred_at=ago(hours=2))
    await capture.lead(email=ANN, external_id="crm-1", occurred_at=ago(hours=1))
    crm_id = capture.harness.runtime.ids.of_external_id("api", "crm-1")
    shown = (await capture.get(f"leads/{crm_id}/fields")).json()
    assert shown["lead_id"] == ann["lead_id"]
    fields = {
        name: {**one, "at": one["at"].replace("Z", "+00:00"), "lost": [old["value"] for old in one["lost"]]}
        for name, one in shown["fields"].items()
    }
    assert fields["company"] == {
        "value": "New",
        "at": ago(hours=2),
        "origin": "api",
        "confidence": None,
        "lead_id": crm_id,
        "rule": "newest",
        "lost": ["Old"],
    }
    assert (fields["title"]["rule"], fields["title"]["lead_id"]) == ("only", ann["lead_id"])
    assert fields["attributes.plan"]["value"] == "pro"
    assert shown["fields"]["company"]["lost"][0]["lead_id"] == ann["lead_id"]
    await capture.post(f"leads/{crm_id}:unmerge", None)
    alone = (await capture.get(f"leads/{ann['lead_id']}/fields")).json()["fields"]
    assert (alone["company"]["value"], alone["company"]["rule"], alone["company"]["lost"]) == ("Old", "only", [])


async def test_calls_that_tie_the_same_people_crosswise_end_in_one_person_each_with_one_parent(
    capture: Capture,
) -> None:
    emails = [f"p{n}@example.com" for n in range(6)]
    await asyncio.gather(*(capture.lead(email=email) for email in emails))
    await asyncio.gather(*(capture.lead(external_id=f"x{n}") for n in range(6)))
    calls = [{"email": emails[n], "external_id": f"x{m % 6}"} for n in range(6) for m in (n, n + 1)]
    answers = await asyncio.gather(*(capture.post("leads", call) for call in calls + calls[::-1]))
    assert {answer.status_code for answer in answers} == {200}
    roots = {(await capture.get("leads", email=email)).json()["items"][0]["lead_id"] for email in emails}
    assert roots == {min(capture.harness.runtime.ids.of_email(email) for email in emails)}
    merged = [event.from_lead_id for event in await capture.harness.told(LeadMerged) if event.identifier is None]
    assert len(merged) == len(set(merged)) == 11


async def test_an_anonymous_visitor_who_tells_who_they_are_is_linked_and_keeps_what_was_known(capture: Capture) -> None:
    visitor = await capture.lead(anonymous_id="browser-1", company="Acme", occurred_at=ago(hours=2))
    answer = await capture.post("leads", {"anonymous_id": "browser-1", "email": ANN, "occurred_at": ago(hours=1)})
    profile = answer.json()
    assert answer.status_code == 201
    assert (profile["lead_id"], profile["company"]) == (capture.harness.runtime.ids.of_email(ANN), "Acme")
    (link,) = await capture.harness.told(IdentityLinked)
    assert (link.anonymous_lead_id, link.lead_id) == (visitor["lead_id"], profile["lead_id"])
    assert (await capture.get(f"leads/{visitor['lead_id']}")).json()["lead_id"] == profile["lead_id"]


async def test_a_shared_browser_melts_nobody(capture: Capture) -> None:
    ann = await capture.lead(email=ANN, anonymous_id="browser-1", occurred_at=ago(hours=3))
    ben = await capture.lead(email="ben@example.com", anonymous_id="browser-1", occurred_at=ago(hours=1))
    assert ann["lead_id"] != ben["lead_id"]
    assert (await capture.lead(anonymous_id="browser-1", use_case="a", occurred_at=ago(hours=2)))["email"] == ANN
    assert (await capture.lead(anonymous_id="browser-1", use_case="b"))["email"] == "ben@example.com"
    assert await capture.harness.told(LeadMerged) == []


async def test_a_merge_can_be_undone_and_is_not_done_again_by_the_same_call(capture: Capture) -> None:
    ann = await capture.lead(email=ANN, company="Acme")
    await capture.lead(external_id="crm-1", company="Globex", title="Buyer")
    tie = {"email": ANN, "external_id": "crm-1"}
    await capture.lead(**tie)
    crm_id = capture.harness.runtime.ids.of_external_id("api", "crm-1")
    undone = await capture.post(f"leads/{crm_id}:unmerge", None)
    assert undone.status_code == 200
    assert (undone.json()["lead_id"], undone.json()["company"], undone.json()["title"]) == (crm_id, "Globex", "Buyer")
    alone = (await capture.get(f"leads/{ann['lead_id']}")).json()
    assert (alone["company"], alone["title"], alone["lead_ids"]) == ("Acme", None, [ann["lead_id"]])
    assert (await capture.lead(**tie))["lead_ids"] == [ann["lead_id"]]
    assert (await capture.post(f"leads/{crm_id}:unmerge", None)).status_code == 409
    by_hand = await capture.post(f"leads/{crm_id}:merge", {"with": ann["lead_id"], "into": crm_id})
    assert (by_hand.status_code, by_hand.json()["lead_id"]) == (200, crm_id)
    assert (await capture.post(f"leads/{crm_id}:merge", {"with": ann["lead_id"]})).status_code == 409


async def test_a_touch_in_the_call_belongs_to_the_lead_and_a_retry_is_one_touch(capture: Capture) -> None:
    body = {
        "email": ANN,
        "anonymous_id": "browser-1",
        "touch": {"type": "demo_requested", "url": "https://a.test/d?utm_source=x&e=1"},
    }
    first = await capture.post("leads", body, idempotency_key="k-1")
    again = await capture.post("leads", body, idempotency_key="k-1")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    (touch,) = await capture.harness.told(TouchRecorded)
    assert (touch.lead_id, touch.type, touch.source, touch.page) == (
        first.json()["lead_id"],
        "demo_requested",
        "x",
        "https://a.test/d",
    )
    other = await capture.post("leads", {**body, "email": "ben@example.com"}, idempotency_key="k-1")
    assert other.status_code == 422
    assert other.json()["type"] == "urn:throughline:problem:idempotency-key-reused"


async def test_the_ledger_keeps_every_word_about_consent(capture: Capture) -> None:
    lead = await capture.lead(email=ANN, consent={"email": "granted"}, occurred_at=ago(hours=3))
    await capture.lead(email=ANN, consent={"email": "denied", "sms": "granted"}, occurred_at=ago(hours=1))
    await capture.lead(email=ANN, consent={"email": "granted"}, occurred_at=ago(hours=2))
    ledger = (await capture.get(f"leads/{lead['lead_id']}/consent")).json()
    assert ledger["consent"] == {"email": "denied", "sms": "granted"}
    assert [entry["state"] for entry in ledger["entries"] if entry["channel"] == "email"] == [
        "denied",
        "granted",
        "granted",
    ]


async def test_leads_are_listed_newest_first_page_by_page(capture: Capture) -> None:
    made = [(await capture.lead(email=f"p{n}@example.com"))["lead_id"] for n in range(5)]
    found, cursor = [], None
    while True:
        page = (await capture.get("leads", limit="2", **({"cursor": cursor} if cursor else {}))).json()
        found += [item["lead_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]
    assert (await capture.get("leads", cursor="nonsense")).status_code == 400


async def test_an_unknown_lead_is_404_with_a_problem(capture: Capture) -> None:
    for path in ("leads/00000000-0000-8000-8000-000000000000", "leads/x", "leads/x/consent"):
        response = await capture.get(path)
        assert response.status_code == 404
        assert response.json()["type"] == "urn:throughline:problem:capture:no-such-lead"


async def test_an_older_database_gets_back_what_kafka_remembers(capture: Capture) -> None:
    ann = await capture.lead(email=ANN, phone="+4915112345678", company="Acme", attributes={"plan": "pro"})
    await capture.lead(external_id="crm-1", title="Buyer")
    await capture.lead(email=ANN, external_id="crm-1", anonymous_id="browser-1", consent={"email": "granted"})
    before = (await capture.get(f"leads/{ann['lead_id']}")).json()
    told = [
        event
        for kind in (LeadCaptured, LeadMerged, IdentityLinked, ConsentChanged)
        for event in await capture.harness.told(kind)
    ]
    async with capture.harness.runtime.database.reading() as connection:
        await connection.execute("TRUNCATE leads, identifiers, links, consent_entries")
    await capture.harness.deliver(*told)
    after = (await capture.get(f"leads/{ann['lead_id']}")).json()
    same = (
        "lead_id",
        "email",
        "phone",
        "company",
        "title",
        "attributes",
        "external_ids",
        "consent",
        "lead_ids",
        "revision",
    )
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (await capture.lead(external_id="crm-1"))["lead_id"] == ann["lead_id"]
    assert (await capture.lead(phone="+4915112345678"))["lead_id"] == ann["lead_id"]
    assert await capture.harness.parked() == []
    assert orjson.dumps(after)
    assert LeadId(after["lead_id"])
