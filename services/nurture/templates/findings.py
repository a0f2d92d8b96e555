"""What somebody who is about to send a message should know about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from services.nurture.templates.rendering import Rendered

CLIPPED_AT = 102 * 1024
"""Bytes of HTML after which Gmail shows the rest only on demand (as its senders' guides have it)."""
LONG_SUBJECT = 78
"""Characters of a line that RFC 5322 recommends at most; telephones show half of it."""
Code = Literal[
    "missing_value", "no_unsubscribe_place", "image_without_alt", "html_too_large", "link_dropped", "long_subject"
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may be wrong."""

    code: Code
    detail: str


def findings(rendered: Rendered, html: str, *, needs_leave: bool) -> Iterator[Finding]:
    """What may be wrong with a message; `html` as it will be, its links as they were written."""
    for path in rendered.missing:
        yield Finding("missing_value", f"{path} is absent and has no default: this message would not be sent")
    if needs_leave and not rendered.own_leave:
        yield Finding("no_unsubscribe_place", "has no {{ unsubscribe_url }}: a line with it is added at the end")
    for source in rendered.wordless_images:
        yield Finding("image_without_alt", f"the image {source} has no alt; an empty one says that it is decoration")
    size = len(html.encode())
    if size > CLIPPED_AT:
        yield Finding("html_too_large", f"the HTML has {size} bytes; Gmail cuts off what is behind {CLIPPED_AT}")
    for target in rendered.dropped:
        yield Finding("link_dropped", f"{target[:200] or 'an empty link'} is no address that a message can lead to")
    if len(rendered.subject) > LONG_SUBJECT:
        yield Finding("long_subject", f"the subject has {len(rendered.subject)} characters; {LONG_SUBJECT} are shown")
