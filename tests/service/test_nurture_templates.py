"""Stored templates: their life, what steps send by them, previews with real leads, links followed."""

import asyncio
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import pytest
import pytest_asyncio

from shared.settings import Settings
from shared.testing import harness
from tests.service.local_server import Asked, LocalServer, reply, serving
from tests.service.nurture_world import Facts, World, make_sender, open_inbox
from throughline.services import service_code

pytestmark = pytest.mark.slow
ANN = "ann@acme.example"
FOOTER = {
    "template_id": "footer",
    "name": "Footer",
    "part": {
        "mjml": "<mj-section><mj-column><mj-text>Acme. <a href='{{ unsubscribe_url }}'>Leave</a></mj-text></mj-column>"
        "</mj-section>",
        "html": '<p><a href="{{ unsubscribe_url }}">Leave</a></p>',
    },
}
WELCOME: dict[str, Any] = {
    "template_id": "hello",
    "name": "Hello",
    "message": {
        "subject": "Hello {{ lead.first_name }}",
        "mjml": "<mjml><mj-body><mj-section><mj-column><mj-text>Dear {{ lead.first_name }}</mj-text>"
        '<mj-button href="{{ site_url }}/tour">Tour</mj-button></mj-column></mj-section>{% include "footer" %}'
        "</mj-body></mjml>",
        "defaults": {"lead.first_name": "friend"},
        "languages": {"de": {"subject": "Hallo {{ lead.first_name }}", "html": "<p>Hallo</p>{% include 'footer' %}"}},
        "utm": {"source": "mail", "campaign": "{{ sequence.name }}"},
    },
}
STEP: dict[str, Any] = {"id": "first", "send": {"channel": "email", "template_id": "hello"}}


@pytest_asyncio.fixture
async def world(settings: Settings) -> AsyncIterator[World]:
    async with harness(service_code("nurture"), settings) as nurture, open_inbox() as inbox:
        sender = make_sender(nurture.consumer_runtime, inbox.url)
        made = World(nurture, inbox, Facts(nurture.runtime), [sender])
        await made.feeds_are_fresh()
        yield made


async def call(world: World, method: str, path: str, body: Any = None, status: int = 200, **more: Any) -> Any:
    answer = await world.nurture.client.request(method, path, json=body, **more)
    assert answer.status_code == status, answer.text
    return answer.json()


async def save(world: World, *templates: dict[str, Any]) -> None:
    for template in templates:
        await call(world, "POST", "/v1/templates", template, 201)


async def test_a_step_sends_a_stored_template_in_each_persons_language(world: World) -> None:
    await save(world, FOOTER, WELCOME)
    await world.saves(steps=[STEP], name="Spring")
    await world.arrives(ANN, first_name="Ann")
    await world.arrives("max@acme.example", first_name="Max", attributes={"locale": "de_CH"})
    await world.send()
    ann = mail_to(world, ANN, "Hello Ann")
    html = ann.get_body(("html",))
    text = ann.get_body(("plain",))
    assert html is not None and text is not None
    assert "Dear Ann" in html.get_content() and ">Leave</a>" in html.get_content()
    assert "You get this because" not in html.get_content()
    assert "/tour?utm_source=mail&utm_campaign=Spring)" in text.get_content()
    assert mail_to(world, "max@acme.example", "Hallo Max")
    changed = {"name": "Hello", "message": {"subject": "Anew", "text": "x"}}
    await call(world, "PUT", "/v1/templates/hello", changed)
    await world.saves(steps=[{"id": "pinned", "send": {**STEP["send"], "version": 1}}], name="Pinned")
    world.senders = [make_sender(world.nurture.consumer_runtime, world.inbox.url)]
    await world.arrives("eve@acme.example")
    await world.send()
    subjects = {message["step_id"]: message["subject"] for message in await world.messages("eve@acme.example")}
    assert (subjects["first"], subjects["pinned"]) == ("Anew", "Hello friend")


def mail_to(world: World, recipient: str, subject: str) -> EmailMessage:
    (found,) = [mail for to, mail in world.inbox.accepted if to == recipient and mail["subject"] == subject]
    return found


async def test_a_sequence_names_templates_that_there_are_and_code_in_safe_places(world: World) -> None:
    await save(world, FOOTER, WELCOME)

    async def faults(send: dict[str, Any]) -> dict[str, str]:
        document = {
            "name": "S",
            "trigger": "event.type == 'x'",
            "steps": [{"id": "a", "send": {"channel": "email", **send}}],
        }
        answer = await world.nurture.client.post("/v1/sequences", json=document)
        assert answer.status_code == 422, answer.text
        return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}

    place = "/steps/0/send"
    assert await faults({"template_id": "gone"}) == {f"{place}/template_id": "there is no template gone"}
    assert await faults({"template_id": "hello", "version": 9}) == {
        f"{place}/version": "template hello has no version 9"
    }
    assert set(await faults({"template_id": "footer"})) == {f"{place}/template_id"}
    for template in (
        {"subject": "s", "html": "<p style='{{ lead.title }}'>x</p>"},
        {"subject": "s", "html": "{% include 'gone' %}"},
        {"subject": "s", "text": "{% include 'footer' %}"},
        {"subject": "s", "mjml": "<mjml><mj-body><mj-nothing/></mj-body></mjml>"},
    ):
        assert set(await faults({"template": template})) == {f"{place}/template"}, template
    assert f"{place}" in str(await faults({"template_id": "hello", "template": {"subject": "s", "text": "x"}}))


async def test_the_life_of_a_template(world: World) -> None:
    await save(world, FOOTER, WELCOME)
    await call(world, "POST", "/v1/templates", WELCOME, 409)
    assert [one["template_id"] for one in (await call(world, "GET", "/v1/templates"))["items"]] == ["footer", "hello"]
    changed = {"name": "Hello", "message": {"subject": "Anew", "text": "New"}}
    draft = await call(world, "PUT", "/v1/templates/hello", changed, params={"draft": True})
    assert (draft["version"], draft["active"]) == (2, False)
    compared = await call(world, "GET", "/v1/templates/hello:diff")
    assert (compared["from"], compared["to"], compared["same"]) == (1, 2, False)
    assert (await call(world, "POST", "/v1/templates/hello:activate", {"version": 2}))["active"]
    assert (await call(world, "POST", "/v1/templates/hello:rollback"))["version"] == 1
    refused = await call(world, "PUT", "/v1/templates/hello", changed, 409, params={"expected": 2})
    assert refused["type"].endswith("changed-meanwhile")
    assert len((await call(world, "GET", "/v1/templates/hello/versions"))["items"]) == 2
    for method, path in (("GET", ""), ("PUT", ""), ("GET", "/versions"), ("POST", ":rollback"), ("POST", ":preview")):
        await call(world, method, f"/v1/templates/gone{path}", changed if method == "PUT" else {}, 404)
    broken = {"name": "Footer", "part": {"mjml": "<mj-oops/>", "html": "x"}}
    found = await call(world, "PUT", "/v1/templates/footer", broken, 422)
    assert "template hello would not work: MJML has no mj-oops" in found["errors"][0]["detail"]
    loop = {"name": "Footer", "part": {"html": "{% include 'footer' %}"}}
    assert "takes in itself" in (await call(world, "PUT", "/v1/templates/footer", loop, 422))["errors"][0]["detail"]
    both = [world.nurture.client.post("/v1/templates", json={**FOOTER, "template_id": "twin"}) for _ in range(2)]
    assert sorted(answer.status_code for answer in await asyncio.gather(*both)) == [201, 409]


async def test_a_preview_is_what_the_lead_would_get_and_says_what_is_wrong(world: World) -> None:
    await save(world, FOOTER, WELCOME)
    await world.tell(await world.facts.captured(ANN, first_name="Ann"))
    path = "/v1/templates/hello:preview"
    shown = await call(world, "POST", path, {"lead_id": world.facts.lead_id(ANN)})
    assert shown["subject"] == "Hello Ann" and "Dear Ann" in shown["html"] and shown["warnings"] == []
    assert shown == await call(world, "POST", path, {"email": ANN})
    assert (await call(world, "POST", path, {"lead": {}}))["subject"] == "Hello friend"
    assert (await call(world, "POST", path, {"lead": {}, "language": "de-AT"}))["subject"] == "Hallo friend"
    large = "x" * 98_500 + "{% for item in lead.attributes.items %}" + "y" * 1_000 + "{% endfor %}"
    bad = {
        "name": "Bad",
        "message": {
            "subject": "{{ lead.title }}" + "z" * 80,
            "html": f"<p>{large}</p><img src='https://i.example/a.png'><a href='javascript:x'>x</a>",
        },
    }
    asked = {"document": bad, "lead": {"attributes": {"items": list(range(8))}}}
    found = await call(world, "POST", "/v1/templates:preview", asked)
    codes = [one["code"] for one in found["warnings"]]
    wanted = [
        "missing_value",
        "no_unsubscribe_place",
        "image_without_alt",
        "html_too_large",
        "link_dropped",
        "long_subject",
    ]
    assert codes == wanted
    assert found["html_bytes"] > 102 * 1024
    await call(world, "POST", path, {"lead_id": "nobody"}, 404)
    await call(world, "POST", path, {"lead": {}, "email": ANN}, 422)
    await call(world, "POST", path, {"lead": {"password": "x"}}, 422)
    await call(world, "POST", "/v1/templates/footer:preview", {}, 422)
    sequence_id = await world.saves(steps=[STEP], name="Spring")
    step = await call(world, "POST", f"/v1/sequences/{sequence_id}/steps/first:preview", {"email": ANN})
    assert any("utm_campaign=Spring" in link for link in step["links"])
    await call(world, "POST", f"/v1/sequences/{sequence_id}/steps/gone:preview", {}, 404)


async def test_links_are_followed_where_they_may_lead(settings: Settings) -> None:
    async def respond(asked: Asked) -> bytes:
        if asked.target == "/moved":
            return reply(302, location="/ok")
        if asked.target == "/no-head" and asked.method == "HEAD":
            return reply(405)
        return reply(404 if asked.target == "/gone" else 200)

    async with serving(LocalServer(respond=respond)) as url:
        trusting = settings.model_copy(update={"outbound_private_hosts": frozenset({"127.0.0.1"})})
        async with harness(service_code("nurture"), trusting) as nurture:
            links = [f"{url}/ok", f"{url}/gone", f"{url}/moved", f"{url}/no-head", "http://169.254.169.254/latest"]
            html = "".join(f"<a href='{link}'>x</a>" for link in links)
            template = {"template_id": "links", "name": "Links", "message": {"subject": "s", "html": html}}
            assert (await nurture.client.post("/v1/templates", json=template)).status_code == 201
            found = (await nurture.client.post("/v1/templates/links:check", json={})).json()["links"]
    assert [link["url"] for link in found] == links
    assert [link["status"] for link in found] == [200, 404, 200, 200, None]
    assert found[0]["problem"] is None
    assert found[1]["problem"] == "answers 404"
    assert found[2]["leads_to"] == f"{url}/ok"
    assert "not an address of the public internet" in found[4]["problem"]
