"""People who may be one are suggested, with reasons, and never merged by themselves."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from shared.events import LeadMerged
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.capture_world import Capture
from throughline.services import service_code


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


ANN = {"email": "ann.miller@acme.com", "first_name": "Ann", "last_name": "Miller", "phone": "+4915112345678"}
DOUBLE = {"email": "annmiller@gmail.com", "first_name": "Ann", "last_name": "Miller", "company": "Acme Inc."}


async def compared(capture: Capture) -> None:
    """Until nobody waits to be compared."""

    async def nobody_waits() -> bool:
        await capture.harness.run_timers()
        return await capture.rows("SELECT 1 FROM likeness_checks") == []

    await eventually(nobody_waits)


async def pairs(capture: Capture, **params: str) -> list[dict[str, Any]]:
    await compared(capture)
    response = await capture.get("duplicates", **params)
    assert response.status_code == 200, response.text
    return list(response.json()["items"])


async def doubles(capture: Capture, lead_id: str, **params: str) -> list[dict[str, Any]]:
    response = await capture.get(f"leads/{lead_id}/duplicates", **params)
    assert response.status_code == 200, response.text
    return list(response.json()["items"])


async def test_somebody_with_another_mailbox_is_suggested_with_reasons_and_not_merged(capture: Capture) -> None:
    ann = await capture.lead(**ANN, company="Acme", country="DE")
    double = await capture.lead(**DOUBLE, country="AT")
    assert ann["lead_id"] != double["lead_id"]
    (one,) = await doubles(capture, ann["lead_id"])
    assert (one["lead"]["lead_id"], one["lead"]["email"], one["score"]) == (double["lead_id"], DOUBLE["email"], 100)
    assert one["reasons"] == [
        {"field": "name", "says": "same", "likeness": 100, "points": 45},
        {"field": "email", "says": "same", "likeness": 100, "points": 35},
        {"field": "company", "says": "same", "likeness": 100, "points": 25},
        {"field": "country", "says": "different", "likeness": 0, "points": -5},
    ]
    (pair,) = await pairs(capture)
    assert (pair["score"], pair["reasons"]) == (one["score"], one["reasons"])
    assert {lead["lead_id"] for lead in pair["leads"]} == {ann["lead_id"], double["lead_id"]}
    assert [event for event in await capture.harness.told(LeadMerged) if event.identifier is None] == []


async def test_colleagues_families_and_namesakes_are_not_suggested(capture: Capture) -> None:
    ann = await capture.lead(**ANN, company="Acme")
    await capture.lead(email="bob.miller@acme.com", first_name="Bob", last_name="Miller")  # a colleague
    await capture.lead(email="carl@home.example", first_name="Carl", last_name="Huber", phone=ANN["phone"])
    await capture.lead(email="a.m@globex.com", first_name="Ann", last_name="Miller", company="Globex")
    await capture.lead(email="info@globex.com")
    await capture.lead(email="info@initech.com")
    assert await doubles(capture, ann["lead_id"]) == []
    assert await pairs(capture) == []


async def test_what_sounds_alike_at_one_company_is_suggested(capture: Capture) -> None:
    one = await capture.lead(email="jsmith@acme.com", first_name="John", last_name="Smith")
    other = await capture.lead(email="john.smyth@acme.com", first_name="Jon", last_name="Smyth")
    (found,) = await doubles(capture, one["lead_id"])
    assert found["lead"]["lead_id"] == other["lead_id"]
    assert {reason["field"]: reason["says"] for reason in found["reasons"]}["name"] == "alike"


async def test_a_dismissed_suggestion_does_not_come_again_nor_does_a_call_tie_them(capture: Capture) -> None:
    ann = await capture.lead(**ANN, company="Acme")
    double = await capture.lead(**DOUBLE)
    await compared(capture)
    answer = await capture.post(f"leads/{ann['lead_id']}/duplicates:dismiss", {"with": double["lead_id"]})
    assert answer.status_code == 200
    assert await doubles(capture, ann["lead_id"]) == []
    await capture.lead(email=ANN["email"], title="Buyer", last_name="Millar")
    await capture.lead(email=ANN["email"], last_name="Miller")
    assert await pairs(capture) == []
    by_hand = await capture.post(f"leads/{ann['lead_id']}:merge", {"with": double["lead_id"]})
    assert by_hand.status_code == 200
    same = await capture.post(f"leads/{ann['lead_id']}/duplicates:dismiss", {"with": double["lead_id"]})
    assert (same.status_code, same.json()["type"]) == (409, "urn:throughline:problem:capture:same-person")


async def test_suggestions_follow_merges_and_unmerges(capture: Capture) -> None:
    ann = await capture.lead(**ANN, company="Acme")
    double = await capture.lead(**DOUBLE)
    third = await capture.lead(email="miller.ann@web.de", first_name="Ann", last_name="Miller", company="ACME")
    assert len(await pairs(capture)) == 3
    merged = (await capture.post(f"leads/{ann['lead_id']}:merge", {"with": double["lead_id"]})).json()
    gone = ({ann["lead_id"], double["lead_id"]} - {merged["lead_id"]}).pop()
    (left,) = await pairs(capture)
    assert {lead["lead_id"] for lead in left["leads"]} == {merged["lead_id"], third["lead_id"]}
    assert await capture.rows("SELECT 1 FROM likeness_keys WHERE lead_id = $1", gone) == []
    await capture.post(f"leads/{gone}:unmerge", None)
    found = [{lead["lead_id"] for lead in pair["leads"]} for pair in await pairs(capture)]
    assert sorted(map(sorted, found)) == sorted(
        sorted((one, third["lead_id"])) for one in (ann["lead_id"], double["lead_id"])
    )


async def test_an_erased_person_leaves_nothing_to_be_found_by(capture: Capture) -> None:
    ann = await capture.lead(**ANN, company="Acme")
    double = await capture.lead(**DOUBLE)
    await compared(capture)
    await capture.post(f"leads/{ann['lead_id']}:erase", None)
    assert await pairs(capture) == []
    assert await doubles(capture, double["lead_id"]) == []
    for table in ("likeness_keys", "likenesses", "likeness_checks", "lead_accounts"):
        rows = await capture.rows(f"SELECT lead_id FROM {table}")  # the names above
        assert ann["lead_id"] not in {row["lead_id"] for row in rows}
    assert (await capture.get(f"leads/{ann['lead_id']}/duplicates")).status_code == 410


async def test_keys_are_hashes(capture: Capture) -> None:
    await capture.lead(**ANN, company="Acme")
    keys = await capture.rows("SELECT key FROM likeness_keys")
    assert len(keys) == 5
    assert {len(row["key"]) for row in keys} == {16}


async def test_doubles_that_come_at_once_are_found_although_neither_saw_the_other(capture: Capture) -> None:
    people = [
        {"email": f"{local}@{at}", "first_name": "Ann", "last_name": f"Miller{n}", "company": f"Company {n}"}
        for n in range(10)
        for local, at in ((f"ann.miller.{n}", "gmail.com"), (f"annmiller{n}", "web.de"))
    ]
    await asyncio.gather(*(capture.lead(**each) for each in people))
    found = await pairs(capture, limit="100", min_score="90")
    assert len(found) == 10


async def test_pairs_are_listed_the_likeliest_first_page_by_page(capture: Capture) -> None:
    for n in range(4):
        name = {"first_name": "Ann", "last_name": f"Unusual{n * 7}name{n}"}
        await capture.lead(email=f"first{n}person@gmail.com", company=f"Company{n} Works", **name)
        same = {"company": f"Company{n} Works"} if n % 2 else {"phone": f"+49151123456{n}0"}
        await capture.lead(email=f"second{n}x@web.de", **same, **name)
    every = await pairs(capture, min_score="40")
    found, cursor = [], None
    while True:
        params = {"limit": "3", "min_score": "40", **({"cursor": cursor} if cursor else {})}
        page = (await capture.get("duplicates", **params)).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == every
    scores = [pair["score"] for pair in found]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert [pair["score"] for pair in await pairs(capture, min_score="60")] == [
        score for score in scores if score >= 60
    ]
    assert (await capture.get("duplicates", min_score="101")).status_code == 422
    assert (await capture.get("duplicates", cursor="x")).status_code == 400


async def test_a_popular_name_costs_no_more_than_is_shown(capture: Capture) -> None:
    leads: list[dict[str, Any]] = []
    for begin in range(0, 90, 15):
        name = {"first_name": "John", "last_name": "Smith", "company": "Acme"}
        some = (capture.lead(email=f"p{n}@gmail.com", **name) for n in range(begin, begin + 15))
        leads += await asyncio.gather(*some)
    assert len(await doubles(capture, leads[0]["lead_id"])) <= 50
    await compared(capture)
    counted = await capture.rows("SELECT count(*) FROM likenesses")
    assert 0 < counted[0]["count"] <= 90 * 51
