"""The consent ledger: every word by channel and purpose with what proves it, and what it comes to at any instant."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.events import ConsentChanged, ConsentEvidence, ConsentRequested
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture, ago
from throughline.services import service_code

ANN = "ann@example.com"
EVIDENCE = {
    "method": "double_opt_in",
    "text": "Yes, send me the Canarynews.",
    "text_version": "2026-03",
    "form_id": "footer",
    "url": "https://acme.example/canarypage",
    "ip": "203.0.113.77",
    "user_agent": "Canarybrowser/1.0",
}


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


def said(state: str, **more: Any) -> dict[str, Any]:
    return {"channel": "email", "state": state, **more}


async def allowed(capture: Capture, lead_id: str, purpose: str = "marketing", **when: str) -> tuple[bool, str | None]:
    answer = await capture.get(f"leads/{lead_id}/consent", channel="email", purpose=purpose, **when)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["permissions"]
    return found["allowed"], found["state"]


async def test_a_word_is_kept_with_its_purpose_and_with_evidence_that_only_the_persons_key_opens(
    capture: Capture,
) -> None:
    lead = await capture.lead(email=ANN)
    word = said("granted", purpose="newsletter", occurred_at=ago(hours=1), evidence=EVIDENCE)
    answer = await capture.post(f"leads/{lead['lead_id']}/consent", {"entries": [word]})
    assert answer.status_code == 201
    (entry,) = answer.json()["entries"]
    assert (entry["purpose"], entry["state"], entry["origin"]) == ("newsletter", "granted", "api")
    assert {name: entry["evidence"][name] for name in EVIDENCE} == EVIDENCE
    (fact,) = await capture.harness.told(ConsentChanged)
    assert fact.purpose == "newsletter" and b"anary" not in fact.encode() and b"203.0.113" not in fact.encode()
    async with capture.harness.runtime.database.reading() as connection:
        (opened,) = await capture.harness.runtime.keys.open_many(connection, [(fact.lead_id, fact.personal)])
    assert opened is not None
    assert ConsentEvidence.model_validate_json(opened).text == EVIDENCE["text"]
    (row,) = await capture.rows("SELECT * FROM consent_entries")
    assert "anary" not in str(row)
    assert await allowed(capture, lead["lead_id"], "newsletter") == (True, "granted")
    assert await allowed(capture, lead["lead_id"]) == (False, None)
    assert answer.json()["consent"] == {}


async def test_a_lead_may_bring_words_by_purpose_beside_the_short_form(capture: Capture) -> None:
    lead = await capture.lead(
        email=ANN,
        consent={"sms": "granted"},
        consents=[said("granted", evidence=EVIDENCE), {"channel": "whatsapp", "state": "pending"}],
    )
    assert lead["consent"] == {"email": "granted", "sms": "granted", "whatsapp": "pending"}
    assert len(await capture.harness.told(ConsentChanged)) == 2
    assert len(await capture.harness.told(ConsentRequested)) == 1


async def test_the_same_word_twice_is_one_fact_also_at_once_and_one_alone_needs_no_list(capture: Capture) -> None:
    lead = await capture.lead(email=ANN)
    word = said("granted", occurred_at=ago(hours=1))
    path = f"leads/{lead['lead_id']}/consent"
    answers = await asyncio.gather(*(capture.post(path, word) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len(await capture.harness.told(ConsentChanged)) == 1
    again = await capture.post(path, {"entries": [{**word, "evidence": EVIDENCE}]}, idempotency_key="k")
    assert again.status_code == 200
    assert (await capture.post(path, {"entries": [{**word, "evidence": EVIDENCE}]}, idempotency_key="k")).json() == (
        again.json()
    )
    assert len(again.json()["entries"]) == 1


async def test_double_opt_in_is_no_until_it_is_confirmed(capture: Capture) -> None:
    lead = await capture.lead(email=ANN, consent={"email": "pending"}, occurred_at=ago(hours=3))
    assert lead["consent"] == {"email": "pending"}
    assert await allowed(capture, lead["lead_id"]) == (False, "pending")
    await capture.post(f"leads/{lead['lead_id']}/consent", said("granted", occurred_at=ago(hours=2)))
    await capture.lead(email=ANN, consent={"email": "pending"}, occurred_at=ago(hours=1))
    assert await allowed(capture, lead["lead_id"]) == (True, "granted")


async def test_the_ledger_answers_as_of_any_instant_by_the_clock_of_the_source(capture: Capture) -> None:
    lead = await capture.lead(email=ANN, consent={"email": "denied"}, occurred_at=ago(hours=2))
    lead_id = lead["lead_id"]
    await capture.lead(email=ANN, consent={"email": "granted"}, occurred_at=ago(hours=4))
    await capture.lead(email=ANN, consent={"email": "granted"}, occurred_at=ago(hours=1))
    expected = {
        5: (False, None),
        4: (True, "granted"),
        3: (True, "granted"),
        2: (False, "denied"),
        1: (True, "granted"),
    }
    for hours, what in expected.items():
        assert await allowed(capture, lead_id, as_of=ago(hours=hours)) == what
    then = (await capture.get(f"leads/{lead_id}/consent", as_of=ago(hours=3))).json()
    assert (then["consent"], len(then["entries"])) == ({"email": "granted"}, 1)
    unheard = (await capture.get(f"leads/{lead_id}/consent", known_at=ago(minutes=1))).json()
    assert (unheard["consent"], unheard["entries"]) == ({}, [])


async def test_after_a_merge_all_words_of_the_person_count_and_after_its_undoing_each_leads_own(
    capture: Capture,
) -> None:
    ann = await capture.lead(email=ANN, consent={"email": "granted"}, occurred_at=ago(hours=4))
    ben = await capture.lead(email="ben@example.com", consent={"email": "denied"}, occurred_at=ago(hours=2))
    await capture.post(f"leads/{ann['lead_id']}:merge", {"with": ben["lead_id"]})
    for lead_id in (ann["lead_id"], ben["lead_id"]):
        assert await allowed(capture, lead_id) == (False, "denied")
        assert await allowed(capture, lead_id, as_of=ago(hours=3)) == (True, "granted")
        assert await allowed(capture, lead_id, as_of=ago(hours=5)) == (False, None)
    survivor = (await capture.get(f"leads/{ann['lead_id']}")).json()["lead_id"]
    (gone,) = {ann["lead_id"], ben["lead_id"]} - {survivor}
    await capture.post(f"leads/{gone}/consent", said("granted", occurred_at=ago(hours=1), purpose="events"))
    await capture.post(f"leads/{gone}:unmerge", None)
    assert await allowed(capture, ann["lead_id"]) == (True, "granted")
    assert await allowed(capture, ben["lead_id"]) == (False, "denied")
    assert (await capture.get(f"leads/{gone}/consent")).json()["entries"][0]["purpose"] == "events"
    assert len((await capture.get(f"leads/{survivor}/consent")).json()["entries"]) == 1


async def test_other_systems_read_every_change_once_in_the_order_of_the_ledger(capture: Capture) -> None:
    for index in range(7):
        await capture.lead(email=f"p{index}@example.com", consent={"email": "granted"}, occurred_at=ago(hours=index))
    gone = await capture.lead(email="gone@example.com", consent={"email": "granted"})
    await capture.post(f"leads/{gone['lead_id']}:erase", None)
    read: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await capture.get("consent", changed_since=ago(days=1), limit="3", **cursor)).json()
        read += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(read) == len({item["event_id"] for item in read}) == 7
    assert [item["recorded_at"] for item in read] == sorted(item["recorded_at"] for item in read)
    assert gone["lead_id"] not in {item["person_id"] for item in read}
    rest = (await capture.get("consent", changed_since=page["complete_until"])).json()
    assert rest["items"] == []
    await capture.lead(email="p1@example.com", consent={"email": "denied"})
    (late,) = (await capture.get("consent", changed_since=page["complete_until"])).json()["items"]
    assert late["state"] == "denied"


async def test_a_change_that_is_not_committed_yet_holds_the_reader_back_so_that_it_is_not_missed(
    capture: Capture,
) -> None:
    lead = await capture.lead(email=ANN)
    statement = """
    INSERT INTO consent_entries (event_id, lead_id, channel, state, occurred_at, received_at, origin)
    VALUES ('slow', $1, 'email', 'granted', now(), now(), 'api')
    """
    connection = await capture.harness.runtime.database.connect()
    try:
        async with connection.transaction():
            await connection.execute(statement, lead["lead_id"])
            await capture.lead(email="ben@example.com", consent={"email": "granted"})
            page = (await capture.get("consent")).json()
            assert page["items"] == []
    finally:
        await connection.close()
    items = (await capture.get("consent", changed_since=page["complete_until"])).json()["items"]
    assert {item["event_id"] for item in items} >= {"slow"} and len(items) == 2


async def test_an_erased_persons_words_can_be_counted_and_no_longer_proven(capture: Capture) -> None:
    lead = await capture.lead(email=ANN, consents=[said("granted", evidence=EVIDENCE)])
    await capture.post(f"leads/{lead['lead_id']}:erase", None)
    (row,) = await capture.rows("SELECT channel, purpose, state, evidence, reason FROM consent_entries")
    assert tuple(row.values()) == ("email", "marketing", "granted", None, None)
    assert (await capture.get(f"leads/{lead['lead_id']}/consent")).status_code == 410
    assert (await capture.post(f"leads/{lead['lead_id']}/consent", said("granted"))).status_code == 410


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({}, "/entries"),
    ({"entries": []}, "/entries"),
    ({"entries": [said("granted")] * 101}, "/entries"),
    (said("maybe"), "/state"),
    ({"channel": "fax", "state": "granted"}, "/channel"),
    (said("granted", purpose="Big News"), "/purpose"),
    (said("granted", purpose="all"), ""),
    ({"entries": [said("granted"), said("maybe")]}, "/entries/1/state"),
    (said("pending", purpose="all"), ""),
    (said("granted", occurred_at="2999-01-01T00:00:00Z"), "/occurred_at"),
    (said("granted", occurred_at="2020-01-01T00:00:00"), "/occurred_at"),
    (said("granted", evidence={}), "/evidence/method"),
    (said("granted", evidence={"method": "magic"}), "/evidence/method"),
    (said("granted", evidence={"method": "form", "ip": "x" * 46}), "/evidence/ip"),
    (said("granted", evidence={"method": "form", "text": "a\x00b"}), "/evidence/text"),
    (said("granted", evidence={"method": "form", "colour": "red"}), "/evidence/colour"),
)


@pytest.mark.parametrize(("body", "pointer"), BAD)
async def test_what_cannot_be_a_word_about_consent_is_named(
    capture: Capture, body: dict[str, Any], pointer: str
) -> None:
    lead = await capture.lead(email=ANN)
    answer = await capture.post(f"leads/{lead['lead_id']}/consent", body)
    assert answer.status_code in (400, 422), answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert await capture.rows("SELECT 1 FROM consent_entries") == []


@pytest.mark.parametrize(
    "query",
    [
        {"as_of": "yesterday"},
        {"as_of": "2020-01-01T00:00:00"},
        {"purpose": "Big News"},
        {"channel": "fax"},
        {"known_at": "x"},
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused(capture: Capture, query: dict[str, str]) -> None:
    lead = await capture.lead(email=ANN)
    assert (await capture.get(f"leads/{lead['lead_id']}/consent", **query)).status_code == 422


async def test_consent_of_nobody_is_404(capture: Capture) -> None:
    for lead_id in ("00000000-0000-8000-8000-000000000000", "x"):
        assert (await capture.post(f"leads/{lead_id}/consent", said("granted"))).status_code == 404
        assert (await capture.get(f"leads/{lead_id}/consent")).status_code == 404


async def test_a_webhook_word_says_which_delivery_proves_it(capture: Capture) -> None:
    source = await capture.source()
    await capture.hook(source, {"email": ANN, "consent": {"email": "granted"}})
    await capture.map_deliveries()
    (lead,) = (await capture.get("leads", email=ANN)).json()["items"]
    (entry,) = (await capture.get(f"leads/{lead['lead_id']}/consent")).json()["entries"]
    assert (entry["origin"], entry["evidence"]["method"]) == (source["source_id"], "webhook")
    assert entry["evidence"]["reference"].startswith("delivery ")
