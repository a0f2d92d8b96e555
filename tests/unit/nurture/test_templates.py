"""Templates: what may be saved, and what the renderer does with what was not expected."""

import asyncio
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from services.nurture.templates.check import template_faults
from services.nurture.templates.document import Template
from services.nurture.templates.rendering import CannotRender, Rendered, Renderer, RendererStarved

pytestmark = pytest.mark.slow

UNSUBSCRIBE = "https://t.example/nurture/u/token"
CONTEXT: dict[str, Any] = {
    "lead": {"first_name": "Ann", "attributes": {"plan": "pro", "items": ["a", "b"]}},
    "site_url": "https://site.example",
    "unsubscribe_url": UNSUBSCRIBE,
}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    made = Renderer(timeout_s=600)
    yield made
    made.close()


async def rendered(
    renderer: Renderer, *, footer: bool = False, context: dict[str, Any] | None = None, **template: str
) -> Rendered:
    whole = Template.model_validate({"subject": "s", **template})
    return await renderer.render(whole, context or CONTEXT, footer=footer)


@pytest.mark.parametrize(
    "source",
    [
        "plain",
        "Hi {{ lead.first_name | default('there') | title }}",
        "{% if lead.company and lead.employees > 10 %}{{ lead.company }}{% else %}you{% endif %}",
        "{% for item in lead.attributes.items %}{{ loop.index }} {{ item }}{% endfor %}",
        "{{ lead['first_name'] }} {{ lead.attributes['plan'] }} {{ site_url }} {{ sequence.name }}",
        "{{ 'pro' if lead.attributes.plan == 'pro' else 'free' }}",
    ],
)
def test_what_messages_need_can_be_saved(source: str) -> None:
    assert template_faults(source) == []


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ lead.first_name.__class__ }}",
        "{{ lead['__class__'] }}",
        "{{ lead|attr('__class__') }}",
        "{{ '%s'|format(lead) }}",
        "{{ lead.first_name.format(lead) }}",
        "{{ range(1000000000) }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% include 'other' %}",
        "{% import 'os' as os %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% set x = lead %}{{ x }}",
        "{% for a in lead.attributes.items %}{% for b in lead.attributes.items %}x{% endfor %}{% endfor %}",
        "{% for a in lead.attributes.items recursive %}{{ loop(a) }}{% endfor %}",
        "{{ config }}",
        "{{ self }}",
        "{{ cycler }}",
        "{{ lead.password }}",
        "{{ lead[lead.first_name] }}",
        "{{ unfinished",
        "{% if lead %}",
        "{{ lead.first_name | safe }}",
        "{{ lead.attributes.items | map(attribute='__class__') | list }}",
        "{{ lead.attributes.items | map('attr', '__class__') | join }}",
        "{{ lead.first_name | format(lead) }}",
        "{{ lead.first_name | center(1000000000) }}",
        "{{ lead.employees | round(-1000000000) }}",
        "{{ lead.attributes | xmlattr }}",
        "{{ lead | tojson }}",
        "{{ lead | pprint }}",
        "{{ lead.first_name | filesizeformat }}",
        "{{ lead.first_name is callable }}",
        "{{ lead.attributes.f() }}",
        "{{ lead.first_name[0:1000000] }}",
        "{% filter upper %}{{ lead.first_name }}{% endfilter %}",
        "{% call lead.f() %}{% endcall %}",
        "{% with a = lead %}{{ a }}{% endwith %}",
        "{% autoescape false %}{{ lead.first_name }}{% endautoescape %}",
        "{% extends 'base' %}",
        "{% block a %}{% endblock %}",
        "{% include lead.first_name %}",
        "{% do lead %}",
        "{% set ns = namespace() %}",
        "{{ lipsum.__globals__ }}",
        "{{ joiner.__init__.__globals__ }}",
        "{{ request.application.__globals__ }}",
        "{{ _links }}",
        "{{ lead.first_name | _link }}",
        "{{ lead.attributes.a | date('yesterday') }}",
        "{{ lead.attributes.a | money }}",
        "{{ lead.attributes.a | money('EURO') }}",
        "{{ lead.attributes.a | number(100) }}",
        "{{ 1 // 0 }}",
        "{{ {'a': lead} }}",
        "(" * 10 + "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    ],
)
def test_what_messages_do_not_need_cannot_be_saved(source: str) -> None:
    assert template_faults(source)


async def test_values_from_the_lead_are_inert_in_html(renderer: Renderer) -> None:
    context = {**CONTEXT, "lead": {"first_name": "<script>alert(1)</script>"}}
    result = await rendered(renderer, context=context, html="<p>{{ lead.first_name }}</p>")
    assert "<script>" not in result.html
    assert "&lt;script&gt;" in result.html


async def test_a_missing_value_takes_its_default_or_stops_the_message(renderer: Renderer) -> None:
    result = await rendered(renderer, text="{{ lead.company | default('you') }}{% if lead.title %}x{% endif %}")
    assert result.text == "you"
    with pytest.raises(CannotRender, match="company is missing and has no default"):
        await rendered(renderer, text="{{ lead.company }}")
    with pytest.raises(CannotRender, match="company is missing"):
        await rendered(renderer, text="{{ lead.company | upper }}")


async def test_links_are_replaced_and_unsafe_ones_dropped(renderer: Renderer) -> None:
    html = (
        '<a class="b" href="{{ site_url }}/a?x=1&amp;y=2">A</a><a href="javascript:alert(1)">B</a>'
        '<a href="mailto:a@b.example">C</a><a href="{{ unsubscribe_url }}">D</a>'
        '<a href="{{ site_url }}/a?x=1&amp;y=2">E</a><img src="https://img.example/i.png"><!-- c -->'
    )
    result = await rendered(renderer, html=html)
    assert result.links == ("https://site.example/a?x=1&y=2",)
    assert result.html.count(f'href="{result.marker}0."') == 2
    assert "javascript" not in result.html
    assert 'href="mailto:a@b.example"' in result.html
    assert 'href="https://t.example/nurture/u/token"' in result.html
    assert '<img src="https://img.example/i.png"><!-- c -->' in result.html


async def test_the_part_that_is_absent_is_made_from_the_other(renderer: Renderer) -> None:
    from_html = await rendered(renderer, html='<style>p{}</style><p>Hi &amp; <a href="{{ site_url }}">look</a></p>')
    assert from_html.text == "Hi & look (https://site.example)\n"
    from_text = await rendered(renderer, text="a < b\nsee https://site.example/x.\n\nbye")
    assert "<p>a &lt; b<br>" in from_text.html
    assert from_text.links == ("https://site.example/x",)


async def test_marketing_always_has_a_way_to_leave(renderer: Renderer) -> None:
    bare = await rendered(renderer, footer=True, html="<p>x</p>", text="x")
    assert UNSUBSCRIBE in bare.html
    assert UNSUBSCRIBE in bare.text
    own = await rendered(renderer, footer=True, text="leave: {{ unsubscribe_url }}")
    assert own.text == f"leave: {UNSUBSCRIBE}"


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ 'a' * 2000000000 }}",
        "{% for a in lead.l %}{% for b in lead.l %}{% for c in lead.l %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for a in lead.l %}" + "x" * 2000 + "{% endfor %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ lead.l.append(1) }}",
    ],
)
async def test_a_hostile_template_harms_only_its_own_message(renderer: Renderer, hostile: str) -> None:
    """As if one had got past the check: the renderer is a wall of its own."""
    context = {**CONTEXT, "lead": {"l": list(range(2000))}}
    with pytest.raises(CannotRender):
        await rendered(renderer, context=context, text=hostile)
    assert (await rendered(renderer, text="still here")).text == "still here"


async def test_of_messages_that_go_together_only_the_hostile_one_is_lost() -> None:
    renderer = Renderer(timeout_s=600, processes=1)
    texts = ("one", "{{ 'a' * 2000000000 }}", "two", "three", "four")
    try:
        beside = [rendered(renderer, text=text) for text in texts]
        one, harmed, *others = await asyncio.gather(*beside, return_exceptions=True)
    finally:
        renderer.close()
    assert isinstance(harmed, CannotRender)
    assert [getattr(each, "text", each) for each in (one, *others)] == ["one", "two", "three", "four"]


async def test_a_renderer_that_hangs_is_ended_and_says_nothing_about_the_template() -> None:
    renderer = Renderer(timeout_s=0.001)
    with pytest.raises(RendererStarved):
        await rendered(renderer, text="x")
    renderer.close()


@pytest.mark.parametrize(
    "place",
    [
        "<p>{}</p>",
        "<p title='{}'>x</p>",
        "<p title={}>x</p>",
        "<a href='{}'>x</a>",
        '<a href="https://x.example/?q={}">x</a>',
        "<img src='{}' alt='{}'>",
        "<td background={}>x</td>",
        "<title>{}</title>",
        "<!-- {} --><p>x</p>",
        "<!--[if mso]><v:fill src='{}'/><![endif]-->",
        "<textarea>{}</textarea>",
    ],
)
async def test_what_a_stranger_enters_is_inert_wherever_it_may_stand(renderer: Renderer, place: str) -> None:
    for attack in (
        "<script>alert(1)</script>",
        "\"'><img src=x onerror=alert(1)>",
        "x onmouseover=alert(1) y",
        "javascript:alert(1)",
        " java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "--><script>alert(1)</script>",
        "]]><script>alert(1)</script>",
        "</title></textarea><script>alert(1)</script>",
        "{{ lead.__class__ }}{% for a in lead %}{{ a }}{% endfor %}{#",
        "a\u2028b\u2029c\x85<script>d</script>",
        "\u202e<script>",
    ):
        context = {**CONTEXT, "lead": {"first_name": attack}}
        result = await rendered(renderer, context=context, html=place.replace("{}", "{{ lead.first_name }}"))
        found = Dangers()
        found.feed(result.html)
        assert found.dangers == [], (attack, result.html)
        assert "{{ lead" not in result.html or "{{ lead" in attack
        assert all(link.startswith(("http://", "https://")) for link in result.links)


class Dangers(HTMLParser):
    """Finds what would run, or have something fetched that the template does not name."""

    def __init__(self) -> None:
        super().__init__()
        self.dangers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.dangers += [tag] if tag in ("script", "iframe") else []
        for name, value in attrs:
            runs = re.match(r"\s*(javascript|data|vbscript):", (value or ""), re.IGNORECASE)
            if name.startswith("on") or (runs and name not in ("title", "alt")):
                self.dangers.append(f"{name}={value}")

    def handle_comment(self, data: str) -> None:
        inner = re.fullmatch(r"\[if[^\]]*\]>(.*)<!\[endif\]", data, re.DOTALL)
        if inner:
            within = Dangers()
            within.feed(inner[1])
            self.dangers += within.dangers


@pytest.mark.parametrize(
    "html",
    [
        "<script>{{ lead.first_name }}</script>",
        "<style>{{ lead.first_name }}</style>",
        "<p style='color: {{ lead.first_name }}'>x</p>",
        "<p onclick='{{ lead.first_name }}'>x</p>",
        "<p {{ lead.first_name }}>x</p>",
        "<p {{ lead.first_name }}='x'>x</p>",
        "<{{ lead.first_name }}>x",
        "<x{{ lead.first_name }}>x",
        "</{{ lead.first_name }}>",
        "<iframe src='{{ lead.first_name }}'></iframe>",
        "<meta http-equiv='refresh' content='0;url={{ lead.first_name }}'>",
        "<base href='{{ lead.first_name }}'>",
        "<!--[if mso]><p style='{{ lead.first_name }}'><![endif]-->",
        "{% for name in lead.attributes.items %}<p style='{{ name }}'>{% endfor %}",
    ],
)
async def test_where_escaping_does_not_help_no_value_may_stand(renderer: Renderer, html: str) -> None:
    with pytest.raises(CannotRender):
        await rendered(renderer, html=html)


async def test_many_messages_at_once_each_get_their_own(renderer: Renderer) -> None:
    """Two processes, one of which is brought down again and again by somebody else's template."""
    own = Renderer(timeout_s=600, processes=2)
    try:

        async def fine(number: int) -> None:
            context = {**CONTEXT, "lead": {"first_name": f"Ann {number}"}}
            result = await rendered(own, context=context, html="<p>{{ lead.first_name }}</p>")
            assert result.html == f"<p>Ann {number}</p>"

        async def hostile() -> None:
            with pytest.raises(CannotRender):
                await rendered(own, text="{{ 'a' * 2000000000 }}")

        await asyncio.gather(*(hostile() if number % 20 == 7 else fine(number) for number in range(60)))
    finally:
        own.close()


async def test_html_that_takes_for_ever_to_read_harms_only_itself(renderer: Renderer) -> None:
    with pytest.raises(CannotRender, match=r"the renderer ended|too long"):
        await rendered(renderer, html="<a " * 33_000)
    assert (await rendered(renderer, text="still here")).text == "still here"


async def test_files_of_this_machine_are_not_read_by_styles_or_includes(renderer: Renderer, tmp_path: Path) -> None:
    secret = tmp_path / "secret.css"
    secret.write_text("p{color:rebeccapurple}")
    for link in (str(secret), f"file://{secret}"):
        html = f'<link rel="stylesheet" href="{link}"><style>p{{margin:0}}</style><p>x</p>'
        assert "rebeccapurple" not in (await rendered(renderer, html=html)).html
    with pytest.raises(CannotRender, match="included template"):
        await rendered(renderer, mjml=f'<mjml><mj-body><mj-include path="{secret}"/></mj-body></mjml>')
