"""The preference page in a real browser, without scripts: what somebody chooses there is what counts."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from deploy.embedded.ports import free_port
from shared.events import ConsentChanged
from shared.settings import Settings
from shared.testing import Harness, harness
from shared.web import create_app, edged
from tests.browser.web_world import served
from tests.service.nurture_world import Facts
from throughline.services import service_code

ANN = "ann@example.com"


@pytest_asyncio.fixture
async def nurture(settings: Settings) -> AsyncIterator[Harness]:
    port = free_port()
    settings = settings.model_copy(update={"public_url": f"http://127.0.0.1:{port}"})
    code = service_code("nurture")
    async with harness(code, settings) as made:
        app = edged(create_app(code.name, settings, made.runtime.secrets, code.routers(made.runtime)), settings)
        async with served(app, port):
            yield made


async def test_a_person_chooses_pauses_changes_the_language_and_leaves(nurture: Harness, chromium: Browser) -> None:
    facts = Facts(nurture.runtime)
    await nurture.deliver(await facts.captured(ANN, phone="+4915112345678"), facts.consent(ANN))
    url = (await nurture.client.get(f"/v1/leads/{facts.lead_id(ANN)}/preferences")).json()["url"]
    context = await chromium.new_context(
        java_script_enabled=False, locale="en-GB", viewport={"width": 360, "height": 740}
    )
    page = await context.new_page()
    broken: list[str] = []
    page.on("console", lambda message: broken.append(message.text) if message.type == "error" else None)
    await page.goto(url)
    await expect(page.get_by_role("heading", level=1, name="Your preferences")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    assert await page.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "576px"
    news = page.get_by_role("group", name="Newsletter")
    await expect(news.get_by_label("Email")).to_be_checked()
    await expect(news.get_by_label("Text message")).not_to_be_checked()
    await news.get_by_label("Email").uncheck()
    await page.get_by_role("group", name="Events").get_by_label("Text message").check()
    await page.get_by_label("Language").select_option("es")
    await page.get_by_role("button", name="Save").press("Enter")
    await expect(page.get_by_role("status")).to_have_text("Sus preferencias se han guardado.")
    await _is_in_spanish(page)
    said = {(word.purpose, word.channel, word.state) for word in await nurture.told(ConsentChanged)}
    assert said == {("newsletter", "email", "denied"), ("events", "sms", "granted")}
    await page.get_by_role("button", name="Pausa de 30 días").click()
    await expect(page.get_by_text("En pausa hasta el")).to_be_visible()
    await page.get_by_role("button", name="Terminar la pausa").click()
    await expect(page.get_by_role("button", name="Pausa de 30 días")).to_be_visible()
    await page.get_by_role("button", name="Darse de baja de todo").click()
    await expect(page.get_by_role("status")).to_have_text("Se ha dado de baja de todo.")
    assert await page.get_by_role("checkbox", checked=True).count() == 0
    assert await context.cookies() == [] and broken == []
    await page.goto(url[:-3] + "abc")
    await expect(page.get_by_role("heading", name="This link is not valid")).to_be_visible()
    await context.close()


async def _is_in_spanish(page: Page) -> None:
    await expect(page.get_by_role("heading", level=1, name="Sus preferencias")).to_be_visible()
    assert await page.get_attribute("html", "lang") == "es"
