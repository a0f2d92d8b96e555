"""The page on sources names every kind that can be made."""

from pathlib import Path

from services.capture.adapters import adapters


def test_the_page_names_every_kind() -> None:
    page = Path("docs/sources.md").read_text()
    assert [kind for kind in adapters() if f"`{kind}`" not in page] == []
