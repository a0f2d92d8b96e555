"""An erasure gives a receipt: what every service erased and kept; and nothing personal is left to be read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest_asyncio

from services.capture.erasures.handlers import look_through_requests
from shared.events import ErasureReported, LeadErased
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.samples.signed import sample
from tests.service.capture_world import Capture, ago
from tests.service.company import Company, company
from tests.service.nurture_world import SEQUENCE
from throughline.services import SERVICES, service_code

CANARY = "Zyxwvut"
EMAIL = f"{CANARY}.person@example.com"
PHONE = "+441632960999"
IP = "203.0.113.77"
CLEAR = "Qwertzian"  # a company and a use case are not sealed in facts: they are gone from all tables
TRACES = (CANARY.lower(), PHONE.lstrip("+"), IP)


@pytest_asyncio.fixture
async def everybody(settings: Settings) -> AsyncIterator[Company]:
    async with company(settings) as made:
        yield made


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def live(everybody: Company) -> str:
    """Somebody whose name is everywhere where a name can be."""
    capture, routing, nurture = everybody.capture, everybody.services["routing"], everybody.services["nurture"]
    rep = {"name": "Rep", "email": "rep@acme.example", "time_zone": "UTC"}
    assert (await routing.client.post("/v1/reps", json=rep)).status_code == 201
    await nurture.client.post("/v1/sequences", json={**SEQUENCE, "trigger": "event.type == 'form_submitted'"})
    await capture.post(
        "touches", {"anonymous_id": f"browser-{CANARY}", "type": "page_view", "url": "https://a.example/p"}
    )
    evidence = {"method": "form", "text": f"I, {CANARY}, agree", "ip": IP, "url": f"https://a.example/?q={CANARY}"}
    answer = await capture.post(
        "leads",
        {
            "email": EMAIL,
            "phone": PHONE,
            "external_id": f"crm-{CANARY}",
            "anonymous_id": f"browser-{CANARY}",
            "first_name": CANARY,
            "last_name": CANARY,
            "title": f"{CANARY} of sales",
            "company": f"{CLEAR} Inc",
            "use_case": f"to find {CLEAR}",
            "attributes": {"note": CANARY},
            "consents": [{"channel": "email", "state": "granted", "evidence": evidence}],
            "touch": {"type": "form_submitted", "properties": {"p": CANARY}, "url": f"https://a.example/?q={CANARY}"},
        },
        idempotency_key=CANARY[:4],
    )
    assert answer.status_code == 201, answer.text
    lead_id: str = answer.json()["lead_id"]
    for kind in ("demo_requested", "page_view"):
        await capture.post("touches", {"email": EMAIL, "type": kind, "url": f"https://a.example/?q={CANARY}"})
    await everybody.settle()
    money = {"value_minor": 500, "currency": "EUR"}
    deal = {
        "lead_id": lead_id,
        "external_id": "d-1",
        "name": f"Deal of {CANARY}",
        **money,
    }
    answer = await routing.client.post("/v1/deals", json=deal, headers={"idempotency-key": "d"})
    assert answer.status_code == 201, answer.text
    await capture.post("conversions", {"email": EMAIL, "external_id": "o-1", "type": "payment", **money})
    source = await capture.source()
    await capture.hook(source, f"no JSON at all from {EMAIL}".encode())
    await everybody.settle()
    return lead_id


async def test_the_receipt_lists_what_every_service_erased_and_kept(everybody: Company) -> None:
    lead_id = await live(everybody)
    capture = everybody.capture
    wish = {"reason": "asked by letter", "requested_by": "the person", "reference": "case-7"}
    answer = await capture.post(f"leads/{lead_id}:erase", wish)
    assert answer.status_code == 200, answer.text
    opened = answer.json()
    assert (opened["state"], opened["lead_id"], opened["reference"]) == ("running", lead_id, "case-7")
    assert len(opened["lead_ids"]) == 4
    await everybody.settle()
    assert (await capture.get(f"erasures/{opened['receipt_id']}")).json()["state"] == "running"
    for service in everybody.services.values():
        await service.run_timers()
    receipt = (await capture.get(f"erasures/{opened['receipt_id']}")).json()
    assert receipt["state"] == "done" and receipt["completed_at"]
    assert {name: told["state"] for name, told in receipt["services"].items()} == dict.fromkeys(SERVICES, "done")
    erased = {name: dict(told["erased"]) for name, told in receipt["services"].items()}
    assert erased["capture"].pop("likeness_keys") > 0
    assert erased["capture"] == {
        "profiles": 1,
        "identifiers": 3,
        "browser_links": 1,
        "consent_evidence": 1,
        "form_answers": 0,
        "optin_texts": 0,
        "provider_answers": 0,
        "keys": 2,
        "kept_requests": 1,
    }
    assert (erased["scoring"]["profiles"], erased["scoring"]["consents"]) == (1, 1)
    assert erased["scoring"]["touch_details"] >= 3
    assert (erased["routing"]["profiles"], erased["routing"]["deal_texts"]) == (1, 1)
    assert erased["nurture"]["profiles"] == 1
    kept = {name: told["kept"] for name, told in receipt["services"].items()}
    assert (kept["routing"]["deals"], kept["attribution"]["conversions"], kept["attribution"]["touches"]) == (1, 1, 4)
    assert kept["capture"]["consent_entries"] == 1
    for told in receipt["services"].values():
        assert told["why_kept"].keys() == told["kept"].keys()
    assert CANARY.lower() not in str(receipt).lower()
    listed = (await capture.get("erasures", reference="case-7")).json()["items"]
    assert listed == [receipt]
    assert (await capture.post(f"leads/{lead_id}:erase", None)).json() == receipt


async def test_after_an_erasure_nothing_of_the_person_can_be_read_in_any_table_of_any_service(
    everybody: Company,
) -> None:
    lead_id = await live(everybody)
    before = await everybody.everything()
    assert [table for table, rows in before.items() if CLEAR.lower() in str(rows).lower()]
    await everybody.capture.post(f"leads/{lead_id}:erase", {"reason": "asked"})
    await everybody.settle()
    for service in everybody.services.values():
        await service.run_timers()
    after = await everybody.everything()
    assert {(table, trace) for table, rows in after.items() for trace in TRACES if trace in str(rows).lower()} == set()
    left = {table for table, rows in after.items() if CLEAR.lower() in str(rows).lower()}
    assert {table for table in left if ".event_log_" not in table} <= {"capture.event_log"}


async def test_only_a_receipt_that_was_given_here_exactly_so_is_genuine(capture: Capture) -> None:
    lead = await capture.lead(email=EMAIL)
    receipt = (await capture.post(f"leads/{lead['lead_id']}:erase", None)).json()
    assert (await capture.post("erasures:verify", receipt)).json() == {"genuine": True}
    forgeries: list[dict[str, Any]] = [
        {"state": "done"},
        {"erased_at": ago(days=9)},
        {"lead_ids": []},
        {"extra": 1},
        {"signature": "é"},
    ]
    for forged in forgeries:
        assert (await capture.post("erasures:verify", {**receipt, **forged})).json() == {"genuine": False}
    for unwritable in (2**64, -(2**63) - 1):
        assert (await capture.post("erasures:verify", {**receipt, "x": unwritable})).json() == {"genuine": False}
    assert (await capture.post("erasures:verify", {"receipt_id": "x"})).status_code == 422


async def test_two_erasures_at_once_are_one_and_replayed_facts_change_no_count(everybody: Company) -> None:
    lead_id = await live(everybody)
    capture = everybody.capture
    answers = await asyncio.gather(*(capture.post(f"leads/{lead_id}:erase", None) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({(answer.json()["receipt_id"], answer.json()["erased_at"]) for answer in answers}) == 1
    assert len(await capture.rows("SELECT 1 FROM erasures")) == 1
    await everybody.settle()
    path = f"erasures/{answers[0].json()['receipt_id']}"
    receipt = (await capture.get(path)).json()
    facts: list[Any] = [*await capture.harness.told(LeadErased)]
    for name, service in everybody.services.items():
        reports = await service.told(ErasureReported)
        assert len(reports) == len(receipt["lead_ids"]), name
        facts += [report.model_copy(update={"event_id": f"again-{report.event_id}"}) for report in reports]
    for fact in facts:
        for service in everybody.services.values():
            await service.deliver(fact)
    await everybody.settle()
    assert (await capture.get(path)).json() == receipt


async def test_an_erasure_after_a_merge_is_one_receipt_for_all_ids_and_who_comes_back_gets_another(
    everybody: Company,
) -> None:
    capture = everybody.capture
    one = await capture.lead(email="one@example.com")
    two = await capture.lead(email="two@example.com")
    await capture.post(f"leads/{one['lead_id']}:merge", {"with": two["lead_id"]})
    await everybody.settle()
    receipt = (await capture.post(f"leads/{two['lead_id']}:erase", None)).json()
    assert {one["lead_id"], two["lead_id"]} == set(receipt["lead_ids"])
    assert (await capture.post(f"leads/{one['lead_id']}:erase", None)).json()["receipt_id"] == receipt["receipt_id"]
    back = await capture.lead(email="one@example.com")
    again = (await capture.post(f"leads/{back['lead_id']}:erase", None)).json()
    assert again["receipt_id"] != receipt["receipt_id"]
    await everybody.settle()
    for service in everybody.services.values():
        await service.run_timers()
        await service.run_timers()
    states = [item["state"] for item in (await capture.get("erasures")).json()["items"]]
    assert states == ["done", "done"]
    first = (await capture.get("erasures", limit="1")).json()
    second = (await capture.get("erasures", limit="1", cursor=first["next_cursor"])).json()
    assert [first["items"][0]["receipt_id"], second["items"][0]["receipt_id"]] == [
        again["receipt_id"],
        receipt["receipt_id"],
    ]


async def test_somebody_known_by_touches_alone_gets_a_receipt_too(everybody: Company) -> None:
    capture = everybody.capture
    await capture.post("touches", {"email": EMAIL, "type": "page_view", "properties": {"a": CANARY}})
    await everybody.settle()
    lead_id = capture.harness.runtime.ids.of_email(EMAIL.lower())
    answers = await asyncio.gather(*(capture.post(f"leads/{lead_id}:erase", None) for _ in range(3)))
    assert len({(answer.json()["receipt_id"], answer.json()["erased_at"]) for answer in answers}) == 1
    await everybody.settle()
    receipt = (await capture.get(f"erasures/{answers[0].json()['receipt_id']}")).json()
    assert (receipt["state"], receipt["lead_ids"]) == ("done", [lead_id])
    assert receipt["services"]["scoring"]["erased"]["touch_details"] == 1


async def test_a_reason_that_names_the_person_is_refused_since_it_would_be_kept(capture: Capture) -> None:
    lead = await capture.lead(email=EMAIL, phone=PHONE)
    for body, pointer in (
        ({"reason": f"{EMAIL} asked"}, "/reason"),
        ({"reference": f"call from {PHONE}"}, "/reference"),
        ({"reason": "x" * 501}, "/reason"),
        ({"reason": 7}, "/reason"),
        ({"why": "x"}, "/why"),
    ):
        answer = await capture.post(f"leads/{lead['lead_id']}:erase", body)
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert await capture.harness.told(LeadErased) == []
    assert (await capture.get("erasures/nope")).status_code == 404


async def test_a_shops_wish_erases_who_is_known_by_the_shops_own_id(capture: Capture) -> None:
    known = sample("shopify")
    source = await capture.source("shopify", secret=known.secret)

    async def tell(topic: str, body: dict[str, Any]) -> None:
        request = known.with_body(orjson.dumps(body))
        changed = {"x-shopify-topic": topic, "x-shopify-event-id": topic, "x-shopify-webhook-id": topic}
        headers = [(name, changed.get(name, value)) for name, value in request.headers.pairs]
        answer = await capture.harness.client.post(
            f"/hooks/{source['source_id']}", content=request.raw_body, headers=headers
        )
        assert answer.status_code == 200
        await capture.map_deliveries()

    await tell("customers/create", {"id": 7, "email": EMAIL, "created_at": ago(days=1), "updated_at": ago(days=1)})
    (lead,) = (await capture.get("leads", email=EMAIL)).json()["items"]
    await tell("customers/redact", {"customer": {"id": 7, "email": "another@example.com"}, "orders_to_redact": []})
    (receipt,) = (await capture.get("erasures")).json()["items"]
    assert (receipt["lead_id"], receipt["requested_by"]) == (lead["lead_id"], "source")
    assert (receipt["origin"], receipt["reference"].partition(" ")[0]) == (source["source_id"], "delivery")
    assert (await capture.get("leads", email=EMAIL)).json()["items"] == []


async def test_kept_requests_that_name_the_person_are_dropped_and_those_about_others_stay(capture: Capture) -> None:
    source = await capture.source()
    bodies = [
        b"no JSON from zyxwvut.PERSON@example.com",
        b"email=Zyxwvut.person%40example.com&x=",
        b"no JSON from ben@example.com",
        b"call +441632960999",
    ]
    for body in bodies:
        await capture.hook(source, body, headers={"authorization": f"Bearer {source['secret']}"})
    await capture.map_deliveries()
    kept = "SELECT 1 FROM deliveries WHERE sealed IS NOT NULL"
    assert len(await capture.rows(kept)) == len(bodies)
    lead = await capture.lead(email=EMAIL, phone=PHONE)
    receipt = (await capture.post(f"leads/{lead['lead_id']}:erase", None)).json()
    assert receipt["services"]["capture"]["state"] == "running"
    await asyncio.gather(*(look_through_requests(capture.harness.consumer_runtime) for _ in range(3)))
    receipt = (await capture.get(f"erasures/{receipt['receipt_id']}")).json()
    assert receipt["services"]["capture"]["state"] == "done"
    assert receipt["services"]["capture"]["erased"]["kept_requests"] == 3
    assert len(await capture.rows(kept)) == 1
    assert await capture.rows("SELECT 1 FROM erasures WHERE traces IS NOT NULL OR due") == []
    summary = (await capture.get(f"sources/{source['source_id']}/deliveries:summary")).json()
    assert (summary["ignored"], summary["quarantined"]) == (3, 1)


async def test_what_dies_while_it_looks_through_requests_is_done_again(capture: Capture) -> None:
    source = await capture.source()
    await capture.hook(source, f"no JSON from {EMAIL}".encode())
    await capture.map_deliveries()
    lead = await capture.lead(email=EMAIL)
    receipt = (await capture.post(f"leads/{lead['lead_id']}:erase", None)).json()
    connection = await capture.harness.runtime.database.connect()
    held = connection.transaction()
    await held.start()
    await connection.execute("SELECT 1 FROM deliveries FOR UPDATE")
    looking = asyncio.create_task(look_through_requests(capture.harness.consumer_runtime))
    blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await eventually(lambda: capture.rows(blocked))
    looking.cancel()
    await asyncio.wait([looking])
    await held.rollback()
    await connection.close()
    path = f"erasures/{receipt['receipt_id']}"
    assert (await capture.get(path)).json()["services"]["capture"]["state"] == "running"
    await look_through_requests(capture.harness.consumer_runtime)
    assert (await capture.get(path)).json()["services"]["capture"]["erased"]["kept_requests"] == 1
