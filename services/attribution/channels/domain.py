"""The channel of a touch by the default channel grouping of Google Analytics 4, and the rule that decided.

The rules for manual traffic stand here in Google's order, https://support.google.com/analytics/answer/9756891; they are
not case sensitive. Where the caller tagged neither source nor medium, these come from the referrer as Analytics derives
them: a search engine gives `organic`, an AI assistant `ai-assistant`, any other site `referral`, nothing at all
`(direct)` / `(none)`. An advertisement's click id makes paid traffic of what is not tagged as paid already, since
auto-tagging goes before manual tags.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from services.attribution.channels.source_categories import SourceCategory, source_categories

DIRECT = "Direct"
UNATTRIBUTED = "(unattributed)"
NOT_SET = "(not set)"
BY_CALLER = "caller"
RULES_OF = "2026-09-19"
"""When Google published what stands here. Another date has all touches grouped anew."""

_PAID = re.compile(r".*cp.*|ppc|retargeting|paid.*", re.DOTALL)
_SHOPPING_CAMPAIGN = re.compile(r".*(([^a-df-z]|^)shop|shopping).*", re.DOTALL)
_EMAIL = frozenset({"email", "e-mail", "e_mail", "e mail"})
_DISPLAY = frozenset({"display", "banner", "expandable", "interstitial", "cpm"})
_SOCIAL = frozenset({"social", "social-network", "social-media", "sm", "social network", "social media"})
_REFERRAL = frozenset({"referral", "app", "link"})
_NO_MEDIUM = frozenset({NOT_SET, "(none)"})

# Engines whose hosts differ by country or that Google's table has by name only: google.co.uk is `google`. Their other
# services, mail.google.com for one, are sites like any other.
_ENGINE = re.compile(
    r"(?:(?:m|images|(?:[a-z]+\.)?search)\.)?"
    r"(google|bing|yahoo|duckduckgo|yandex|baidu|ask(?=\.com$)|aol|lycos|daum|seznam|qwant|rambler|naver|sogou)"
    r"\.(?:com?\.)?[a-z]{2,3}"
)
_AI_ASSISTANTS = frozenset(
    {
        "chatgpt.com",
        "gemini.google.com",
        "chat.deepseek.com",
        "copilot.microsoft.com",
        "grok.com",
        "claude.ai",
    }
)
# fbclid is on every link that leaves Facebook, paid or not; the others are on advertisements only.
_AD_CLICKS = MappingProxyType(
    {
        "gclid": "Paid Search",
        "gbraid": "Paid Search",
        "wbraid": "Paid Search",
        "msclkid": "Paid Search",
        "ttclid": "Paid Social",
        "li_fat_id": "Paid Social",
    }
)
_CLICK_TRAFFIC = MappingProxyType(
    {
        "gclid": ("google", "cpc"),
        "gbraid": ("google", "cpc"),
        "wbraid": ("google", "cpc"),
        "msclkid": ("bing", "cpc"),
        "ttclid": ("tiktok", "paid"),
        "li_fat_id": ("linkedin", "paid"),
        "fbclid": ("facebook", "referral"),
    }
)
_PAID_CHANNELS = frozenset(
    {
        "Cross-network",
        "Paid Shopping",
        "Paid Search",
        "Paid Social",
        "Paid Video",
        "Display",
        "Paid Other",
    }
)


@dataclass(frozen=True, slots=True)
class Grouping:
    """A touch's channel, the rule that decided, and the source and medium it decided by (None: not known)."""

    channel: str
    rule: str
    source: str | None
    medium: str | None


@dataclass(frozen=True, slots=True)
class _Traffic:
    source: str
    medium: str
    campaign: str

    @property
    def category(self) -> SourceCategory | None:
        return source_categories().get(self.source)

    @property
    def is_paid(self) -> bool:
        return _PAID.fullmatch(self.medium) is not None

    @property
    def is_shopping(self) -> bool:
        return self.category == "shopping" or _SHOPPING_CAMPAIGN.fullmatch(self.campaign) is not None


_Rule = tuple[str, Callable[[_Traffic], bool]]
RULES: tuple[_Rule, ...] = (
    (DIRECT, lambda t: t.source == "(direct)" and t.medium in _NO_MEDIUM),
    ("Cross-network", lambda t: "cross-network" in t.campaign),
    ("Paid Shopping", lambda t: t.is_shopping and t.is_paid),
    ("Paid Search", lambda t: t.category == "search" and t.is_paid),
    ("Paid Social", lambda t: t.category == "social" and t.is_paid),
    ("Paid Video", lambda t: t.category == "video" and t.is_paid),
    ("Display", lambda t: t.medium in _DISPLAY),
    ("Paid Other", lambda t: t.is_paid),
    ("Organic Shopping", lambda t: t.is_shopping),
    ("Organic Social", lambda t: t.category == "social" or t.medium in _SOCIAL),
    ("Organic Video", lambda t: t.category == "video" or "video" in t.medium),
    ("Organic Search", lambda t: t.category == "search" or t.medium == "organic"),
    ("AI Assistant", lambda t: t.medium == "ai-assistant"),
    ("Referral", lambda t: t.medium in _REFERRAL),
    ("Email", lambda t: t.source in _EMAIL or t.medium in _EMAIL),
    ("Affiliates", lambda t: t.medium == "affiliate"),
    ("Audio", lambda t: t.medium == "audio"),
    ("SMS", lambda t: "sms" in (t.source, t.medium)),
    (
        "Mobile Push Notifications",
        lambda t: (
            t.medium.endswith("push") or "mobile" in t.medium or "notification" in t.medium or t.source == "firebase"
        ),
    ),
)


def group_touch(  # noqa: PLR0913  # the fields of a touch that say where it came from
    *,
    channel: str | None,
    source: str | None,
    medium: str | None,
    campaign: str | None,
    click_ids: tuple[str, ...],
    referrer_host: str | None,
    page: str | None,
) -> Grouping:
    """The channel the caller gave, else the one of the default channel grouping."""
    if channel:
        return Grouping(channel, BY_CALLER, source or None, medium or None)
    return default_grouping(
        source or None, medium or None, campaign or None, click_ids, foreign_referrer(referrer_host, page)
    )


@lru_cache(maxsize=4_096)
def foreign_referrer(referrer_host: str | None, page: str | None) -> str | None:
    """The host that referred to a page, unless that is its own site: a site's pages refer to each other."""
    if referrer_host and page and _host_of(page) == _bare(referrer_host):
        return None
    return referrer_host or None


@lru_cache(maxsize=4_096)
def default_grouping(
    source: str | None,
    medium: str | None,
    campaign: str | None,
    click_ids: tuple[str, ...],
    referrer_host: str | None,
) -> Grouping:
    """The default channel grouping of what is not empty; `referrer_host` is not the site's own."""
    basis = "tags"
    if source is None and medium is None:
        source, medium, basis = _untagged(click_ids, referrer_host)
    channel = _channel(source, medium, campaign)
    if channel not in _PAID_CHANNELS:
        for click_id, paid_channel in _AD_CLICKS.items():
            if click_id in click_ids:
                return Grouping(paid_channel, f"{_slug(paid_channel)}:{click_id}", source, medium)
    if source is None and medium is None and campaign is None:
        return Grouping(DIRECT, _slug(DIRECT), None, None)
    return Grouping(channel, f"{_slug(channel)}:{basis}", source, medium)


def _untagged(click_ids: tuple[str, ...], referrer_host: str | None) -> tuple[str | None, str | None, str]:
    """Source, medium and what told them, of a touch without tags."""
    for click_id, (source, medium) in _CLICK_TRAFFIC.items():
        if click_id in click_ids:
            return source, medium, click_id
    if referrer_host is None:
        return None, None, "tags"
    host = _bare(referrer_host)
    if host in _AI_ASSISTANTS:
        return host, "ai-assistant", "referrer"
    category = source_categories().get(host)
    if category is None and (engine := _ENGINE.fullmatch(host)):
        return engine[1], "organic", "referrer"
    return host, "organic" if category == "search" else "referral", "referrer"


def _channel(source: str | None, medium: str | None, campaign: str | None) -> str:
    if source is None and medium is None and campaign is None:
        source, medium = "(direct)", "(none)"
    traffic = _Traffic(
        (source or NOT_SET).lower(),
        (medium or NOT_SET).lower(),
        (campaign or NOT_SET).lower(),
    )
    return next((name for name, applies in RULES if applies(traffic)), "Unassigned")


def _bare(host: str) -> str:
    return host.lower().removeprefix("www.").rstrip(".")


def _host_of(page: str) -> str:
    """The host of a page's address; empty for a bare path."""
    _, separator, rest = page.partition("//")
    return _bare(rest.split("/", 1)[0].partition("?")[0].partition(":")[0]) if separator else ""


def _slug(channel: str) -> str:
    return channel.lower().replace(" ", "_").replace("-", "_")
