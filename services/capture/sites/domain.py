"""What a page's events mean: pure."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.capture.facts.domain import Visit, host_of, visit_at

OLDEST = timedelta(days=7)
_ROBOT = re.compile(
    r"bot\b|bot/|crawl|spider|slurp|lighthouse|pingdom|uptime|monitor|preview|scan|fetch|archiv|facebookexternal"
    r"|curl|wget|python|java/|httpclient|go-http|okhttp|libwww",
    re.IGNORECASE,
)
_ORIGIN = re.compile(r"https?://(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_PRIVATE_PARTS = ("session_id", "session_number", "title")


def is_robot(user_agent: str | None) -> bool:
    """Whether a request says of itself that no person is behind it. A browser that is driven is one: sites test so."""
    return not user_agent or _ROBOT.search(user_agent) is not None


def is_origin(text: str) -> bool:
    """Whether a text names an origin as browsers write it, perhaps all below a domain: `https://*.acme.com`."""
    return _ORIGIN.fullmatch(text) is not None and ".." not in text


def allows(origins: Sequence[str], origin: str) -> bool:
    """Whether an origin is one of these."""
    scheme, _, host = origin.lower().partition("://")
    for each in origins:
        allowed_scheme, _, allowed = each.partition("://")
        if scheme != allowed_scheme:
            continue
        if host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]) and len(host) >= len(allowed)):
            return True
    return False


def occurred(at_ms: int | None, sent_at_ms: int | None, received_at: datetime) -> datetime:
    """When an event happened by our clock: as long before it came in as the page says, whatever its clock shows."""
    if at_ms is None or sent_at_ms is None:
        return received_at
    age_ms = min(max(sent_at_ms - at_ms, 0), OLDEST // timedelta(milliseconds=1))
    return received_at - timedelta(milliseconds=age_ms)


def visit_of(url: str | None, session_url: str | None) -> Visit:
    """Where a visit came from: what the page's own address says, else what the first page of the session said."""
    own = visit_at(url) if url else Visit()
    if own.source or own.medium or own.campaign or own.click_ids or not session_url:
        return own
    return visit_at(session_url)._replace(page=own.page)


def referrer_of(url: str | None, referrer: str | None, session_referrer: str | None) -> str | None:
    """Who sent the visitor: for a step within the site, whoever sent them to its first page."""
    within = referrer and url and host_of(referrer) == host_of(url)
    return (session_referrer or None) if within or not referrer else referrer


def properties_of(told: Mapping[str, Any], title: str | None, browser: str, number: int | None) -> dict[str, Any]:
    """The properties of a touch: the page's own, and beside them the session and the title."""
    known = {
        "title": title or None,
        "session_number": number,
        "session_id": f"{browser}.{number}" if number else None,
    }
    own = {name: value for name, value in told.items() if name not in _PRIVATE_PARTS}
    return own | {name: value for name, value in known.items() if value is not None}
