"""Own channel groupings: which rule decides, what they may read, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.attribution.channels.domain import Grouping
from services.attribution.channels.groupings import AS_SHIPPED, Traffic, compile_grouping
from shared.rules import InvalidDocument


def traffic(**given: Any) -> Traffic:
    fields: dict[str, Any] = dict.fromkeys(Traffic._fields)
    return Traffic(**{**fields, "type": "page_view", "click_ids": (), **given})


def rule(channel: str, when: str, **more: Any) -> dict[str, Any]:
    return {"channel": channel, "when": when, **more}


def test_as_shipped_the_caller_goes_before_the_default_channel_grouping() -> None:
    shipped = compile_grouping(1, AS_SHIPPED)
    assert shipped.group(traffic(given_channel="Fair", source="google")) == Grouping("Fair", "caller", "google", None)
    assert shipped.group(traffic(source="google", medium="cpc")).rule == "paid_search:tags"
    assert shipped.group(traffic()).rule == "direct"


def test_first_rule_that_holds_decides_and_is_named_by_its_id_or_index() -> None:
    grouping = compile_grouping(
        7,
        {
            "rules": [
                rule("Partners", "touch.source == 'acme'", id="partners"),
                rule("Ours", "touch.source.startsWith('acme')"),
            ]
        },
    )
    assert grouping.group(traffic(source="acme", medium="x")) == Grouping(
        "Partners", "grouping:7:partners", "acme", "x"
    )
    assert grouping.group(traffic(source="acme-blog")).rule == "grouping:7:1"
    assert grouping.group(traffic(source="google", medium="organic")).rule == "organic_search:tags"
    assert grouping.group(traffic(source="acme", given_channel="Fair")).rule == "caller"


@pytest.mark.parametrize(
    ("when", "given"),
    [
        ("touch.type == 'webinar_attended'", {"type": "webinar_attended"}),
        ("touch.source == 'x'", {"source": "x"}),
        ("touch.medium == 'x'", {"medium": "x"}),
        ("touch.campaign == 'x'", {"campaign": "x"}),
        ("touch.content == 'x'", {"content": "x"}),
        ("touch.page.endsWith('/pricing')", {"page": "https://acme.com/pricing"}),
        ("touch.referrer_host.matches('(?i)^news')", {"referrer_host": "News.example"}),
        ("'gclid' in touch.click_ids", {"click_ids": ("fbclid", "gclid")}),
        ("touch.default_channel == 'Paid Search'", {"source": "bing", "medium": "cpc"}),
        ("!has(touch.source) && touch.default_channel == 'Organic Search'", {"referrer_host": "www.google.de"}),
    ],
)
def test_rule_may_read_what_the_touch_tells(when: str, given: dict[str, Any]) -> None:
    grouping = compile_grouping(2, {"rules": [rule("Mine", when)]})
    assert grouping.group(traffic(**given)).channel == "Mine"
    assert grouping.group(traffic(source="other", medium="other")).channel == "Unassigned"


def test_callers_channel_is_one_more_field_when_it_does_not_stay() -> None:
    document = {
        "rules": [rule("Events", "touch.given_channel in ['Fair', 'Meetup']", id="events")],
        "keep_given": False,
    }
    default = compile_grouping(3, document)
    assert default.group(traffic(given_channel="Fair")).channel == "Events"
    assert default.group(traffic(given_channel="Webinar", source="google", medium="cpc")).channel == "Paid Search"
    given = compile_grouping(4, {**document, "otherwise": "given"})
    assert given.group(traffic(given_channel="Webinar", source="google")).rule == "caller"
    assert given.group(traffic(source="google")).rule == "organic_search:tags"
    other = compile_grouping(5, {**document, "otherwise": "Everything else"})
    assert other.group(traffic(source="google", medium="cpc")) == Grouping(
        "Everything else", "grouping:5:otherwise", "google", "cpc"
    )


def test_source_and_medium_are_found_for_untagged_touches_whatever_rule_decides() -> None:
    grouping = compile_grouping(2, {"rules": [rule("Mine", "touch.type == 'page_view'")]})
    assert grouping.group(traffic(click_ids=("gclid",))) == Grouping("Mine", "grouping:2:0", "google", "cpc")


def test_decisions_are_kept_apart_by_all_that_the_rules_read() -> None:
    grouping = compile_grouping(
        2,
        {
            "rules": [
                rule("A", "touch.source == 'x' && touch.default_channel == 'Email'"),
                rule("B", "touch.source == 'x'"),
            ]
        },
    )
    assert [grouping.group(traffic(source="x", medium=medium)).channel for medium in ("email", "cpc", "email")] == [
        "A",
        "B",
        "A",
    ]


def test_erasure_matters_where_page_or_content_is_read() -> None:
    assert compile_grouping(2, {"rules": [rule("A", "touch.page == '/'")]}).reads_what_erasure_takes
    assert compile_grouping(2, {"rules": [rule("A", "touch.content == 'x'")]}).reads_what_erasure_takes
    assert not compile_grouping(2, {"rules": [rule("A", "touch.source == 'x'")]}).reads_what_erasure_takes


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        ({"rules": [rule("A", "touch.sauce == 'x'")]}, ["/rules/0/when"]),
        ({"rules": [rule("A", "touch.source =="), rule("B", "touch.source")]}, ["/rules/0/when", "/rules/1/when"]),
        ({"rules": [rule("A", "lead.country == 'DE'")]}, ["/rules/0/when"]),
        ({"rules": [rule("(unattributed)", "true")]}, ["/rules/0/channel"]),
        ({"otherwise": "(unattributed)"}, ["/otherwise"]),
    ],
)
def test_what_cannot_work_is_refused_at_its_place(document: dict[str, Any], pointers: list[str]) -> None:
    with pytest.raises(InvalidDocument) as refused:
        compile_grouping(0, document)
    assert [error.pointer for error in refused.value.errors] == pointers


@pytest.mark.parametrize(
    "document",
    [
        {"rules": [rule("A", "true", id="x"), rule("B", "true", id="x")]},
        {"rules": [rule("", "true")]},
        {"rules": [rule("A", "true", id="0")]},
        {"rules": [rule("A" * 201, "true")]},
        {"rules": [rule("A", "true")] * 201},
        {"rules": {}},
        {"keep_given": "maybe"},
        {"other": 1},
    ],
)
def test_document_of_another_shape_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        compile_grouping(0, document)
