"""The tracking snippet in a real browser, on a page of another origin than Throughline's."""

import json
from datetime import UTC, datetime

import pytest
from playwright.async_api import BrowserContext, Page

from shared.testing import eventually
from tests.browser.web_world import Web, stored

GRANT = "throughline('consent', 'granted')"
DENY = "throughline('consent', 'denied')"
READY = "window.throughline && throughline.on"


async def opened(context: BrowserContext, address: str) -> Page:
    """A page whose snippet has begun."""
    page = await context.new_page()
    await page.goto(address)
    await page.wait_for_function(READY)
    return page


def asked_for(page: Page) -> list[str]:
    """The addresses that a page posts to, as it does."""
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    return posts


async def test_before_consent_nothing_is_stored_and_nothing_sent_and_after_it_all_of_the_page_is(web: Web) -> None:
    await web.with_snippet("required")
    async with web.visitor() as context:
        await context.clock.install()
        page = await context.new_page()
        posts = asked_for(page)
        await page.goto(f"{web.site}/?utm_source=news")
        await page.wait_for_function(READY)
        await page.evaluate("throughline('track', 'demo_requested', {plan: 'pro'})")
        await page.evaluate("history.pushState({}, '', '/pricing')")
        await page.evaluate("window.dispatchEvent(new Event('pagehide'))")
        await context.clock.run_for("02:00")
        assert (await stored(page), await context.cookies(), posts) == ({}, [], [])
        await page.evaluate(GRANT)
        assert sorted(await web.kinds(4)) == ["demo_requested", "page_view", "page_view", "session_started"]
        assert {touch.source for touch in await web.touches(4)} == {"news"}
        kept = json.loads((await stored(page))["throughline.v"])
        assert (len(kept["id"]), kept["n"]) == (32, 1)
        assert await context.cookies() == []


async def test_consent_is_remembered_by_the_next_page_and_denied_removes_it(web: Web) -> None:
    await web.with_snippet("required")
    async with web.visitor() as context:
        await context.clock.install()
        page = await opened(context, f"{web.site}/")
        await page.evaluate(GRANT)
        await web.touches(2)
        await page.goto(f"{web.site}/pricing")
        assert (await web.kinds(3)).count("page_view") == 2
        await page.evaluate(DENY)
        assert await stored(page) == {}
        await page.evaluate("throughline('track', 'demo_requested')")
        await page.goto(f"{web.site}/late")
        await page.wait_for_function(READY)
        await context.clock.run_for("02:00")
        assert await stored(page) == {}
        assert len(await web.touches(3)) == 3


async def test_where_silence_is_consent_a_refusal_is_remembered_without_an_id(web: Web) -> None:
    await web.with_snippet("implied")
    async with web.visitor() as context:
        await context.clock.install()
        page = await opened(context, f"{web.site}/")
        await web.touches(2)
        await page.evaluate(DENY)
        await page.goto(f"{web.site}/next")
        await page.wait_for_function(READY)
        await context.clock.run_for("02:00")
        assert await stored(page) == {"throughline": "0"}
        assert len(await web.touches(2)) == 2
        await page.evaluate(GRANT)
        await page.evaluate("throughline('page')")
        await web.touches(4)


@pytest.mark.parametrize("signal", ["globalPrivacyControl", "doNotTrack"])
async def test_a_browser_that_asks_not_to_be_tracked_is_not_unless_the_person_says_so(web: Web, signal: str) -> None:
    await web.with_snippet("implied")
    async with web.visitor() as context:
        await context.clock.install()
        value = "true" if signal == "globalPrivacyControl" else "'1'"
        await context.add_init_script(f"Object.defineProperty(navigator, '{signal}', {{get: () => {value}}})")
        page = await opened(context, f"{web.site}/")
        await context.clock.run_for("02:00")
        assert await stored(page) == {}
        await page.evaluate(GRANT)
        await page.goto(f"{web.site}/next")
        (view, *_) = await web.touches(1, "page_view")
        assert view.page == f"{web.site}/next"


async def test_a_step_within_the_page_is_a_page_view_and_the_same_address_is_none(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/a")
        await web.touches(2)
        await page.evaluate("history.pushState({}, '', '/b?x=1')")
        await web.touches(3)
        await page.evaluate("history.replaceState({y: 1}, '', '/b?x=1'); history.replaceState({}, '', '/b?x=1#part')")
        await page.evaluate("history.replaceState({}, '', '/c')")
        await web.touches(4)
        await page.evaluate("history.back()")
        views = await web.touches(4, "page_view")
        assert [view.page for view in views] == [f"{web.site}/{name}" for name in ("a", "b", "c", "a")]
        assert (await web.opened(views[1])).referrer is None  # a step within a site that was entered directly


async def test_the_part_after_the_hash_counts_where_asked(web: Web) -> None:
    await web.with_snippet(extra="data-hash")
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/#/a")
        await web.touches(2)
        await page.evaluate("location.hash = '#/b'")
        views = await web.touches(2, "page_view")
        assert [(await web.opened(view)).url for view in views] == [f"{web.site}/#/a", f"{web.site}/#/b"]


async def test_what_waits_when_the_page_ends_leaves_in_one_beacon(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/")
        await web.touches(2)
        before = web.app.posts
        await page.evaluate("for (let n = 0; n < 5; n++) throughline('track', 'video_played', {n})")
        await page.goto("about:blank")
        played = await web.touches(5, "video_played")
        assert sorted([(await web.opened(touch)).properties["n"] for touch in played]) == [0, 1, 2, 3, 4]
        assert web.app.posts == before + 1


async def test_what_happens_offline_is_sent_when_the_line_is_back_by_whichever_page(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        await context.clock.install()
        page = await opened(context, f"{web.site}/")
        await web.touches(2)
        await context.set_offline(True)
        await page.evaluate("throughline('track', 'video_played', {n: 1})")
        await context.clock.run_for("02:00")
        await context.set_offline(False)
        await web.touches(1, "video_played")
        web.app.away = True  # now it is not the line
        await page.evaluate("throughline('track', 'video_played', {n: 2})")
        await page.goto("about:blank")
        web.app.away = False
        await page.goto(f"{web.site}/later")
        played = await web.touches(2, "video_played")
        assert len(played) == 2
        assert (played[1].occurred_at - played[0].occurred_at).total_seconds() > 0

        async def nothing_waits() -> bool:
            return set(await stored(page)) == {"throughline.v"}

        await eventually(nothing_waits)


async def test_what_waits_is_bounded(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/")
        await web.touches(2)
        web.app.away = True
        await page.evaluate("for (let n = 0; n < 500; n++) throughline('track', 'video_played', {n})")
        kept = [json.loads(value) for key, value in (await stored(page)).items() if ".q." in key]
        assert [len(queue["events"]) for queue in kept] == [100]


async def test_a_session_ends_after_half_an_hour_of_silence_and_not_by_a_campaign(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        await context.clock.install(time=datetime.now(UTC))
        page = await opened(context, f"{web.site}/?utm_source=one&gclid=g1")
        await context.clock.run_for(2_000)
        await web.touches(2)
        await context.clock.run_for("29:00")
        await page.goto(f"{web.site}/second?utm_source=two")
        await page.wait_for_function(READY)
        await context.clock.run_for(2_000)
        await web.touches(3)
        await context.clock.run_for("29:00")
        await page.goto(f"{web.site}/third")
        await page.wait_for_function(READY)
        await context.clock.run_for(2_000)
        await web.touches(4)
        await context.clock.run_for("31:00")
        await page.goto(f"{web.site}/fourth?utm_source=three")
        await page.wait_for_function(READY)
        await context.clock.run_for(2_000)
        await web.touches(6)
        started = await web.touches(2, "session_started")
        assert [(await web.opened(touch)).properties["session_number"] for touch in started] == [1, 2]
        assert [touch.page for touch in started] == [f"{web.site}/", f"{web.site}/fourth"]
        views = {view.page: view for view in await web.touches(4, "page_view")}
        told = {page: (view.source, view.click_ids) for page, view in views.items()}
        assert told == {
            f"{web.site}/": ("one", ("gclid",)),
            f"{web.site}/second": ("two", ()),
            f"{web.site}/third": ("one", ("gclid",)),
            f"{web.site}/fourth": ("three", ()),
        }


async def test_tabs_are_one_visitor_in_one_session(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        await context.clock.install()
        first = await opened(context, f"{web.site}/one")
        second = await opened(context, f"{web.site}/two")
        for page in (first, second, first):
            await page.evaluate("throughline('track', 'video_played')")
        touches = await web.touches(6)
        assert len({touch.lead_id for touch in touches}) == 1
        assert [touch.type for touch in touches].count("session_started") == 1
        await first.evaluate(DENY)
        await second.wait_for_function("localStorage.throughline === '0'")  # tabs hear of each other a moment later
        await second.evaluate("throughline('track', 'too_late')")
        await context.clock.run_for("02:00")
        assert await stored(second) == {"throughline": "0"}
        assert [touch.type for touch in await web.touches(6)].count("too_late") == 0


@pytest.mark.parametrize(("consent", "left"), [("required", {}), ("implied", {"throughline": "0"})])
async def test_a_denial_in_one_tab_outlives_what_another_tab_writes_in_that_moment(
    web: Web, consent: str, left: dict[str, str]
) -> None:
    await web.with_snippet(consent)
    async with web.visitor() as context:
        await context.clock.install()
        page = await opened(context, f"{web.site}/one")
        await page.evaluate(GRANT)
        async with page.expect_popup() as opening:
            await page.evaluate("window.other = window.open('/two')")
        other = await opening.value
        await other.wait_for_function(READY)
        before = len(await web.touches(3))
        denied_between_reading_and_writing = """() => {
            const native = Storage.prototype.setItem;
            Storage.prototype.setItem = function (key, value) {
                Storage.prototype.setItem = native;
                other.throughline('consent', 'denied');
                native.call(this, key, value);
            };
            throughline('track', 'too_late');
        }"""
        await page.evaluate(denied_between_reading_and_writing)

        async def only_the_word_is_left() -> bool:
            return await stored(page) == left

        await eventually(only_the_word_is_left)
        await page.goto(f"{web.site}/next")
        await page.wait_for_function(READY)
        await page.evaluate("throughline('track', 'too_late')")
        await context.clock.run_for("02:00")
        assert await stored(page) == left
        assert len(await web.touches(before)) == before


async def test_a_page_that_ended_before_it_heard_of_a_denial_leaves_no_id_to_the_next(web: Web) -> None:
    await web.with_snippet("required")
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/")
        await page.evaluate(GRANT)
        first = (await web.touches(2))[0].lead_id
        left = await stored(page)
        await page.evaluate(DENY)
        left = {name: value for name, value in left.items() if name != "throughline"}
        assert "throughline.v" in left
        await page.evaluate("left => Object.assign(localStorage, left)", left)
        await page.goto(f"{web.site}/next")
        await page.wait_for_function(READY)
        assert await stored(page) == {}
        await page.evaluate(GRANT)
        touches = await web.touches(4)
        assert [touch.lead_id == first for touch in touches].count(True) == 2


async def test_an_id_is_not_kept_for_longer_than_thirteen_months(web: Web) -> None:
    await web.with_snippet("required")
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/")
        await page.evaluate(GRANT)
        first = (await web.touches(2))[0].lead_id
        await page.evaluate(
            "const kept = JSON.parse(localStorage['throughline.v']); kept.since -= 396 * 864e5;"
            "localStorage['throughline.v'] = JSON.stringify(kept); localStorage.throughline -= 396 * 864e5"
        )
        await page.goto(f"{web.site}/next")
        await page.wait_for_function(READY)
        assert await stored(page) == {}
        await page.evaluate(GRANT)
        assert {touch.lead_id for touch in await web.touches(4)} > {first}


async def test_an_identify_call_before_the_snippet_is_there_makes_a_lead(web: Web) -> None:
    await web.with_snippet()
    web.pages.bodies["/"] = "<script>throughline('identify', {email: 'ann@example.com', first_name: 'Ann'})</script>"
    async with web.visitor() as context:
        await opened(context, f"{web.site}/")

        async def heard() -> bool:
            return bool(await web.identified())

        await eventually(heard)
        await web.capture.harness.deliver(*await web.identified())
        (lead,) = (await web.capture.get("leads", email="ann@example.com")).json()["items"]
        assert lead["first_name"] == "Ann"


async def test_a_page_without_storage_is_not_disturbed(web: Web) -> None:
    await web.with_snippet()
    async with web.visitor() as context:
        await context.add_init_script(
            "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
        )
        page = await opened(context, f"{web.site}/")
        await page.evaluate("throughline('track', 'video_played'); throughline('nonsense'); throughline('track', null)")
        touches = await web.touches(3)
        assert len({touch.lead_id for touch in touches}) == 1
