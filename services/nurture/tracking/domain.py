"""What an open or a click is worth: a person's, or a machine's; known at once, or by what happens next."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from crawleruseragents import is_crawler

from services.nurture.tracking.scanners import Scanners
from shared.events import ConsentChannel
from shared.ids import MessageId, TouchId, derived_id

Click = Literal["email_clicked", "sms_clicked", "whatsapp_clicked"]
Answer = Literal["email_opened"] | Click
ResponseKind = Answer | Literal["unsubscribed"]
Seen = Answer | Literal["trap"]
CLICKS: Mapping[ConsentChannel, Click] = {
    "email": "email_clicked",
    "sms": "sms_clicked",
    "whatsapp": "whatsapp_clicked",
}
"""What a click on a link of a message is told as, by the channel of the message."""
TRAPPED = "the link that nobody sees was followed"
FEWEST_LINKS = 2
# Of mail and of the previews of chats in particular, beside the crawlers that the library knows.
_MACHINES = re.compile(
    r"bot\b|crawl|spider|scan|preview|proxy|fetch|monitor|headless|curl/|wget/|python-|libwww|go-http|java/|"
    r"barracuda|mimecast|proofpoint|safelinks|symantec|trendmicro|fireeye|cloudmark|googleimageproxy|yahoomail",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to an address in a message."""

    method: str
    user_agent: str | None
    address: str


@dataclass(frozen=True, slots=True)
class Habits:
    """How machines are told from people.

    A response within `haste` of the send is a machine's; so are those of one message whose links are all followed
    within `span`, and those up to `reach` before a link was followed that nobody sees.
    """

    haste: timedelta
    span: timedelta
    reach: timedelta
    scanners: Scanners

    @property
    def every_link(self) -> str:
        """Why the clicks of such a message are a machine's."""
        return f"every link of the message was followed within {self.span.total_seconds():g} s"

    @property
    def hasty(self) -> str:
        """Why a response that comes too soon is a machine's."""
        return f"within {self.haste.total_seconds():g} s of the send"


@dataclass(frozen=True, slots=True)
class Response:
    """One that was told as a touch, or the trap.

    `seen_at` is when it happened last, `reason` why it is a machine's; None for a person's.
    """

    touch_id: TouchId
    kind: Seen
    number: int
    at: datetime
    seen_at: datetime
    reason: str | None


def why_itself(asked: Asked, habits: Habits) -> str | None:
    """How a machine shows by itself that it is one: by its method, its name or its network. None when it does not."""
    if asked.method == "HEAD":
        return "asked for the head only"
    if not asked.user_agent:
        return "no browser is named"
    if _MACHINES.search(asked.user_agent) or is_crawler(asked.user_agent):
        return "a known scanner or robot, by its name"
    if (provider := habits.scanners.provider_of(asked.address)) is not None:
        return f"a known scanner, by its network: {provider}"
    return None


def why_machine(
    asked: Asked, habits: Habits, earlier: Iterable[Response], *, claimed_at: datetime, now: datetime
) -> str | None:
    """Why a response is a scanner's or a proxy's rather than a person's; None when nothing speaks for it.

    By itself, by its haste, or since the message was scanned a moment ago.
    """
    if (reason := why_itself(asked, habits)) is not None:
        return reason
    if now - claimed_at < habits.haste:
        return habits.hasty
    scans = (TRAPPED, habits.every_link)
    return next((one.reason for one in earlier if one.reason in scans and now - one.seen_at <= habits.span), None)


def is_scanned(responses: Iterable[Response], links: int, now: datetime, habits: Habits) -> bool:
    """Whether every link of a message was followed within the last moments, which no reader does.

    What a machine followed that shows itself says nothing about who followed the rest.
    """
    unclear = (None, habits.hasty, habits.every_link, TRAPPED)
    followed = {
        one.number
        for one in responses
        if one.kind in CLICKS.values() and now - one.seen_at <= habits.span and one.reason in unclear
    }
    return links >= FEWEST_LINKS and len(followed) >= links


def to_withdraw(responses: Iterable[Response], since: datetime) -> list[Response]:
    """The responses since a time that were told as a person's."""
    return [one for one in responses if one.kind != "trap" and one.reason is None and one.at >= since]


def response_id(kind: ResponseKind, message_id: MessageId, number: int, *, automated: bool, again: int = 0) -> TouchId:
    """One touch per message (opens) or per link of a message (clicks), and another one for machines.

    So a link counts once, however often it is opened, and a scanner that comes first does not hide the person. Nor does
    one whose clicks were taken for a person's: `again` counts those.
    """
    who = "machine" if automated else f"person{again}" if again else "person"
    return TouchId(derived_id(kind, message_id, str(number), who))


def persons_id(kind: ResponseKind, message_id: MessageId, number: int, known: Sequence[Response]) -> TouchId:
    """The touch of a person who opens or clicks now."""
    told: Mapping[TouchId, Response] = {one.touch_id: one for one in known}
    again = 0
    while True:
        touch_id = response_id(kind, message_id, number, automated=False, again=again)
        if touch_id not in told or told[touch_id].reason is None:
            return touch_id
        again += 1


def page_of(url: str) -> str:
    """The address without its query, in which personal data may be."""
    return url.partition("#")[0].partition("?")[0]
