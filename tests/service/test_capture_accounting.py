"""Capture can account for every delivery: what became of it, what is still to come, and why a field did not map."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from services.capture.hooks import retrying
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture, ago
from throughline.services import service_code

ANN = "ann@example.com"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def summary(capture: Capture, source: dict[str, Any], **span: str) -> dict[str, int]:
    answer = await capture.get(f"sources/{source['source_id']}/deliveries:summary", **span)
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    assert counts["received"] == sum(count for name, count in counts.items() if name != "received")
    return counts


async def test_received_is_what_was_mapped_ignored_doubled_quarantined_and_is_pending(capture: Capture) -> None:
    source = await capture.source()
    other = await capture.source()
    form = {"email": ANN, "idempotency_key": "one"}
    for body in (form, form, form, {"idempotency_key": "nobody"}, b"{", b"{"):
        assert (await capture.hook(source, body)).status_code == 200
    assert await summary(capture, source) == {
        **dict.fromkeys(("mapped", "ignored", "duplicate", "quarantined"), 0),
        "received": 6,
        "pending": 6,
    }
    await capture.map_deliveries()
    counts = {"received": 6, "mapped": 1, "ignored": 1, "duplicate": 3, "quarantined": 1, "pending": 0}
    assert await summary(capture, source) == counts
    await capture.hook(source, form)
    assert await summary(capture, source) == {**counts, "received": 7, "pending": 1}
    await capture.map_deliveries()
    assert await summary(capture, source) == {**counts, "received": 7, "duplicate": 4}
    assert (await summary(capture, source, to=ago(hours=1)))["received"] == 0
    assert (await summary(capture, source, **{"from": ago(hours=1)}))["received"] == 7
    assert (await summary(capture, other))["received"] == 0


async def test_a_delivery_tells_its_facts_its_lead_and_how_often_it_came(capture: Capture) -> None:
    source = await capture.source()
    for _ in range(2):
        await capture.hook(source, {"email": ANN, "idempotency_key": "one"})
    await capture.map_deliveries()
    path = f"sources/{source['source_id']}/deliveries"
    (item,) = (await capture.get(path)).json()["items"]
    lead = (await capture.get("leads", email=ANN)).json()["items"][0]
    assert (item["lead_id"], item["received"], item["facts"]) == (lead["lead_id"], 2, 1)
    assert item["told"] == [{"kind": "lead", "idempotency_key": "generic:one"}]
    shown = (await capture.get(f"{path}/generic:one")).json()
    assert (shown["state"], shown["request"]) == ("mapped", None)
    assert (await capture.get(f"{path}/generic:other")).status_code == 404


async def test_what_is_quarantined_is_shown_retried_by_name_or_discarded_with_audit(capture: Capture) -> None:
    source = await capture.source()
    path = f"sources/{source['source_id']}/deliveries"
    for body in (b"{1", b"{2", b"{3"):
        await capture.hook(source, body)
    await capture.map_deliveries()
    waiting = [item["delivery_id"] for item in (await capture.get(path, state="quarantined")).json()["items"]]
    assert len(waiting) == 3
    shown = (await capture.get(f"{path}/{waiting[0]}")).json()
    assert shown["request"]["body"] in ("{1", "{2", "{3")
    assert source["secret"] not in str(shown)
    tried = await capture.post(f"{path}:retry", {"delivery_ids": [waiting[0], "unknown"]})
    assert tried.json() == {"tried": 1, "still_quarantined": 1}
    assert (await capture.post(f"{path}/{waiting[0]}:discard", {"reason": "a test of ours"})).status_code == 204
    assert (await capture.post(f"{path}/{waiting[0]}:discard", {"reason": "again"})).status_code == 404
    assert (await capture.post(f"{path}/{waiting[1]}:discard", {})).status_code == 422
    gone = (await capture.get(f"{path}/{waiting[0]}")).json()
    assert (gone["state"], gone["reason"], gone["request"]) == ("ignored", "discarded: a test of ours", None)
    assert (await summary(capture, source))["quarantined"] == 2
    (entry,) = await capture.rows("SELECT target, detail FROM audit_entries WHERE action = 'delivery.discarded'")
    assert entry == {"target": f"{source['source_id']}/{waiting[0]}", "detail": {"reason": "a test of ours"}}


async def test_a_preview_says_what_a_body_would_become_and_why_a_field_did_not_map(capture: Capture) -> None:
    mapping = {
        "email": "contact.mail",
        "company": {"cel": "body.org.name"},
        "first_name": {"cel": "body.contact.first"},
        "phone": "contact.tel",
    }
    source = await capture.source(mapping=mapping)
    body = {"contact": {"mail": ANN, "first": "Ann"}}
    seen = (await capture.post(f"sources/{source['source_id']}:preview", body)).json()
    (fact,) = seen["facts"]
    assert (fact["kind"], fact["email"], fact["first_name"]) == ("lead", ANN, "Ann")
    fields = {field["field"]: field for field in seen["fields"]}
    assert (fields["email"]["value"], fields["email"]["why"]) == (ANN, None)
    assert "contact" in fields["phone"]["why"]
    assert "org" in fields["company"]["why"]
    broken = await capture.harness.client.post(f"/v1/sources/{source['source_id']}:preview", content=b"{")
    assert broken.json()["facts"] == []
    assert broken.json()["problem"]
    assert (await capture.get("leads", email=ANN)).json()["items"] == []
    assert (await summary(capture, source))["received"] == 0


async def test_who_was_not_found_by_a_wrong_mapping_is_found_by_the_right_one(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "MOST_AT_ONCE", 1)
    source = await capture.source(mapping={"email": "who.mail"})
    path = f"sources/{source['source_id']}/deliveries"
    for body in ({"company": "Acme"}, {"company": "Bolt"}, {"person": {"mail": "ann@example.com"}}):
        await capture.hook(source, body)
    await capture.map_deliveries()
    kept = [item["delivery_id"] for item in (await capture.get(path, state="ignored")).json()["items"]]
    assert len(kept) == 3
    assert (await capture.get(f"{path}/{kept[0]}")).json()["request"]["body"]
    await capture.harness.client.patch(f"/v1/sources/{source['source_id']}", json={"mapping": {"email": "person.mail"}})
    tried = [(await capture.post(f"{path}:retry", None)).json() for _ in kept]
    assert sum(one["still_quarantined"] for one in tried) == 2
    assert len((await capture.get("leads", email="ann@example.com")).json()["items"]) == 1
    (mapped,) = (await capture.get(path, state="mapped")).json()["items"]
    for delivery_id in kept:
        status = 404 if delivery_id == mapped["delivery_id"] else 204
        answer = await capture.post(f"{path}/{delivery_id}:discard", {"reason": "nobody"})
        assert answer.status_code == status
    assert (await capture.post(f"{path}:retry", None)).json() == {"tried": 0, "still_quarantined": 0}
