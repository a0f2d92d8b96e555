"""Templates: what may be saved, and what the renderer does with what was not expected."""

from collections.abc import Iterator
from typing import Any

import pytest

from services.nurture.sequences.document import Template
from services.nurture.templates.check import template_faults
from services.nurture.templates.rendering import CannotRender, Rendered, Renderer

pytestmark = pytest.mark.slow

UNSUBSCRIBE = "https://t.example/nurture/u/token"
CONTEXT: dict[str, Any] = {
    "lead": {"first_name": "Ann", "attributes": {"plan": "pro", "items": ["a", "b"]}},
    "site_url": "https://site.example",
    "unsubscribe_url": UNSUBSCRIBE,
}


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer(timeout_s=20)
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


async def test_a_renderer_that_hangs_is_ended() -> None:
    renderer = Renderer(timeout_s=0.001)
    with pytest.raises(CannotRender, match="too long"):
        await rendered(renderer, text="x")
    renderer.close()
