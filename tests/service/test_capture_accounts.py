"""Accounts through the API on real PostgreSQL: one company is one account, in its place of a hierarchy."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from shared.events import AccountChanged
from shared.settings import Settings
from shared.testing import harness
from tests.service.account_world import account, account_of, patch, rematched, told_accounts
from tests.service.capture_world import Capture
from throughline.services import service_code

ANN = "ann@acme.com"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


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


async def test_odd_questions_are_answered_and_break_nothing(capture: Capture) -> None:
    made = await account(capture, name="Acme", external_id="crm-1", domains=["acme.com"])
    for params in ({"name": "GmbH & Co. KG"}, {"external_id": "x' OR 1=1"}):
        answer = await capture.get("accounts", **params)
        assert (answer.status_code, answer.json()["items"]) == (200, [])
    for domain in ("\x00.com", "a\x00.com", "gmail.com", "..", "ac me.com", "a" * 64 + ".com", "ä" * 300 + ".de"):
        answer = await capture.get("accounts", domain=domain)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query:domain")
        match = await capture.post("accounts:match", {"domain": domain.replace("\x00", " ")})
        assert (match.status_code, match.json()["errors"][0]["pointer"]) == (422, "/domain")
    for path in ("accounts/x", f"accounts/{made['account_id'][:-1]}", "accounts/%00"):
        assert (await capture.get(path)).status_code == 404
    assert (await capture.get("leads", account_id="x")).json()["items"] == []
    assert (await capture.get("accounts", cursor="x")).status_code == 400
    bodies: tuple[Any, ...] = ([], "x", None, {"with": made["account_id"], "into": "x"}, {})
    for body in bodies:
        assert (await capture.post(f"accounts/{made['account_id']}:merge", body)).status_code in (400, 422)
    missing = "00000000-0000-4000-8000-000000000000"
    assert (await capture.post(f"accounts/{made['account_id']}:merge", {"with": missing})).status_code == 404


async def test_an_idempotency_key_makes_one_account_and_answers_the_same(capture: Capture) -> None:
    first = await capture.post("accounts", {"name": "Acme"}, idempotency_key="k-1")
    again = await capture.post("accounts", {"name": "Acme"}, idempotency_key="k-1")
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert len((await capture.get("accounts")).json()["items"]) == 1


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
