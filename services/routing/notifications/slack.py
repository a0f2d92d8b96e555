"""How Slack is spoken to: messages as blocks, what its answers mean, and whether a click comes from it. Pure.

https://docs.slack.dev/authentication/verifying-requests-from-slack,
https://docs.slack.dev/reference/methods/chat.postMessage, https://docs.slack.dev/interactivity/handling-user-interaction
"""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never
from urllib.parse import parse_qs

import orjson

from services.routing.notifications.domain import Result, Told
from shared.errors import Malformed, Unauthenticated
from shared.outbound import Answer

OLDEST = timedelta(minutes=5)
TOO_MANY = 429
NOT_SAID = frozenset({"ratelimited", "rate_limited", "service_unavailable", "team_added_to_org"})
"""Errors after which a message certainly was not posted, and may be another time."""
UNSURE = frozenset({"internal_error", "fatal_error", "request_timeout"})
"""Errors of which Slack says that some of the call may have succeeded."""


@dataclass(frozen=True, slots=True)
class Click:
    """Somebody pressed a button of ours."""

    action: str
    notification_id: str
    user_id: str
    response_url: str


def blocks(message: Told, notification_id: str) -> list[dict[str, Any]]:
    """A message with its buttons, as Block Kit."""
    made: list[dict[str, Any]] = [
        _section(f"*{escaped(message.subject)}*\n{escaped(message.text)}\n<{message.link}|Open the lead>")
    ]
    buttons: list[dict[str, Any]] = []
    match message.offers:
        case "answer":
            buttons = [
                _button("Accept", "accept", notification_id, "primary"),
                _button("Reject", "reject", notification_id),
            ]
        case "claim":
            buttons = [_button("Claim", "claim", notification_id, "primary")]
        case None:
            return made
        case _:
            assert_never(message.offers)
    return [*made, {"type": "actions", "elements": buttons}]


def escaped(text: str) -> str:
    """Text in which Slack sees no mention, link or channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _button(label: str, action: str, value: str, style: str | None = None) -> dict[str, Any]:
    button: dict[str, Any] = {
        "type": "button",
        "text": {"type": "plain_text", "text": label},
        "action_id": action,
        "value": value,
    }
    return button if style is None else {**button, "style": style}


def instead(text: str) -> dict[str, Any]:
    """What takes the place of a message that was answered: without buttons."""
    return {"replace_original": True, "text": escaped(text), "blocks": [_section(escaped(text))]}


def only_you(text: str) -> dict[str, Any]:
    """An explanation that only who clicked can see."""
    return {"response_type": "ephemeral", "replace_original": False, "text": escaped(text)}


def result_of_api(answer: Answer) -> Result:
    """What an answer of the Web API to a posted message means: 200 with `ok`, or with the name of an error."""
    if answer.status == TOO_MANY:
        return _later("ratelimited", answer)
    try:
        said = answer.json()
        error = None if said["ok"] else str(said.get("error", "unknown_error"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _unreadable(answer)
    if error is None:
        return Result("sent", "Slack took it", place=(str(said.get("channel", "")), str(said.get("ts", ""))))
    if error in NOT_SAID:
        return _later(error, answer)
    if error in UNSURE:
        return Result("unknown", f"Slack answered {error}, after which the message may have been posted")
    return Result("failed", f"Slack answered {error[:100]}")


def result_of_webhook(answer: Answer) -> Result:
    """What an answer of an incoming webhook means: 200, or a status with the name of an error as text."""
    if answer.is_success:
        return Result("sent", "Slack took it")
    if answer.status == TOO_MANY:
        return _later("rate_limited", answer)
    if answer.status >= 500:
        return _unreadable(answer)
    return Result("failed", f"Slack answered {answer.status} {answer.body[:100].decode('ascii', 'replace')}")


def _later(error: str, answer: Answer) -> Result:
    return Result("planned", f"Slack answered {error}", timedelta(seconds=max(answer.retry_after_s or 0, 1)))


def _unreadable(answer: Answer) -> Result:
    return Result("unknown", f"Slack answered {answer.status}, after which the message may have been posted")


def signature(secret: str, stamp: str, body: bytes) -> str:
    """The signature that Slack puts on a request."""
    return "v0=" + hmac.digest(secret.encode(), b"v0:%s:%s" % (stamp.encode(), body), "sha256").hex()


def verify(stamp: str, signed: str, body: bytes, secret: str, now: datetime) -> None:
    """Refuse what Slack did not send, or sent long ago. Raises Unauthenticated."""
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 12):
        raise Unauthenticated("the request has no X-Slack-Request-Timestamp")
    if abs(now.timestamp() - int(stamp)) > OLDEST.total_seconds():
        raise Unauthenticated("the request was signed too long ago")
    if not hmac.compare_digest(signature(secret, stamp, body).encode(), signed.encode("utf-8", "replace")):
        raise Unauthenticated("the request is not signed with the signing secret of the app")


def click_in(body: bytes) -> Click | None:
    """The click that a request tells of; None for what is no click on a button of ours. Raises Malformed."""
    try:
        payload = orjson.loads(parse_qs(body.decode(), strict_parsing=True)["payload"][0])
        if payload["type"] != "block_actions":
            return None
        action = payload["actions"][0]
        if action["action_id"] not in ("accept", "reject", "claim"):
            return None
        told = (action["action_id"], action["value"], payload["user"]["id"], payload["response_url"])
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        raise Malformed("the body is not a form with the payload of an interaction") from exc
    if not all(isinstance(one, str) and "\x00" not in one for one in told):
        raise Malformed("the payload does not say who clicked what")
    return Click(*told)
