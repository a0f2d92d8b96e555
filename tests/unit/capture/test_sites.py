"""What pages send, decided: the snippet's size, origins, robots, clocks, where a visit came from."""

import gzip
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from starlette.requests import Request

from services.capture.sites.domain import allows, is_origin, is_robot, occurred, properties_of, referrer_of, visit_of
from services.capture.sites.snippet import script, tag_for
from services.capture.visitors import Allowance
from shared.errors import QuotaExceeded
from shared.web import address_of, network_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
MS = int(NOW.timestamp() * 1_000)
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"


def test_the_snippet_is_smaller_than_three_thousand_bytes_packed() -> None:
    assert len(gzip.compress(script(), 9)) < 3_000
    assert b"//" not in script().replace(b"https://", b"")


def test_the_tag_names_the_site_and_queues_calls_until_the_snippet_is_there() -> None:
    tag = tag_for("https://crm.acme.com", "5b0c1f3e", "required")
    assert 'src="https://crm.acme.com/capture/t.js" data-site="5b0c1f3e" data-consent="required"' in tag
    assert "throughline.q" in tag


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://www.acme.com", True),
        ("HTTPS://WWW.ACME.COM", True),
        ("https://shop.acme.org", True),
        ("https://acme.org", False),
        ("https://evilacme.org", False),
        ("http://www.acme.com", False),
        ("https://www.acme.com:8443", False),
        ("https://www.acme.com.evil.com", False),
        ("null", False),
        ("", False),
    ],
)
def test_an_origin_is_one_of_the_sites_or_not(origin: str, allowed: bool) -> None:
    assert allows(["https://www.acme.com", "https://*.acme.org"], origin) is allowed


@pytest.mark.parametrize(
    "text",
    ["acme.com", "https://acme.com/path", "https://", "ftp://acme.com", "https://*", "https://a..b", "*", "null"],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    assert not is_origin(text)


@pytest.mark.parametrize(
    "user_agent",
    [None, "", "Googlebot/2.1", "Mozilla/5.0 (compatible; bingbot/2.0)", "curl/8", "python-httpx"],
)
def test_a_robot_says_so(user_agent: str | None) -> None:
    assert is_robot(user_agent)


def test_a_browser_is_no_robot() -> None:
    assert not is_robot(CHROME)
    assert not is_robot("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148 Safari/604.1")


@pytest.mark.parametrize("off", [timedelta(0), timedelta(days=400), timedelta(days=-400)])
def test_a_clock_that_lies_does_no_harm(off: timedelta) -> None:
    shown = MS + off // timedelta(milliseconds=1)
    assert occurred(shown - 90_000, shown, NOW) == NOW - timedelta(seconds=90)


def test_an_event_is_not_of_the_future_and_not_older_than_a_week() -> None:
    assert occurred(MS + 5_000, MS, NOW) == NOW
    assert occurred(0, MS, NOW) == NOW - timedelta(days=7)
    assert occurred(None, MS, NOW) == occurred(MS, None, NOW) == NOW


def test_later_pages_know_where_the_session_came_from() -> None:
    landing = "https://acme.com/?utm_source=news&utm_medium=email&gclid=x"
    later = visit_of("https://acme.com/pricing?plan=pro", landing)
    assert (later.source, later.medium, later.click_ids) == ("news", "email", ("gclid",))
    assert later.page == "https://acme.com/pricing"
    own = visit_of("https://acme.com/pricing?utm_source=ads", landing)
    assert (own.source, own.medium, own.click_ids) == ("ads", None, ())


def test_a_step_within_the_site_was_sent_by_who_sent_the_first_page() -> None:
    page = "https://acme.com/pricing"
    assert referrer_of(page, "https://acme.com/", "https://www.google.com/") == "https://www.google.com/"
    assert referrer_of(page, "https://acme.com/", "") is None
    assert referrer_of(page, "https://news.example/", "https://www.google.com/") == "https://news.example/"
    assert referrer_of(page, None, "https://www.google.com/") == "https://www.google.com/"


def test_the_session_cannot_be_told_by_the_pages_own_properties() -> None:
    told = properties_of({"plan": "pro", "session_number": 99, "title": "Fake"}, "Real", "b1", 2)
    assert told == {"plan": "pro", "title": "Real", "session_number": 2, "session_id": "b1.2"}


def request_from(peer: str, forwarded: str | None = None) -> Request:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return Request({"type": "http", "client": (peer, 1), "headers": headers})


def test_who_asks_is_told_by_the_proxies_in_front_and_not_by_the_caller() -> None:
    assert address_of(request_from("8.8.8.8", "1.1.1.1")) == "8.8.8.8"
    assert address_of(request_from("127.0.0.1", "1.1.1.1")) == "1.1.1.1"
    assert address_of(request_from("10.0.0.2", "9.9.9.9, 1.1.1.1, 10.0.0.7")) == "1.1.1.1"
    assert address_of(request_from("127.0.0.1", "nonsense")) == "127.0.0.1"
    assert address_of(request_from("127.0.0.1")) == "127.0.0.1"
    through_cdn = request_from("10.0.0.2", "6.6.6.6, 9.9.9.9, 104.16.0.7")
    assert address_of(through_cdn) == "104.16.0.7"
    assert address_of(through_cdn, [ip_network("104.16.0.0/13")]) == "9.9.9.9"


def test_evidence_keeps_the_network_and_not_the_host() -> None:
    assert network_of("203.0.113.77") == "203.0.113.0"
    assert network_of("2001:db8:1234:5678::1") == "2001:db8:1234::"
    assert network_of("nonsense") is None


def test_an_address_has_so_many_requests_at_once_and_gets_them_back_with_time() -> None:
    allowance = Allowance(at_once=2, a_second=0.5)
    assert [allowance.wait_for("site", "8.8.8.8", 10.0) for _ in range(3)] == [0, 0, 2.0]
    assert allowance.wait_for("site", "1.1.1.1", 10.0) == 0
    assert allowance.wait_for("other", "8.8.8.8", 10.0) == 0
    assert allowance.wait_for("site", "8.8.8.8", 12.0) == 0
    with pytest.raises(QuotaExceeded) as refused:
        allowance.spend("site", "8.8.8.8", 12.5)
    assert refused.value.retry_after == 2


def test_a_whole_ipv6_network_is_one_caller() -> None:
    allowance = Allowance(at_once=1, a_second=1)
    assert allowance.wait_for("site", "2606:4700:1:2::1", 0) == 0
    assert allowance.wait_for("site", "2606:4700:1:2:ffff::9", 0) > 0
