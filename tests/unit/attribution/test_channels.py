"""The default channel grouping, rule by rule as Google publishes it."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.attribution.channels.domain import Grouping, group_touch
from services.attribution.channels.source_categories import source_categories


def grouped(**given: Any) -> Grouping:
    touch: dict[str, Any] = dict.fromkeys(("channel", "source", "medium", "campaign", "referrer_host", "page"))
    return group_touch(**{**touch, "click_ids": (), **given})


@pytest.mark.parametrize(
    ("source", "medium", "campaign", "channel"),
    [
        ("(direct)", "(none)", None, "Direct"),
        ("(direct)", "(not set)", None, "Direct"),
        ("(direct)", None, None, "Direct"),
        ("google", "cpc", "eu cross-network pmax", "Cross-network"),
        ("amazon", "cpc", None, "Paid Shopping"),
        ("partner", "ppc", "spring shopping", "Paid Shopping"),
        ("partner", "paid", "shop", "Paid Shopping"),
        ("partner", "paid", "my shop", "Paid Shopping"),
        ("partner", "paid", "workshop", "Paid Other"),
        ("partner", "paid", "eshop", "Paid Shopping"),
        ("google", "cpc", None, "Paid Search"),
        ("bing", "ppc", None, "Paid Search"),
        ("duckduckgo", "retargeting", None, "Paid Search"),
        ("facebook", "cpc", None, "Paid Social"),
        ("linkedin.com", "paidsocial", None, "Paid Social"),
        ("youtube", "cpv", None, "Paid Video"),
        ("youtube.com", "paid-video", None, "Paid Video"),
        ("vimeo", "cpc", None, "Paid Video"),
        ("some-site", "display", None, "Display"),
        ("some-site", "banner", None, "Display"),
        ("some-site", "expandable", None, "Display"),
        ("some-site", "interstitial", None, "Display"),
        ("some-site", "cpm", None, "Display"),
        ("google", "cpm", None, "Paid Search"),
        ("some-site", "cpc", None, "Paid Other"),
        ("some-site", "retargeting", None, "Paid Other"),
        ("etsy", "referral", None, "Organic Shopping"),
        ("some-site", "post", "autumn shopping", "Organic Shopping"),
        ("reddit", None, None, "Organic Social"),
        ("some-site", "social", None, "Organic Social"),
        ("some-site", "social-network", None, "Organic Social"),
        ("some-site", "social-media", None, "Organic Social"),
        ("some-site", "sm", None, "Organic Social"),
        ("some-site", "social network", None, "Organic Social"),
        ("some-site", "social media", None, "Organic Social"),
        ("youtube", "referral", None, "Organic Video"),
        ("some-site", "online-video", None, "Organic Video"),
        ("google", None, None, "Organic Search"),
        ("some-engine", "organic", None, "Organic Search"),
        ("chatgpt.com", "ai-assistant", None, "AI Assistant"),
        ("some-site", "referral", None, "Referral"),
        ("some-site", "app", None, "Referral"),
        ("some-site", "link", None, "Referral"),
        ("newsletter", "email", None, "Email"),
        ("newsletter", "e-mail", None, "Email"),
        ("newsletter", "e_mail", None, "Email"),
        ("newsletter", "e mail", None, "Email"),
        ("email", "autumn", None, "Email"),
        ("partner", "affiliate", None, "Affiliates"),
        ("podcast", "audio", None, "Audio"),
        ("sms", "autumn", None, "SMS"),
        ("twilio", "sms", None, "SMS"),
        ("app", "web-push", None, "Mobile Push Notifications"),
        ("app", "mobile-offer", None, "Mobile Push Notifications"),
        ("app", "notifications", None, "Mobile Push Notifications"),
        ("firebase", "autumn", None, "Mobile Push Notifications"),
        ("newsletter", "newsletter", None, "Unassigned"),
        ("some-site", None, None, "Unassigned"),
        (None, None, "autumn", "Unassigned"),
    ],
)
def test_tagged_touch_gets_the_channel_of_the_first_rule_that_applies(
    source: str | None, medium: str | None, campaign: str | None, channel: str
) -> None:
    assert grouped(source=source, medium=medium, campaign=campaign).channel == channel


def test_rules_are_not_case_sensitive_and_tags_stay_as_they_came() -> None:
    assert grouped(source="Facebook", medium="CPC") == Grouping(
        "Paid Social", "paid_social:tags", source="Facebook", medium="CPC"
    )


@pytest.mark.parametrize(
    ("host", "channel", "source", "medium"),
    [
        ("www.google.com", "Organic Search", "google", "organic"),
        ("www.google.co.uk", "Organic Search", "google", "organic"),
        ("google.com.au", "Organic Search", "google", "organic"),
        ("r.search.yahoo.com", "Organic Search", "yahoo", "organic"),
        ("de.search.yahoo.com", "Organic Search", "de.search.yahoo.com", "organic"),
        ("duckduckgo.com", "Organic Search", "duckduckgo", "organic"),
        ("www.ecosia.org", "Organic Search", "ecosia.org", "organic"),
        ("mail.google.com", "Referral", "mail.google.com", "referral"),
        ("google.com.attacker.example", "Referral", "google.com.attacker.example", "referral"),
        ("ask.fm", "Referral", "ask.fm", "referral"),
        ("www.facebook.com", "Organic Social", "facebook.com", "referral"),
        ("t.co", "Organic Social", "t.co", "referral"),
        ("www.youtube.com", "Organic Video", "youtube.com", "referral"),
        ("www.etsy.com", "Organic Shopping", "etsy.com", "referral"),
        ("chatgpt.com", "AI Assistant", "chatgpt.com", "ai-assistant"),
        ("News.Example.org", "Referral", "news.example.org", "referral"),
    ],
)
def test_untagged_touch_is_grouped_by_its_referrer(host: str, channel: str, source: str, medium: str) -> None:
    found = grouped(referrer_host=host)
    assert (found.channel, found.source, found.medium) == (channel, source, medium)
    assert found.rule.endswith(":referrer")


def test_touch_that_tells_nothing_is_direct() -> None:
    assert grouped() == Grouping("Direct", "direct", None, None)


def test_own_pages_do_not_refer() -> None:
    assert grouped(referrer_host="www.acme.com", page="https://acme.com/pricing").channel == "Direct"
    assert grouped(referrer_host="blog.acme.com", page="https://acme.com/pricing").channel == "Referral"
    assert grouped(referrer_host="acme.com", page="/pricing").channel == "Referral"


@pytest.mark.parametrize(
    ("click_id", "channel"),
    [
        ("gclid", "Paid Search"),
        ("gbraid", "Paid Search"),
        ("wbraid", "Paid Search"),
        ("msclkid", "Paid Search"),
        ("ttclid", "Paid Social"),
        ("li_fat_id", "Paid Social"),
        ("fbclid", "Organic Social"),
    ],
)
def test_click_id_tells_where_an_untagged_touch_came_from(click_id: str, channel: str) -> None:
    found = grouped(click_ids=(click_id,), referrer_host="www.example.com")
    assert found.channel == channel
    assert found.rule.endswith(f":{click_id}")


def test_advertisement_is_paid_whatever_else_is_tagged() -> None:
    assert grouped(source="google", medium="organic", click_ids=("gclid",)).rule == "paid_search:gclid"
    assert grouped(source="google", medium="display", click_ids=("gclid",)).channel == "Display"
    assert grouped(source="x", campaign="cross-network", click_ids=("gclid",)).channel == "Cross-network"
    assert grouped(source="facebook", medium="social", click_ids=("fbclid",)).rule == "organic_social:tags"


def test_channel_of_the_caller_goes_before_every_rule() -> None:
    found = grouped(channel="Webinar", source="google", medium="cpc", click_ids=("gclid",))
    assert found == Grouping("Webinar", "caller", "google", "cpc")


def test_sources_are_those_of_the_published_table() -> None:
    table = source_categories()
    assert Counter(table.values()) == {"social": 592, "search": 129, "shopping": 52, "video": 46}
    lines = "\n".join(f"{name}={table[name]}" for name in sorted(table))
    assert (
        hashlib.sha256(lines.encode()).hexdigest() == "2e11fbff582c9337b5ac92c3fc53c3cc9d76c4ee33b2caed2f23c8ee5c2fc70c"
    )


PAID = r"^(.*cp.*|ppc|retargeting|paid.*)$"
SHOP = r"^(.*(([^a-df-z]|^)shop|shopping).*)$"
MAIL = r"^(email|e-mail|e_mail|e mail)$"
PUBLISHED: tuple[tuple[str, Callable[..., object]], ...] = (
    ("Direct", lambda s, m, c, k: s == "(direct)" and m in ("(not set)", "(none)")),
    ("Cross-network", lambda s, m, c, k: re.search("cross-network", c)),
    ("Paid Shopping", lambda s, m, c, k: (k == "shopping" or re.search(SHOP, c)) and re.search(PAID, m)),
    ("Paid Search", lambda s, m, c, k: k == "search" and re.search(PAID, m)),
    ("Paid Social", lambda s, m, c, k: k == "social" and re.search(PAID, m)),
    ("Paid Video", lambda s, m, c, k: k == "video" and re.search(PAID, m)),
    ("Display", lambda s, m, c, k: m in ("display", "banner", "expandable", "interstitial", "cpm")),
    ("Paid Other", lambda s, m, c, k: re.search(PAID, m)),
    ("Organic Shopping", lambda s, m, c, k: k == "shopping" or re.search(SHOP, c)),
    (
        "Organic Social",
        lambda s, m, c, k: (
            k == "social" or m in ("social", "social-network", "social-media", "sm", "social network", "social media")
        ),
    ),
    ("Organic Video", lambda s, m, c, k: k == "video" or re.search(r"^(.*video.*)$", m)),
    ("Organic Search", lambda s, m, c, k: k == "search" or m == "organic"),
    ("AI Assistant", lambda s, m, c, k: m == "ai-assistant"),
    ("Referral", lambda s, m, c, k: m in ("referral", "app", "link")),
    ("Email", lambda s, m, c, k: re.search(MAIL, s) or re.search(MAIL, m)),
    ("Affiliates", lambda s, m, c, k: m == "affiliate"),
    ("Audio", lambda s, m, c, k: m == "audio"),
    ("SMS", lambda s, m, c, k: s == "sms" or m == "sms"),
    (
        "Mobile Push Notifications",
        lambda s, m, c, k: m.endswith("push") or "mobile" in m or "notification" in m or s == "firebase",
    ),
    ("Unassigned", lambda s, m, c, k: True),
)
"""The rules as the page words them: of source, medium, campaign and the category of the source."""
SINGLE = (
    "cp cpc cpm ppc retargeting paid paidsocial shop shopping e-shop workshop cross-network video push mobile x "
    "notification sms email e-mail e_mail organic social sm referral app link affiliate audio display banner firebase"
)
PIECES = [*SINGLE.split(), "(none)", "(not set)", "(direct)", "social media", "e mail", "ai-assistant", " ", "-", ""]
WORDS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join)
SOURCES = st.one_of(WORDS, st.sampled_from(sorted(source_categories())))


@settings(max_examples=1_500)
@given(source=SOURCES, medium=WORDS, campaign=WORDS, shout=st.booleans())
def test_every_combination_gets_the_channel_of_the_published_rules(
    source: str, medium: str, campaign: str, shout: bool
) -> None:
    kept = [word or "(not set)" for word in (source, medium, campaign)]
    if not source and not medium:
        return  # not tagged
    expected = next(name for name, holds in PUBLISHED if holds(*kept, source_categories().get(source)))
    written = [word.upper() if shout else word for word in (source, medium, campaign)]
    assert grouped(source=written[0], medium=written[1], campaign=written[2]).channel == expected
