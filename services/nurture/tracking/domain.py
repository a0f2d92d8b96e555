"""What an open or a click is worth: a person's, or a machine's."""

import re
from datetime import datetime, timedelta
from typing import Literal

from shared.ids import MessageId, TouchId, derived_id

ResponseKind = Literal["email_opened", "email_clicked", "unsubscribed"]
_MACHINES = re.compile(
    r"bot\b|crawl|spider|scan|preview|proxy|fetch|monitor|headless|curl/|wget/|python-|libwww|go-http|java/|"
    r"barracuda|mimecast|proofpoint|safelinks|symantec|trendmicro|fireeye|cloudmark|googleimageproxy|yahoomail",
    re.IGNORECASE,
)


def is_machine(*, method: str, user_agent: str | None, claimed_at: datetime, now: datetime, window: timedelta) -> bool:
    """Whether it was a scanner or a proxy rather than a person: by its method, its name, or its haste."""
    return method == "HEAD" or not user_agent or bool(_MACHINES.search(user_agent)) or now - claimed_at < window


def response_id(kind: ResponseKind, message_id: MessageId, number: int, *, automated: bool) -> TouchId:
    """One touch per message (opens) or per link of a message (clicks), and another one for machines.

    So a link counts once, however often it is opened, and a scanner that comes first does not hide the person.
    """
    return TouchId(derived_id(kind, message_id, str(number), "machine" if automated else "person"))


def page_of(url: str) -> str:
    """The address without its query, in which personal data may be."""
    return url.partition("#")[0].partition("?")[0]
