"""Addresses in Slack are secrets: who has one can write there. They are kept sealed."""

from shared.personal import PersonKeys


def seal_url(keys: PersonKeys, of: str, url: str) -> str:
    """An address as it is stored."""
    return keys.seal_request({"url": url}, f"slack/{of}")


def open_url(keys: PersonKeys, of: str, sealed: str) -> str:
    """The address again."""
    return str(keys.open_request(sealed, f"slack/{of}")["url"])
