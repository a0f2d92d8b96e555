"""Leads find their account by domain or name, by hand, and later: on real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from services.capture.accounts.rematching import rematch_leads
from shared.events import LeadCaptured
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.account_world import account, account_of, patch, rematched, told_accounts
from tests.service.capture_world import Capture
from throughline.services import service_code

ANN = "ann@acme.com"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def test_the_first_lead_of_a_domain_makes_the_account_and_the_others_join_it(capture: Capture) -> None:
    answers = await asyncio.gather(
        *(capture.post("leads", {"email": f"p{n}@sales.acme.com", "company": "Acme GmbH"}) for n in range(30))
    )
    assert {answer.status_code for answer in answers} == {201}
    (made,) = (await capture.get("accounts")).json()["items"]
    assert (made["name"], made["domains"], made["made_by"]) == ("Acme GmbH", ["acme.com"], "leads")
    shown = [answer.json()["account"] for answer in answers]
    assert {one["account_id"] for one in shown} == {made["account_id"]}
    assert shown[0] == {
        "account_id": made["account_id"],
        "name": "Acme GmbH",
        "matched_by": "domain",
        "reason": "the email address is at acme.com",
    }
    listed = (await capture.get(f"accounts/{made['account_id']}/leads", limit="20")).json()
    rest = (await capture.get("leads", account_id=made["account_id"], limit="20", cursor=listed["next_cursor"])).json()
    ids = [one["lead_id"] for one in listed["items"] + rest["items"]]
    assert sorted(ids) == ids == sorted(answer.json()["lead_id"] for answer in answers)
    told = await capture.harness.told(LeadCaptured)
    assert {(event.account_id, event.account_matched_by) for event in told} == {(made["account_id"], "domain")}


async def test_free_and_throw_away_mail_says_nothing_about_a_company(capture: Capture) -> None:
    for email in ("ann@gmail.com", "ann@mailinator.com"):
        shown = (await capture.lead(email=email))["account"]
        assert (shown["account_id"], shown["matched_by"]) == (None, None)
        assert "free or throw-away" in shown["reason"]
    refused = await capture.post("accounts", {"name": "G", "domains": ["gmail.com"]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/domains/0"
    assert (await capture.get("accounts")).json()["items"] == []


async def test_an_account_known_by_its_domain_alone_gets_the_name_that_a_lead_tells(capture: Capture) -> None:
    await capture.lead(email=ANN)
    await capture.lead(email="ben@acme.com", company="Acme Robotics Ltd")
    await capture.lead(email="cid@acme.com", company="Something else")
    (made,) = (await capture.get("accounts")).json()["items"]
    assert (made["name"], made["revision"]) == ("Acme Robotics Ltd", 3)


async def test_a_company_with_the_name_of_a_domain_takes_the_domain(capture: Capture) -> None:
    made = await account(capture, name="Acme Robotics GmbH", external_id="crm-1")
    shown = (await capture.lead(email="ann@acme-robotics.de", company="ACME Robotics"))["account"]
    assert (shown["account_id"], shown["matched_by"]) == (made["account_id"], "domain")
    assert (await capture.get(f"accounts/{made['account_id']}")).json()["domains"] == ["acme-robotics.de"]
    other = (await capture.lead(email="bob@phoenix-travel.com", company="Acme Robotics"))["account"]
    assert other["account_id"] != made["account_id"]


async def test_a_company_name_matches_without_legal_form_when_it_is_one_accounts(capture: Capture) -> None:
    made = await account(capture, name="Müller & Söhne GmbH & Co. KG", domains=["mueller.de"])
    shown = (await capture.lead(email="ann@gmail.com", company="muller sohne"))["account"]
    assert (shown["account_id"], shown["matched_by"]) == (made["account_id"], "name")
    assert shown["reason"] == "'muller sohne' is its name"
    assert (await capture.lead(email="ben@gmail.com", company="Mueller"))["account"]["account_id"] is None


async def test_of_two_accounts_of_a_name_the_country_then_the_hierarchy_decides_else_nobody(capture: Capture) -> None:
    german = await account(capture, name="Phoenix GmbH", country="DE", external_id="1")
    english = await account(capture, name="Phoenix Ltd", country="GB", external_id="2")
    in_germany = await capture.lead(email="a@gmail.com", company="Phoenix", country="DE")
    by_phone = await capture.lead(email="b@gmail.com", company="Phoenix", phone="+442071838750")
    nowhere = await capture.lead(email="c@gmail.com", company="Phoenix")
    assert in_germany["account"]["account_id"] == german["account_id"]
    assert by_phone["account"]["account_id"] == english["account_id"]
    assert nowhere["account"]["account_id"] is None
    assert nowhere["account"]["reason"] == "2 accounts are named 'Phoenix', and nothing says which is meant"
    assert (await patch(capture, german["account_id"], parent_id=english["account_id"])).status_code == 200
    await rematched(capture)
    assert await account_of(capture, nowhere["lead_id"]) == (english["account_id"], "name")


async def test_a_close_name_needs_a_second_sign(capture: Capture) -> None:
    made = await account(capture, name="Hochleistungsrechner AG", country="CH", external_id="1")
    alone = await capture.lead(email="a@gmail.com", company="Hochleistungrechner")
    same_country = await capture.lead(email="b@gmail.com", company="Hochleistungrechner", country="CH")
    assert alone["account"]["account_id"] is None
    assert (same_country["account"]["account_id"], same_country["account"]["matched_by"]) == (
        made["account_id"],
        "close_name",
    )
    assert "the country is the same, CH" in same_country["account"]["reason"]


async def test_a_preview_shows_candidates_those_left_out_and_what_decided_without_effect(capture: Capture) -> None:
    german = await account(capture, name="Phoenix GmbH", country="DE", external_id="1")
    await account(capture, name="Phoenix Ltd", country="GB", external_id="2")
    seen = (await capture.post("accounts:match", {"name": "phoenix inc", "country": "de"})).json()
    assert (seen["account"]["account_id"], seen["matched_by"]) == (german["account_id"], "name")
    assert seen["tie_breaker"] == "country"
    assert [(one["kept"], one["why"]) for one in seen["candidates"]] == [
        (True, "has this name, chosen by country"),
        (False, "has this name, left out by country"),
    ]
    fresh = (await capture.post("accounts:match", {"email": "x@new-company.com", "name": "Phoenix"})).json()
    assert (fresh["makes_account"], fresh["account"]) == (True, None)
    nothing = (await capture.post("accounts:match", {})).json()
    assert (nothing["account"], nothing["makes_account"]) == (None, False)
    assert len((await capture.get("accounts")).json()["items"]) == 2


async def test_an_account_made_renamed_or_given_a_country_later_gets_the_leads_that_waited(capture: Capture) -> None:
    leads = [await capture.lead(email=f"p{n}@gmail.com", company="Initech LLC") for n in range(5)]
    before = len(await capture.harness.told(LeadCaptured))
    made = await account(capture, name="Initech")
    await rematched(capture)
    for lead in leads:
        assert await account_of(capture, lead["lead_id"]) == (made["account_id"], "name")
    fresh = (await capture.harness.told(LeadCaptured))[before:]
    assert {(event.revision, event.account_id) for event in fresh} == {(2, made["account_id"])}
    await patch(capture, made["account_id"], name="Initrode")
    await rematched(capture)
    assert await account_of(capture, leads[0]["lead_id"]) == (None, None)
    await patch(capture, made["account_id"], name="Initec", country="US")
    lead = await capture.lead(email="p0@gmail.com", country="US")
    await rematched(capture)
    assert await account_of(capture, lead["lead_id"]) == (made["account_id"], "close_name")


async def test_a_domain_that_is_given_to_another_account_takes_its_leads_along(capture: Capture) -> None:
    lead = await capture.lead(email=ANN)
    made = lead["account"]["account_id"]
    other = await account(capture, name="Globex", domains=["globex.com"])
    refused = await patch(capture, other["account_id"], domains=["globex.com", "acme.com"])
    assert refused.status_code == 409
    assert made in refused.json()["detail"]
    await patch(capture, made, domains=[])
    assert (await patch(capture, other["account_id"], domains=["globex.com", "acme.com"])).status_code == 200
    await rematched(capture)
    assert await account_of(capture, lead["lead_id"]) == (other["account_id"], "domain")


async def many_leads(capture: Capture) -> None:
    """More than two batches, told a few at a time."""
    for begin in range(0, 450, 15):
        some = (capture.lead(email=f"p{n}@gmail.com", company="Initech") for n in range(begin, begin + 15))
        await asyncio.gather(*some)


async def test_many_leads_that_waited_are_matched_in_batches(capture: Capture) -> None:
    await many_leads(capture)
    made = await account(capture, name="Initech")
    await rematched(capture)
    counted = await capture.rows("SELECT count(*) FROM lead_accounts WHERE account_id = $1", made["account_id"])
    assert counted[0]["count"] == 450
    revisions = await capture.rows("SELECT DISTINCT revision FROM leads")
    assert revisions == [{"revision": 2}]


async def test_a_lead_told_while_its_account_was_being_made_is_found_as_well(capture: Capture) -> None:
    """Neither transaction saw the other; the background waits until both are over."""
    for n in range(10):
        await asyncio.gather(
            account(capture, name=f"Initech {n}"),
            *(capture.lead(email=f"p{n}-{m}@gmail.com", company=f"Initech {n} Inc.") for m in range(3)),
        )
    await rematched(capture)
    assert await capture.rows("SELECT 1 FROM lead_accounts WHERE account_id IS NULL") == []


async def test_what_is_chosen_by_hand_stays_whatever_matches_later(capture: Capture) -> None:
    lead = await capture.lead(email=ANN)
    other = await account(capture, name="Globex", domains=["globex.com"])
    path = f"/v1/leads/{lead['lead_id']}/account"
    put = await capture.harness.client.put(path, json={"account_id": other["account_id"]})
    assert (put.status_code, put.json()["account"]["matched_by"]) == (200, "hand")
    told = (await capture.harness.told(LeadCaptured))[-1]
    assert (told.revision, told.account_id) == (2, other["account_id"])
    await capture.harness.client.put(path, json={"account_id": other["account_id"]})
    assert len(await capture.harness.told(LeadCaptured)) == 2
    assert (await capture.lead(email=ANN, company="Acme"))["account"]["account_id"] == other["account_id"]
    gone = await capture.harness.client.delete(path)
    assert (gone.status_code, gone.json()["account"]["account_id"]) == (200, None)
    assert gone.json()["account"]["reason"] == "none, chosen by hand"
    assert (await capture.lead(email=ANN, company="Acme 2"))["account"]["account_id"] is None
    back = await capture.post(f"leads/{lead['lead_id']}/account:match", None)
    assert back.json()["account"]["account_id"] == lead["account"]["account_id"]
    unknown = await capture.harness.client.put(path, json={"account_id": lead["lead_id"]})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:throughline:problem:capture:no-such-account")


async def test_merging_unmerging_and_erasing_leads_keeps_their_accounts_right(capture: Capture) -> None:
    ann = await capture.lead(email=ANN)
    crm = await capture.lead(external_id="crm-1", company="Globex")
    globex = await account(capture, name="Globex", domains=["globex.com"])
    await capture.harness.client.put(f"/v1/leads/{crm['lead_id']}/account", json={"account_id": globex["account_id"]})
    merged = await capture.lead(email=ANN, external_id="crm-1")
    assert merged["account"]["account_id"] == globex["account_id"]  # what was chosen for one is chosen for both
    assert (await capture.get(f"accounts/{globex['account_id']}/leads")).json()["items"] == [merged]
    await capture.post(f"leads/{crm['lead_id']}:unmerge", None)
    assert await account_of(capture, ann["lead_id"]) == (ann["account"]["account_id"], "domain")
    assert await account_of(capture, crm["lead_id"]) == (globex["account_id"], "hand")
    await capture.post(f"leads/{crm['lead_id']}:erase", None)
    assert (await capture.get(f"accounts/{globex['account_id']}/leads")).json()["items"] == []
    assert await capture.rows("SELECT 1 FROM account_choices") == []


async def test_an_account_that_an_erased_person_alone_told_of_is_forgotten_with_them(capture: Capture) -> None:
    nora = await capture.lead(email="me@noramueller.de", company="Nora Mueller")
    ann, ben = await capture.lead(email=ANN), await capture.lead(email="ben@acme.com")
    alone, shared = nora["account"]["account_id"], ann["account"]["account_id"]
    kept = await capture.lead(email="x@globex.com")
    await patch(capture, kept["account"]["account_id"], employees=5)  # somebody told of it
    for lead in (nora, ann, kept):
        assert (await capture.post(f"leads/{lead['lead_id']}:erase", None)).status_code == 200
    assert (await capture.get(f"accounts/{alone}")).status_code == 404
    for account_id in (shared, kept["account"]["account_id"]):
        assert (await capture.get(f"accounts/{account_id}")).status_code == 200
    assert {account_id for account_id, personal in await told_accounts(capture) if personal.name == ""} == {alone}
    assert await capture.rows("SELECT 1 FROM account_domains WHERE domain = 'noramueller.de'") == []
    await rematched(capture)
    again = await capture.lead(email="me@noramueller.de")
    assert again["account"]["account_id"] not in (None, alone)
    assert await account_of(capture, ben["lead_id"]) == (shared, "domain")


async def test_a_rematch_that_was_cut_off_goes_on_and_tells_each_lead_once(capture: Capture) -> None:
    await many_leads(capture)
    await account(capture, name="Initech")
    for _ in range(4):  # ended in the middle of whatever it was doing
        running = asyncio.create_task(rematch_leads(capture.harness.consumer_runtime))

        async def some_more_are_matched(running: asyncio.Task[Any] = running) -> bool:
            return running.done() or bool(await capture.rows("SELECT 1 FROM rematches WHERE settled_at IS NOT NULL"))

        await eventually(some_more_are_matched)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await rematched(capture)
    assert await capture.rows("SELECT 1 FROM lead_accounts WHERE account_id IS NULL") == []
    told = [event.lead_id for event in await capture.harness.told(LeadCaptured) if event.account_id is not None]
    assert len(told) == len(set(told)) == 450
