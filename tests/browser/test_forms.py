"""Hosted forms in a real browser: alone and in pages of another origin, with scripts and without."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, FrameLocator, Page, expect

from shared.events import ConsentChanged, LeadCaptured, OptinPersonal, OptinRequested
from tests.browser.web_world import Web, stored

ANN = "ann@example.com"
FIELDS: list[dict[str, Any]] = [
    {"id": "email", "type": "email", "label": "Work email", "required": True},
    {"id": "first_name", "label": "First name", "help": "As your friends call you"},
    {"id": "size", "type": "radio", "label": "Company size", "options": [{"value": "small"}, {"value": "large"}]},
    {"id": "country", "type": "select", "label": "Country", "options": [{"value": "DE"}, {"value": "FR"}]},
    {"id": "message", "type": "textarea", "label": "What can we do for you?", "maps_to": "use_case"},
]
NEWS = {"id": "news", "purpose": "newsletter", "text": "Send me the newsletter, about once a month."}


async def made_form(web: Web, **changes: Any) -> dict[str, Any]:
    document = {"name": "Contact", "fields": FIELDS, "consents": [NEWS], "origins": [web.site], **changes}
    answer = await web.capture.post("forms", document)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def fill_in(place: Page | FrameLocator, email: str = ANN) -> None:
    """Type into the form, wherever it is."""
    await place.get_by_label("Work email").fill(email)
    await place.get_by_label("First name").fill("Ann")
    await place.get_by_label("large").check()
    await place.get_by_label("Country").select_option("DE")
    await place.get_by_label("Send me the newsletter").check()
    await place.get_by_role("button", name="Send").click()


async def lead_of(web: Web, email: str = ANN) -> dict[str, Any]:
    (lead,) = (await web.capture.get("leads", email=email)).json()["items"]
    return dict(lead)


async def opened(context: BrowserContext, address: str) -> Page:
    page = await context.new_page()
    await page.goto(address)
    return page


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_a_form_is_sent_with_scripts_and_without(web: Web, scripts: bool) -> None:
    form = await made_form(web)
    async with web.visitor(java_script_enabled=scripts) as context:
        page = await opened(context, f"{form['url']}?utm_source=card")
        await fill_in(page)
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        lead = await lead_of(web)
        assert (lead["first_name"], lead["country"], lead["attributes"]) == ("Ann", "DE", {"size": "large"})
        (touch,) = await web.touches(1)
        assert (touch.type, touch.source, touch.page) == ("form_submitted", "card", form["url"])
        assert len(await web.capture.harness.told(ConsentChanged)) == 1
        assert await context.cookies() == []


async def test_the_script_does_the_work_and_sends_it_along(web: Web) -> None:
    form = await made_form(web)
    async with web.visitor() as context:
        page = await opened(context, form["url"])
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None)
        await fill_in(page)
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        assert "_proof=&" not in sent[0]
        assert "_proof=" in sent[0]
    (submission,) = (await web.capture.get(f"forms/{form['form_id']}/submissions")).json()["items"]
    assert submission["state"] == "accepted"


async def test_a_double_click_and_going_back_make_one_touch(web: Web) -> None:
    form = await made_form(web)
    async with web.visitor() as context:
        page = await opened(context, form["url"])
        await page.get_by_label("Work email").fill(ANN)
        await page.get_by_role("button", name="Send").dblclick()
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        await page.go_back()
        await page.get_by_label("Work email").fill(ANN)
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert len({touch.touch_id for touch in await web.touches(1)}) == 1
    assert len(await web.capture.harness.told(LeadCaptured)) == 1


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
async def test_what_is_wrong_is_said_where_it_is(web: Web, scripts: bool) -> None:
    form = await made_form(web)
    async with web.visitor(java_script_enabled=scripts) as context:
        page = await opened(context, form["url"])
        await page.get_by_label("First name").fill("Ann")
        await page.get_by_role("button", name="Send").click()
        email = page.get_by_label("Work email")
        await expect(email).to_have_attribute("aria-invalid", "true")
        await expect(email).to_have_accessible_description("Please fill this in.")
        await expect(page.get_by_role("alert")).to_contain_text("Work email")
        await expect(page.get_by_label("First name")).to_have_value("Ann")
        await page.get_by_role("alert").get_by_role("link", name="Work email").click()
        await expect(email).to_be_focused()
        await email.fill(ANN)
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    assert (await lead_of(web))["first_name"] == "Ann"


async def test_a_person_neither_sees_nor_reaches_the_trap_and_a_machine_falls_into_it(web: Web) -> None:
    form = await made_form(web)
    async with web.visitor() as context:
        page = await opened(context, form["url"])
        await expect(page.locator("[name=homepage]")).not_to_be_in_viewport()
        names = []
        await page.get_by_label("Work email").focus()
        for _ in range(12):
            names.append(await page.evaluate("document.activeElement.name"))
            await page.keyboard.press("Tab")
        assert "homepage" not in names
        assert "news" in names
        await page.evaluate("document.querySelector('[name=homepage]').value = 'https://spam.example'")
        await fill_in(page)
        await expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
    (submission,) = (await web.capture.get(f"forms/{form['form_id']}/submissions")).json()["items"]
    assert (submission["state"], submission["reasons"]) == ("spam", ["trap_filled_in"])
    assert await web.capture.harness.told(LeadCaptured) == []


async def test_embedded_by_its_script_a_form_is_as_high_as_it_is_and_knows_the_visit(web: Web) -> None:
    form = await made_form(web)
    await web.with_snippet()
    web.pages.bodies["/contact"] = f"<h1>Contact</h1>{form['embed']['script']}<p>Below</p>"
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/?utm_source=news")
        await web.touches(2)
        await page.goto(f"{web.site}/contact")
        frame = page.frame_locator("iframe")
        await expect(frame.get_by_label("Work email")).to_be_visible()
        await page.wait_for_function("document.querySelector('iframe').offsetHeight > 560")
        height = await page.evaluate("document.querySelector('iframe').offsetHeight")
        inner = await frame.locator("html").evaluate("document.documentElement.scrollHeight")
        assert abs(inner - height) <= 2
        await frame.get_by_role("button", name="Send").click()
        await expect(frame.get_by_role("alert")).to_be_visible()
        await page.wait_for_function(f"document.querySelector('iframe').offsetHeight > {height}")
        visitor = frame.locator("[name=_visitor]")
        await expect(visitor).not_to_have_value("")
        await fill_in(frame)
        await expect(frame.get_by_role("heading", name="Thank you")).to_be_visible()
        await page.wait_for_function(f"document.querySelector('iframe').offsetHeight < {height}")
        (touch,) = await web.touches(1, "form_submitted")
        assert (touch.source, touch.page) == ("news", f"{web.site}/contact")
        personal = await web.opened(touch)
        assert personal.anonymous_id == json.loads((await stored(page))["throughline.v"])["id"]


async def test_embedded_by_an_iframe_alone_a_form_is_sent_without_scripts(web: Web) -> None:
    form = await made_form(web)
    web.pages.bodies["/contact"] = form["embed"]["iframe"]
    async with web.visitor(java_script_enabled=False) as context:
        page = await opened(context, f"{web.site}/contact")
        frame = page.frame_locator("iframe")
        await fill_in(frame)
        await expect(frame.get_by_role("heading", name="Thank you")).to_be_visible()
    assert (await lead_of(web))["first_name"] == "Ann"


async def test_a_page_of_another_origin_cannot_embed_a_form(web: Web) -> None:
    form = await made_form(web, origins=["https://www.acme.com"])
    web.pages.bodies["/contact"] = form["embed"]["iframe"]
    async with web.visitor() as context:
        refusals: list[str] = []
        page = await context.new_page()
        page.on("console", lambda message: refusals.append(message.text))
        await page.goto(f"{web.site}/contact")
        await page.wait_for_load_state("networkidle")
        assert await page.frame_locator("iframe").get_by_label("Work email").count() == 0
        assert [text for text in refusals if "frame-ancestors" in text]


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "alone"])
async def test_a_redirect_leads_the_whole_page_on(web: Web, embedded: bool) -> None:
    form = await made_form(web, redirect=f"{web.site}/welcome")
    web.pages.bodies["/contact"] = form["embed"]["script"]
    async with web.visitor() as context:
        page = await opened(context, f"{web.site}/contact" if embedded else form["url"])
        await fill_in(page.frame_locator("iframe") if embedded else page)
        await page.wait_for_url(f"{web.site}/welcome")
    assert (await lead_of(web))["first_name"] == "Ann"


async def test_a_link_confirms_by_its_button_alone(web: Web) -> None:
    form = await made_form(web, double_opt_in=True)
    async with web.visitor() as context:
        page = await opened(context, form["url"])
        await fill_in(page)
        await expect(page.get_by_text("Please look into your mailbox")).to_be_visible()
        (fact,) = await web.capture.harness.told(OptinRequested)
        runtime = web.capture.harness.runtime
        async with runtime.database.reading() as connection:
            (text,) = await runtime.keys.open_many(connection, [(fact.lead_id, fact.personal)])
        assert text is not None
        await page.goto(OptinPersonal.model_validate_json(text).confirm_url)
        await expect(page.get_by_text("about once a month")).to_be_visible()
        assert await web.capture.harness.told(ConsentChanged) == []
        await page.get_by_role("button", name="Yes, I agree").click()
        await expect(page.get_by_role("heading", name="Confirmed")).to_be_visible()
    (word,) = await web.capture.harness.told(ConsentChanged)
    assert (word.purpose, word.state) == ("newsletter", "granted")


@pytest.mark.parametrize("width", [390, 1280])
async def test_a_form_looks_right_on_a_phone_and_on_a_desk(web: Web, width: int, tmp_path: Path) -> None:
    form = await made_form(
        web,
        texts={"title": "Talk to us", "intro": "We answer within one working day.\nNo calls unless you ask for one."},
        theme={"accent": "#0f766e"},
    )
    async with web.visitor(viewport={"width": width, "height": 900}) as context:
        page = await opened(context, form["url"])
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("alert")).to_be_visible()
        picture = tmp_path / f"form-{width}.png"
        await page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        button = await page.get_by_role("button", name="Send").bounding_box()
        assert button is not None
        assert button["height"] >= 44
