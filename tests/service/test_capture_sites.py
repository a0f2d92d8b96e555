"""Sites through the API on real PostgreSQL: what pages send, and what they cannot do."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from shared.events import (
    IdentityLinked,
    LeadCaptured,
    LeadMerged,
    TouchPersonal,
    TouchRecorded,
    VisitorIdentified,
)
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import Capture
from throughline.services import service_code

ANN = "ann@example.com"
ACME = "https://www.acme.com"
BROWSER = "0123456789abcdef0123456789abcdef"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Capture]:
    async with harness(service_code("capture"), settings) as made:
        yield Capture(made)


async def made_site(capture: Capture, **fields: Any) -> dict[str, Any]:
    answer = await capture.post("sites", {"name": "Acme", "origins": [ACME], **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def event(name: str = "e1", kind: str = "page_view", **fields: Any) -> dict[str, Any]:
    page = {"url": f"{ACME}/", "referrer": "", "title": "Acme", "at": int(time.time() * 1_000)}
    return {"id": name, "anonymous_id": BROWSER, "type": kind, **page, **fields}


async def sent(capture: Capture, site_id: str, *events: Any, origin: str | None = ACME, **more: Any) -> httpx.Response:
    headers = {"user-agent": CHROME, "content-type": "text/plain;charset=UTF-8", **more.pop("headers", {})}
    if origin is not None:
        headers["origin"] = origin
    body = {"sent_at": int(time.time() * 1_000), "events": list(events), **more}
    client = capture.harness.client
    return await client.post(f"/t/{site_id}", content=orjson.dumps(body), headers={**headers, "authorization": ""})


async def opened(capture: Capture, touch: TouchRecorded) -> TouchPersonal:
    async with capture.harness.runtime.database.reading() as connection:
        (text,) = await capture.harness.runtime.keys.open_many(connection, [(touch.lead_id, touch.personal)])
    assert text is not None
    return TouchPersonal.model_validate_json(text)


async def identify(capture: Capture, site_id: str, browser: str = BROWSER, **traits: Any) -> None:
    """A page says who its visitor is, and the consumer hears of it."""
    known = {fact.event_id for fact in await capture.harness.told(VisitorIdentified)}
    answer = await sent(
        capture, site_id, event(f"i{len(known)}", "identify", properties=traits) | {"anonymous_id": browser}
    )
    assert answer.status_code == 202, answer.text
    fresh = [fact for fact in await capture.harness.told(VisitorIdentified) if fact.event_id not in known]
    await capture.harness.deliver(*fresh)


async def test_a_site_is_made_listed_changed_and_dropped(capture: Capture) -> None:
    site = await made_site(capture, consent="implied")
    assert 'data-consent="implied"' in site["snippet"]
    assert site["site_id"] in site["snippet"]
    assert (await capture.get("sites")).json()["items"] == [site]
    client = capture.harness.client
    changed = await client.patch(f"/v1/sites/{site['site_id']}", json={"origins": ["https://*.acme.com/"]})
    assert changed.json()["origins"] == ["https://*.acme.com"]
    assert (await sent(capture, site["site_id"], event(), origin="https://shop.acme.com")).status_code == 202
    assert (await client.delete(f"/v1/sites/{site['site_id']}")).status_code == 204
    assert (await sent(capture, site["site_id"], event())).status_code == 404
    assert (await client.get(f"/v1/sites/{site['site_id']}")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"origins": []}, "/origins"),
        ({"origins": ["acme.com"]}, "/origins/0"),
        ({"origins": ["https://acme.com/path"]}, "/origins/0"),
        ({"consent": "maybe"}, "/consent"),
        ({"name": ""}, "/name"),
        ({"secret": "x"}, "/secret"),
    ],
)
async def test_a_bad_site_is_refused_with_its_fields(capture: Capture, fields: dict[str, Any], pointer: str) -> None:
    answer = await capture.post("sites", {"name": "Acme", "origins": [ACME], **fields})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_the_snippet_is_cached_by_whoever_asked_before(capture: Capture) -> None:
    first = await capture.harness.client.get("/t.js")
    assert first.headers["content-type"].startswith("text/javascript")
    assert "max-age" in first.headers["cache-control"]
    assert (first.headers["access-control-allow-origin"], first.status_code) == ("*", 200)
    again = await capture.harness.client.get("/t.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_page_view_is_a_touch_of_the_browser_with_the_sessions_source(capture: Capture) -> None:
    site = await made_site(capture)
    landing = {"number": 2, "url": f"{ACME}/?utm_source=news&gclid=1", "referrer": "https://www.google.com/"}
    later = event(url=f"{ACME}/pricing?x=1", referrer=f"{ACME}/", session=landing, properties={"plan": "pro"})
    answer = await sent(capture, site["site_id"], later)
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
    assert answer.headers["access-control-allow-origin"] == ACME
    (touch,) = await capture.harness.told(TouchRecorded)
    assert touch.lead_id == capture.harness.runtime.ids.of_anonymous_id(BROWSER)
    assert (touch.source, touch.click_ids, touch.page) == ("news", ("gclid",), f"{ACME}/pricing")
    assert (touch.referrer_host, touch.origin) == ("www.google.com", site["site_id"])
    personal = await opened(capture, touch)
    assert personal.properties == {
        "plan": "pro",
        "title": "Acme",
        "session_number": 2,
        "session_id": f"{BROWSER}.2",
    }


async def test_the_same_event_again_is_the_same_fact_whenever_it_comes(capture: Capture) -> None:
    site = await made_site(capture)
    await sent(capture, site["site_id"], event())
    await sent(capture, site["site_id"], event(), sent_at=int(time.time() * 1_000) + 3_600_000)
    first, second = await capture.harness.told(TouchRecorded)
    assert first.event_id == second.event_id
    await sent(capture, site["site_id"], event() | {"anonymous_id": "another-browser"})
    assert (await capture.harness.told(TouchRecorded))[2].touch_id != first.touch_id


async def test_of_a_batch_the_good_events_are_kept_and_the_others_named(capture: Capture) -> None:
    site = await made_site(capture)
    bad = [event("e2", "Page View"), event("e3", url=5), event("e4", properties={"x": "\x00"}), event("e5", extra=1)]
    answer = await sent(capture, site["site_id"], event(), *bad)
    assert answer.json()["accepted"] == 1
    assert [entry["index"] for entry in answer.json()["rejected"]] == [1, 2, 3, 4]
    assert answer.json()["rejected"][0]["errors"][0]["pointer"] == "/events/1/type"
    assert len(await capture.harness.told(TouchRecorded)) == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b'{"events":[]}', b'{"events":{}}', b"\xff\xfe", b"[" * 9_999]
)
async def test_a_body_that_is_none_is_refused(capture: Capture, body: bytes) -> None:
    site = await made_site(capture)
    answer = await capture.harness.client.post(
        f"/t/{site['site_id']}", content=body, headers={"user-agent": CHROME, "origin": ACME}
    )
    assert answer.status_code in (400, 422)
    assert answer.headers["access-control-allow-origin"] == ACME


async def test_only_pages_of_the_site_may_send(capture: Capture) -> None:
    site = await made_site(capture)
    for origin in ("https://evil.example", "null"):
        answer = await sent(capture, site["site_id"], event(), origin=origin)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    assert (await sent(capture, site["site_id"], event(), origin=None)).status_code == 202
    for unknown in ("nonsense", "00000000-0000-4000-8000-000000000000"):
        assert (await sent(capture, unknown, event())).status_code == 404


async def test_robots_and_large_bodies_leave_nothing(capture: Capture) -> None:
    site = await made_site(capture)
    robot = await sent(capture, site["site_id"], event(), headers={"user-agent": "Googlebot/2.1"})
    assert (robot.status_code, robot.json()["accepted"]) == (202, 0)
    large = await sent(capture, site["site_id"], event(properties={"x": "y" * 66_000}))
    assert large.status_code == 413
    assert await capture.harness.told(TouchRecorded) == []


async def test_a_flood_from_one_address_is_told_to_wait(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THROUGHLINE_CAPTURE_SITE_REQUESTS_AT_ONCE", "3")
    monkeypatch.setenv("THROUGHLINE_CAPTURE_SITE_REQUESTS_A_SECOND", "0.001")
    async with harness(service_code("capture"), settings) as made:
        capture = Capture(made)
        site = await made_site(capture)
        answers = [await sent(capture, site["site_id"], event(f"e{n}")) for n in range(5)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
        assert int(answers[4].headers["retry-after"]) >= 1
        assert answers[4].headers["access-control-allow-origin"] == ACME
        other = await sent(capture, site["site_id"], event("e9"), headers={"x-forwarded-for": "8.8.8.8"})
        assert other.status_code == 202


async def test_an_identify_call_makes_a_lead_of_somebody_new_and_links_the_browser(capture: Capture) -> None:
    site = await made_site(capture)
    await identify(capture, site["site_id"], email=" Ann@Example.com", first_name="Ann", attributes={"plan": "pro"})
    (item,) = (await capture.get("leads", email=ANN)).json()["items"]
    assert (item["first_name"], item["attributes"], item["consent"]) == ("Ann", {"plan": "pro"}, {})
    (link,) = await capture.harness.told(IdentityLinked)
    assert link.anonymous_lead_id == capture.harness.runtime.ids.of_anonymous_id(BROWSER)
    assert ANN not in (await capture.harness.told(VisitorIdentified))[0].encode().decode()


async def test_identifying_as_somebody_else_learns_nothing_and_changes_nothing_of_theirs(capture: Capture) -> None:
    site = await made_site(capture)
    before = await capture.lead(email=ANN, first_name="Ann", phone="+4915112345678", external_id="crm-1")
    told = len(await capture.harness.told(LeadCaptured))
    known = await sent(capture, site["site_id"], event("i1", "identify", properties={"email": ANN}))
    unknown = await sent(capture, site["site_id"], event("i2", "identify", properties={"email": "no@example.com"}))
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    await identify(
        capture, site["site_id"], email=ANN, first_name="Eve", phone="+4915187654321", attributes={"evil": True}
    )
    assert (await capture.get(f"leads/{before['lead_id']}")).json() == before
    assert len(await capture.harness.told(LeadCaptured)) == told


async def test_an_identify_call_never_ties_two_known_people(capture: Capture) -> None:
    site = await made_site(capture)
    await capture.lead(phone="+4915112345678", first_name="Ben")
    await capture.lead(email=ANN)
    await capture.lead(anonymous_id=BROWSER, first_name="Visitor")
    merges = len(await capture.harness.told(LeadMerged))
    await identify(capture, site["site_id"], email=ANN, phone="+4915112345678", user_id="u1")
    await identify(capture, site["site_id"], email="eve@example.com", phone="+4915112345678")
    assert len([fact for fact in await capture.harness.told(LeadMerged) if fact.identifier is None]) == merges
    (ben,) = (await capture.get("leads", phone="+4915112345678")).json()["items"]
    assert (ben["first_name"], ben["email"]) == ("Ben", None)
    (ann,) = (await capture.get("leads", email=ANN)).json()["items"]
    assert ann["first_name"] is None


async def test_two_identify_calls_at_once_make_one_lead_that_the_second_does_not_change(capture: Capture) -> None:
    site = await made_site(capture)
    for name, first in (("i1", "Ann"), ("i2", "Eve")):
        await sent(capture, site["site_id"], event(name, "identify", properties={"email": ANN, "first_name": first}))
    facts = await capture.harness.told(VisitorIdentified)
    await asyncio.gather(*(capture.harness.deliver(fact) for fact in facts))
    captured = await capture.harness.told(LeadCaptured)
    assert len(captured) == 1
    await capture.harness.deliver(*facts)
    assert len(await capture.harness.told(LeadCaptured)) == 1


async def test_what_identifies_nobody_is_passed_over(capture: Capture) -> None:
    site = await made_site(capture)
    await identify(capture, site["site_id"], email="nonsense", first_name="Ann")
    await identify(capture, site["site_id"], first_name="Ann")
    assert await capture.harness.told(LeadCaptured) == []
    assert await capture.harness.parked() == []
    bad = await sent(capture, site["site_id"], event("i9", "identify", properties={"email": 5, "role": "admin"}))
    assert bad.status_code == 422
    assert {fault["pointer"] for fault in bad.json()["errors"]} == {
        "/events/0/properties/email",
        "/events/0/properties/role",
    }
