"""Accounts through the API on real PostgreSQL: one company is one account, and its leads are found."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.events import AccountChanged, AccountPersonal, LeadCaptured
from shared.ids import LeadId
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.capture_world import Capture
from throughline.services import service_code

ANN = "ann@acme.com"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def account(capture: Capture, **fields: Any) -> dict[str, Any]:
    response = await capture.post("accounts", fields)
    assert response.status_code in (200, 201), response.text
    return dict(response.json())


async def patch(capture: Capture, account_id: str, **fields: Any) -> Any:
    return await capture.harness.client.patch(f"/v1/accounts/{account_id}", json=fields)


async def lead_of(capture: Capture, lead_id: str) -> dict[str, Any]:
    return dict((await capture.get(f"leads/{lead_id}")).json())


async def account_of(capture: Capture, lead_id: str) -> tuple[str | None, str | None]:
    shown = (await lead_of(capture, lead_id))["account"]
    return shown["account_id"], shown["matched_by"]


async def rematched(capture: Capture) -> None:
    """Until nothing waits to be matched again."""

    async def nothing_waits() -> bool:
        await capture.harness.run_timers()
        return await capture.rows("SELECT 1 FROM rematches") == []

    await eventually(nothing_waits)


async def told_accounts(capture: Capture) -> list[tuple[str, AccountPersonal]]:
    events = await capture.harness.told(AccountChanged)
    async with capture.harness.runtime.database.reading() as connection:
        blocks = [(LeadId(event.account_id), event.personal) for event in events]
        opened = await capture.harness.runtime.keys.open_many(connection, blocks)
    return [
        (event.account_id, AccountPersonal.model_validate_json(block or b"{}"))
        for event, block in zip(events, opened, strict=True)
    ]


async def test_an_account_is_made_once_and_found_by_whatever_it_is_known_by(capture: Capture) -> None:
    body = {
        "name": "Acme GmbH", "domains": ["https://www.Acme.com/about", "acme.co.uk"], "external_id": "crm-1",
        "owner_id": "rep@us.example", "industry": "robots", "employees": 240, "annual_revenue": 31_000_000,
        "country": "de", "attributes": {"tier": 1},
    }  # fmt: skip
    first = await capture.post("accounts", body)
    again = await capture.post("accounts", {"domains": ["acme.com"], "employees": 250})
    assert (first.status_code, again.status_code) == (201, 200)
    made = again.json()
    assert made["account_id"] == first.json()["account_id"] == made["ultimate_parent_id"]
    assert (made["domains"], made["country"], made["employees"]) == (["acme.co.uk", "acme.com"], "DE", 250)
    for params in ({"domain": "mail.acme.com"}, {"name": "ACME, Inc."}, {"external_id": "crm-1"}):
        found = (await capture.get("accounts", **params)).json()["items"]
        assert [one["account_id"] for one in found] == [made["account_id"]]
    assert (await capture.get("accounts", domain="acme.com", name="Globex")).json()["items"] == []
    told = await capture.harness.told(AccountChanged)
    assert [(event.revision, event.employees, event.key) for event in told] == [
        (1, 240, made["account_id"]),
        (2, 250, made["account_id"]),
    ]
    assert b"acme" not in told[0].encode().lower()
    assert (await told_accounts(capture))[0][1].domains == ["acme.co.uk", "acme.com"]


async def test_what_says_nothing_new_about_an_account_tells_nothing(capture: Capture) -> None:
    for _ in range(2):
        await account(capture, name="Acme", domains=["acme.com"], attributes={"a": [1]})
    assert len(await capture.harness.told(AccountChanged)) == 1


async def test_the_same_account_posted_many_times_at_once_is_made_once(capture: Capture) -> None:
    bodies = [{"name": "Acme", "external_id": "crm-1", "domains": ["acme.com"], "employees": n} for n in range(20)]
    answers = await asyncio.gather(*(capture.post("accounts", body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["account_id"] for answer in answers}) == 1
    revisions = [event.revision for event in await capture.harness.told(AccountChanged)]
    assert sorted(revisions) == list(range(1, len(revisions) + 1))


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
    assert {event.account_id for event in await capture.harness.told(LeadCaptured)} == {made["account_id"]}


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


async def test_many_leads_that_waited_are_matched_in_batches(capture: Capture) -> None:
    await asyncio.gather(*(capture.lead(email=f"p{n}@gmail.com", company="Initech") for n in range(450)))
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


async def test_a_hierarchy_is_shown_and_circles_are_refused_with_the_path(capture: Capture) -> None:
    top = await account(capture, name="Top", external_id="1")
    middle = await account(capture, name="Middle", external_id="2", parent_id=top["account_id"])
    low = await account(capture, name="Low", external_id="3", parent_id=middle["account_id"])
    assert (low["parent_id"], low["ultimate_parent_id"]) == (middle["account_id"], top["account_id"])
    assert [one["name"] for one in low["parents"]] == ["Middle", "Top"]
    assert [one["name"] for one in (await capture.get(f"accounts/{top['account_id']}")).json()["children"]] == [
        "Middle"
    ]
    listed = (await capture.get("accounts", parent_id=middle["account_id"])).json()["items"]
    assert [one["name"] for one in listed] == ["Low"]
    refused = await patch(capture, top["account_id"], parent_id=low["account_id"])
    assert refused.status_code == 422
    assert refused.json()["errors"][0] == {
        "pointer": "/parent_id",
        "detail": "would close a circle: Top → Low → Middle → Top",
    }
    itself = await patch(capture, top["account_id"], parent_id=top["account_id"])
    assert "Top → Top" in itself.json()["errors"][0]["detail"]
    nobody = await patch(capture, top["account_id"], parent_id="00000000-0000-4000-8000-000000000000")
    assert nobody.status_code == 422


async def test_two_changes_that_would_close_a_circle_together_do_not(capture: Capture) -> None:
    for n in range(5):
        one = await account(capture, name="One", external_id=f"a{n}")
        two = await account(capture, name="Two", external_id=f"b{n}")
        answers = await asyncio.gather(
            patch(capture, one["account_id"], parent_id=two["account_id"]),
            patch(capture, two["account_id"], parent_id=one["account_id"]),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 422]


async def test_a_hierarchy_is_as_deep_as_allowed_and_no_deeper(capture: Capture) -> None:
    above = None
    for level in range(16):
        above = (await account(capture, name=f"Level {level}", external_id=f"{level}", parent_id=above))["account_id"]
    refused = await capture.post("accounts", {"name": "Too deep", "parent_id": above})
    assert (refused.status_code, refused.json()["errors"][0]["detail"]) == (422, "a hierarchy has at most 16 levels")


async def test_merged_accounts_are_one_and_every_old_id_keeps_resolving(capture: Capture) -> None:
    crm = await account(capture, name="Acme", external_id="crm-1", employees=5)
    child = await account(capture, name="Child", external_id="c")
    lead = await capture.lead(email="ann@acme-europe.de", company="Acme Europe")
    by_name = await capture.lead(email="ben@gmail.com", company="Acme Europe")
    await rematched(capture)
    automatic = lead["account"]["account_id"]
    await patch(capture, automatic, owner_id="rep-1", country="DE")
    await patch(capture, child["account_id"], parent_id=automatic)
    merged = await capture.post(f"accounts/{automatic}:merge", {"with": crm["account_id"], "into": crm["account_id"]})
    assert merged.status_code == 200, merged.text
    one = merged.json()
    assert (one["account_id"], one["domains"], one["owner_id"]) == (crm["account_id"], ["acme-europe.de"], "rep-1")
    assert (one["country"], one["employees"]) == ("DE", 5)
    assert [each["account_id"] for each in one["children"]] == [child["account_id"]]
    assert (await capture.get(f"accounts/{automatic}")).json() == one
    await rematched(capture)
    for each in (lead, by_name):
        assert (await account_of(capture, each["lead_id"]))[0] == crm["account_id"]
    assert (await capture.post(f"accounts/{automatic}:merge", {"with": crm["account_id"]})).status_code == 409
    told = {event.account_id: event for event in await capture.harness.told(AccountChanged)}
    assert told[automatic].merged_into == crm["account_id"]
    assert told[child["account_id"]].parent_id == crm["account_id"]


async def test_merging_an_account_into_one_below_it_closes_no_circle(capture: Capture) -> None:
    top = await account(capture, name="Top", external_id="1")
    middle = await account(capture, name="Middle", external_id="2", parent_id=top["account_id"])
    low = await account(capture, name="Low", external_id="3", parent_id=middle["account_id"])
    body = {"with": top["account_id"], "into": low["account_id"]}
    merged = (await capture.post(f"accounts/{low['account_id']}:merge", body)).json()
    assert (merged["parent_id"], [one["name"] for one in merged["children"]]) == (None, ["Middle"])


async def test_ids_of_different_accounts_in_one_call_are_refused(capture: Capture) -> None:
    one = await account(capture, name="One", external_id="1")
    two = await account(capture, name="Two", domains=["two.com"])
    refused = await capture.post("accounts", {"external_id": "1", "domains": ["two.com"]})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:throughline:problem:capture:account-taken")
    assert one["account_id"] in refused.json()["detail"] and two["account_id"] in refused.json()["detail"]
    taken = await capture.post("accounts", {"external_id": "9", "domains": ["two.com"]})
    assert taken.json()["external_id"] == "9"
    other = await capture.post("accounts", {"external_id": "10", "domains": ["two.com"]})
    assert other.status_code == 409


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": "  "}, "/name"),
        ({"domains": ["co.uk"]}, "/domains/0"),
        ({"domains": ["not a domain"]}, "/domains/0"),
        ({"domains": ["ann@acme.com"]}, "/domains/0"),
        ({"domains": ["xn--\u00ff.com"]}, "/domains/0"),
        ({"domains": "acme.com"}, "/domains"),
        ({"name": "A", "parent_id": "x"}, "/parent_id"),
        ({"name": "A", "employees": -1}, "/employees"),
        ({"name": "A", "employees": 10**30}, "/employees"),
        ({"name": "A", "annual_revenue": 1.5}, "/annual_revenue"),
        ({"name": "A", "attributes": []}, "/attributes"),
        ({"name": "A", "owner_id": ""}, "/owner_id"),
        ({"name": "A" * 501}, "/name"),
        ({"name": "A", "nonsense": 1}, "/nonsense"),
    ],
)
async def test_bad_accounts_are_refused_with_the_place(capture: Capture, body: dict[str, Any], pointer: str) -> None:
    refused = await capture.post("accounts", body)
    assert refused.status_code == 422, refused.text
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]


async def test_a_patch_takes_back_with_null_but_not_the_name(capture: Capture) -> None:
    made = await account(capture, name="Acme", employees=5, owner_id="rep", domains=["acme.com"], attributes={"a": 1})
    gone = (
        await patch(capture, made["account_id"], employees=None, owner_id=None, domains=None, attributes=None)
    ).json()
    assert (gone["employees"], gone["owner_id"], gone["domains"], gone["attributes"]) == (None, None, [], {})
    assert (await patch(capture, made["account_id"], name=None)).status_code == 422
    assert (await patch(capture, "x", name="Y")).status_code == 404


async def test_accounts_are_listed_page_by_page(capture: Capture) -> None:
    made = [(await account(capture, name=f"Acme {n}", external_id=f"{n}"))["account_id"] for n in range(5)]
    found, cursor = [], None
    while True:
        page = (await capture.get("accounts", limit="2", **({"cursor": cursor} if cursor else {}))).json()
        found += [item["account_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == made[::-1]


async def test_an_older_database_gets_its_accounts_back(capture: Capture) -> None:
    top = await account(capture, name="Top", external_id="1", attributes={"tier": 1})
    lead = await capture.lead(email=ANN, company="Acme")
    await patch(capture, lead["account"]["account_id"], parent_id=top["account_id"], owner_id="rep")
    before = (await capture.get(f"accounts/{lead['account']['account_id']}")).json()
    told = await capture.harness.told(AccountChanged)
    async with capture.harness.runtime.database.reading() as connection:
        await connection.execute("TRUNCATE accounts, account_domains, lead_accounts")
    await capture.harness.deliver(*told)
    after = (await capture.get(f"accounts/{lead['account']['account_id']}")).json()
    same = set(before) - {"created_at", "updated_at", "made_by"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    await rematched(capture)
    assert (await account_of(capture, lead["lead_id"]))[0] == before["account_id"]


async def test_erasing_somebody_by_the_id_of_an_account_is_refused(capture: Capture) -> None:
    made = await account(capture, name="Acme", domains=["acme.com"])
    assert (await capture.post(f"leads/{made['account_id']}:erase", None)).status_code == 404
    assert (await patch(capture, made["account_id"], employees=7)).status_code == 200
