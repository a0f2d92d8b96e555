"""The tracking snippet as it is served: one small file for all sites, which browsers and proxies may keep."""

import hashlib
from functools import cache
from html import escape
from pathlib import Path

import rjsmin  # type: ignore[import-untyped]  # ships no types

SOURCE = Path(__file__).with_name("t.js")
STUB = "window.throughline=window.throughline||function(){(throughline.q=throughline.q||[]).push(arguments)}"
SERVED = {
    "Cache-Control": "public, max-age=3600, stale-while-revalidate=86400",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@cache
def script() -> bytes:
    """The snippet without what only people read."""
    return bytes(rjsmin.jsmin(SOURCE.read_bytes()))


@cache
def etag() -> str:
    """Names this version of the snippet."""
    return f'"{hashlib.sha256(script()).hexdigest()[:16]}"'


def tag_for(base_url: str, site_id: str, consent: str) -> str:
    """What a site's owner puts into the head of every page."""
    address = escape(f"{base_url}/capture/t.js")
    tag = f'<script async src="{address}" data-site="{site_id}" data-consent="{consent}"></script>'
    return f"<script>{STUB}</script>\n{tag}"
