"""What a template makes of a lead: its language, dates and money, defaults, links, MJML, parts."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from services.nurture.templates.addresses import with_marks
from services.nurture.templates.check import faults_of_stored
from services.nurture.templates.document import Part, StoredTemplate, Template, Words, in_language
from services.nurture.templates.inclusion import CannotInclude, with_all_parts
from services.nurture.templates.languages import language_of, nearest_language
from services.nurture.templates.rendering import CannotRender, Rendered, Renderer

UNSUBSCRIBE = "https://t.example/nurture/u/token"


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    made = Renderer(timeout_s=600)
    yield made
    made.close()


async def rendered(renderer: Renderer, lead: dict[str, Any], template: dict[str, Any], **more: Any) -> Rendered:
    context = {
        "lead": lead,
        "sequence": {"name": "Spring & sale"},
        "site_url": "https://site.example",
        "unsubscribe_url": UNSUBSCRIBE,
    }
    whole = Template.model_validate({"subject": "s", **template})
    return await renderer.render(whole, context, footer=more.pop("footer", False), **more)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("pt", "pt-BR"),
        ("pt-PT", "pt-BR"),
        ("fr-CH", "fr-CH"),
        ("fr", "fr-CH"),
        ("ja", "en"),
        (None, "en"),
    ],
)
def test_the_nearest_language_is_spoken(wanted: str | None, found: str) -> None:
    assert nearest_language(wanted, ["de", "pt-BR", "fr-CH"], "en") == found


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"language": "de"}, "de"),
        ({"locale": "de_AT.UTF-8"}, "de-AT"),
        ({"lang": "PT-br"}, "pt-BR"),
        ({"language": "zh-Hant-TW"}, "zh-TW"),
        ({"language": "german"}, None),
        ({"language": "", "locale": "fr"}, "fr"),
        ({"language": ["de"]}, None),
        ({}, None),
        ("de", None),
    ],
)
def test_a_lead_says_its_language_in_many_ways(attributes: Any, found: str | None) -> None:
    assert language_of({"attributes": attributes}) == found


async def test_each_reads_the_message_dates_and_money_in_their_own_language(renderer: Renderer) -> None:
    body = (
        "{{ lead.attributes.due | date('long') }}; {{ lead.attributes.minor | money('EUR') }}; {{ 1234.5 | number(2) }}"
    )
    template = {
        "subject": "Hello",
        "text": f"Due {body}",
        "languages": {"de": {"subject": "Guten Tag", "text": f"Fällig {body}"}},
    }
    attributes = {"due": "2027-03-31", "minor": 123456}
    english = await rendered(renderer, {"attributes": attributes}, template, footer=True)
    assert english.subject == "Hello"
    assert english.text.startswith("Due March 31, 2027; €1,234.56; 1,234.50\n")
    austrian = await rendered(renderer, {"attributes": {**attributes, "language": "de_AT"}}, template, footer=True)
    assert austrian.subject == "Guten Tag"
    assert austrian.text.startswith("Fällig 31. März 2027; € 1.234,56; 1.234,50\n".replace("€ 1.234", "€\xa01.234"))
    assert "Abmelden: " + UNSUBSCRIBE in austrian.text
    yen = await rendered(
        renderer, {"attributes": {"minor": 1200}}, {"text": "{{ lead.attributes.minor | money('JPY') }}"}
    )
    assert yen.text == "¥1,200"


@pytest.mark.parametrize("value", ["soon", "2027-02-30", "", True, [1], {"a": 1}, "1e9999999", "NaN"])
async def test_what_is_no_date_or_amount_stops_the_message(renderer: Renderer, value: Any) -> None:
    for source in ("{{ lead.attributes.a | date }}", "{{ lead.attributes.a | money('EUR') }}"):
        with pytest.raises(CannotRender):
            await rendered(renderer, {"attributes": {"a": value}}, {"text": source})


async def test_defaults_are_printed_and_do_not_make_conditions_true(renderer: Renderer) -> None:
    template = {
        "html": "<p>{{ lead.company }} {{ lead.first_name | default('you') | upper }} {{ lead.attributes.plan.name }}"
        "{% if lead.company %}!{% endif %}</p>",
        "defaults": {
            "lead.company": "your <company>",
            "lead.first_name": "unused",
            "lead.attributes.plan.name": "free",
        },
    }
    for lead in ({}, {"company": None, "first_name": " "}, {"company": "", "attributes": {"plan": {}}}):
        result = await rendered(renderer, lead, template)
        assert result.html == "<p>your &lt;company&gt; YOU free</p>"
        assert set(result.replaced) == {"lead.company", "lead.attributes.plan.name"}
    with pytest.raises(CannotRender, match=r"lead\.title is missing and has no default"):
        await rendered(renderer, {}, {"text": "{{ lead.title }}"})
    shown = await rendered(renderer, {}, {"text": "{{ lead.title }} {{ lead.attributes.a.b }}"}, lenient=True)
    assert shown.text == "⟨lead.title⟩ ⟨lead.attributes.a.b⟩"
    assert shown.missing == ("lead.title", "lead.attributes.a.b")


async def test_marks_are_added_by_rule_and_overwrite_nothing(renderer: Renderer) -> None:
    template = {
        "html": '<a href="{{ site_url }}/a?utm_source=own&x=1#top">A</a><a href="https://other.example/">B</a>'
        '<a href="{{ unsubscribe_url }}">C</a><a href="mailto:a@b.example">D</a>',
        "utm": {"source": "mail", "campaign": "{{ sequence.name }}", "hosts": ["site.example"]},
    }
    result = await rendered(renderer, {}, template)
    marked = "https://site.example/a?utm_source=own&x=1&utm_campaign=Spring%20%26%20sale#top"
    assert result.links == (marked, "https://other.example/")
    assert f"({marked})" in result.text
    assert f"({UNSUBSCRIBE})" in result.text
    assert f'href="{UNSUBSCRIBE}"' in result.html
    from_text = await rendered(renderer, {}, {"text": "{{ site_url }}/b", "utm": {"medium": "email"}})
    assert from_text.text == "https://site.example/b?utm_medium=email"
    assert from_text.links == ("https://site.example/b?utm_medium=email",)
    assert with_marks("https://notsite.example/", [("a", "b")], ["site.example"]) == "https://notsite.example/"
    assert with_marks("https://[bad", [("a", "b")]) == "https://[bad"


MJML = (
    "<mjml><mj-head><mj-preview>In short</mj-preview></mj-head><mj-body>{% for item in lead.attributes.items %}"
    '<mj-section><mj-column><mj-text font-size="20px">{{ item }} &amp; {{ lead.first_name }}</mj-text>'
    '<mj-button href="{{ site_url }}/{{ item }}">Go</mj-button></mj-column></mj-section>{% endfor %}'
    '<mj-section><mj-column><mj-image src="https://img.example/a.png" /></mj-column></mj-section></mj-body></mjml>'
)


async def test_mjml_becomes_html_that_adapts_and_values_are_never_read_as_mjml(renderer: Renderer) -> None:
    lead = {"first_name": "</mj-text><mj-raw><script>", "attributes": {"items": ["a", "<b>"]}}
    result = await rendered(renderer, lead, {"mjml": MJML}, footer=True)
    assert "@media only screen and (min-width:480px)" in result.html
    assert "<mj-" not in result.html and "<script>" not in result.html
    assert "&lt;/mj-text&gt;&lt;mj-raw&gt;" in result.html
    assert "fonts.googleapis.com" not in result.html
    assert result.links == ("https://site.example/a", "https://site.example/%3Cb%3E")
    assert result.html.index(UNSUBSCRIBE) < result.html.index("</body>")
    assert result.text.startswith("a & </mj-text><mj-raw><script>\n\nGo (https://site.example/a)\n")
    assert "In short" not in result.text
    assert result.wordless_images == ("https://img.example/a.png",)
    for wrong in (
        "<mjml><mj-body><mj-text></mj-body></mjml>",
        "<p>no</p>",
        "<mjml><mj-body><mj-foo/></mj-body></mjml>",
    ):
        with pytest.raises(CannotRender, match="MJML"):
            await rendered(renderer, lead, {"mjml": wrong})


async def test_styles_go_into_their_elements_and_code_stays_in_its_place(renderer: Renderer) -> None:
    html = (
        "<style>td{color:red} a:hover{color:blue} @media (max-width:480px){td{color:green}}</style><table>"
        "{% for item in lead.attributes.items %}<tr {% if loop.first %}class='x'{% endif %}><td>{{ item }}</td></tr>"
        "{% endfor %}</table><p>&#123;&#123; lead.secret }}</p>"
    )
    result = await rendered(renderer, {"attributes": {"items": ["1", "2"]}}, {"html": html})
    assert result.html.count('<td style="color: red;">') == 2
    assert result.html.count('class="x"') == 1
    assert "a:hover" in result.html and "@media" in result.html
    assert "{{ lead.secret }}" in result.html and "{{ lead.secret }}" in result.text


def test_parts_are_taken_in_and_never_take_in_themselves() -> None:
    footer = Part.model_validate(
        {
            "html": "<p>{{ lead.company }}</p>",
            "languages": {"de": {"html": "<p>Gruß</p>"}},
            "defaults": {"lead.company": "C"},
        }
    )
    parts = {"footer": footer, "frame": Part(html='<hr>{% include "footer" %}')}
    message = Template.model_validate({"subject": "s", "html": "x{% include 'frame' %}"})
    whole = with_all_parts(in_language(message, None), parts)
    assert whole.html == "x<hr><p>{{ lead.company }}</p>"
    assert whole.defaults == (("lead.company", "C"),)
    assert with_all_parts(in_language(message, "de-CH"), parts) == whole
    german = message.model_copy(update={"default_language": "de"})
    assert with_all_parts(in_language(german, "de-CH"), parts).html == "x<hr><p>Gruß</p>"
    for name, why in (("loop", "takes in itself: loop > loop"), ("gone", "no part gone"), ("texts", "has no html")):
        others = {"loop": Part(html='{% include "loop" %}'), "texts": Part(text="x")}
        with pytest.raises(CannotInclude, match=why):
            with_all_parts(Words("s", f'{{% include "{name}" %}}'), others)
    doubling = {f"p{n}": Part(html=f'{{% include "p{n + 1}" %}}' * 8) for n in range(20)} | {"p20": Part(html="x" * 9)}
    with pytest.raises(CannotInclude, match="longer"):
        with_all_parts(Words("s", '{% include "p0" %}'), doubling)


def test_every_fault_of_a_template_has_its_place() -> None:
    document = StoredTemplate.model_validate(
        {
            "name": "T",
            "message": {
                "subject": "{{ lead.nobody }}",
                "html": "a\n{% include 'footer' %}\n{{ nothing }}",
                "languages": {"de": {"subject": "s", "text": "{{ lead.x }}"}},
                "defaults": {"lead.nobody": "x"},
                "utm": {"source": "{{ lead.email }}"},
            },
        }
    )
    found = {fault.pointer: fault.detail for fault in faults_of_stored(document)}
    assert set(found) == {
        "/message/subject",
        "/message/html",
        "/message/languages/de/text",
        "/message/defaults/lead.nobody",
        "/message/utm/source",
    }
    assert found["/message/html"].startswith("line 3: there is no nothing")


@pytest.mark.parametrize("separator", ["\r\n", "\n", "\u2028", "\x85"])
def test_a_subject_of_several_lines_is_refused(separator: str) -> None:
    message = {"subject": f"Hello{separator}Bcc: all@acme.example", "text": "x"}
    document = StoredTemplate.model_validate({"name": "T", "message": message})
    assert [fault.pointer for fault in faults_of_stored(document)] == ["/message/subject"]


@pytest.mark.parametrize(
    "message",
    [
        {"subject": "s"},
        {"subject": "s", "html": "x", "mjml": "y"},
        {"subject": "s", "text": "x", "languages": {"en": {"subject": "s", "text": "x"}}},
        {"subject": "s", "text": "x", "languages": {"de": {"text": "x"}}},
        {"subject": "s", "text": "x", "languages": {"Deutsch": {"subject": "s", "text": "x"}}},
        {"subject": "s", "text": "x", "defaults": {"company": "x"}},
        {"subject": "s", "text": "x", "utm": {}},
        {"subject": "s", "text": "x", "utm": {"source": "a", "hosts": ["https://x.example"]}},
        {"name": "x"},
    ],
)
def test_a_message_that_is_not_whole_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StoredTemplate.model_validate({"name": "T", "message": message})


async def test_code_that_tears_html_apart_is_refused(renderer: Renderer) -> None:
    whole = await rendered(renderer, {}, {"html": "<p {% if lead.company %}class='a'{% endif %}>x</p>"})
    assert whole.html == "<p >x</p>"
    with pytest.raises(CannotRender):
        await rendered(renderer, {}, {"html": "<a href='{% if lead.company %}https://a.example'>x</a>{% endif %}"})
