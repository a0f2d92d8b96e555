"""What a text message is made of: its segments, and how to be rid of more. Pure."""

import re
from dataclasses import dataclass

from services.nurture.templates.document import Approved
from shared.ids import MessageId

# The default alphabet of SMS and its extension (3GPP TS 23.038): any other character makes the whole message UCS-2.
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("^{}\\[~]|€\f")
_STOP = re.compile(r"\bSTOP\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A text message to a number in E.164: its words, or the approved template that has them."""

    message_id: MessageId
    recipient: str
    text: str
    approved: Approved | None = None


def segments(text: str) -> int:
    """As how many messages an SMS travels and is paid.

    160 characters are one, more take 153 each; outside the default alphabet it is 70 and 67, in UTF-16.
    """
    if all(char in _BASIC or char in _EXTENSION for char in text):
        length, single, each = sum(2 if char in _EXTENSION else 1 for char in text), 160, 153
    else:
        length, single, each = len(text.encode("utf-16-le")) // 2, 70, 67
    return 1 if length <= single else -(-length // each)


def with_way_out(text: str, stop_text: str) -> str:
    """The text, ending with how to be told no more, unless it says so itself."""
    return text if _STOP.search(text) else f"{text.rstrip()}\n{stop_text}"
