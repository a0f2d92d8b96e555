"""SendGrid, v3. https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send

It has no key that makes sending twice harmless. Whether it has a message tells its activity feed, where that is bought.
"""

import time
from dataclasses import replace
from datetime import timedelta

from services.nurture.channels.calling import TOO_MANY, ProviderApi, body_of
from services.nurture.channels.letter import OUR_ID, letter_of
from services.nurture.channels.provider import StillWanted
from shared.ids import MessageId
from shared.smtp import Envelope, Outcome

_OFF = {"click_tracking": {"enable": False, "enable_text": False}, "open_tracking": {"enable": False}}


class SendGrid:
    """Takes the parts of an email."""

    name = "sendgrid"

    def __init__(self, api: ProviderApi) -> None:
        self._api = api

    async def deliver(self, content: Envelope, still_wanted: StillWanted) -> Outcome:
        """Hand over an email."""
        letter = letter_of(content)
        parts = (("text/plain", letter.text), ("text/html", letter.html))
        sender = {"email": letter.sender_address} | ({"name": letter.sender_name} if letter.sender_name else {})
        body = {
            "personalizations": [{"to": [{"email": letter.recipient}], "custom_args": {OUR_ID: letter.message_id}}],
            "from": sender,
            "subject": letter.subject,
            "content": [{"type": kind, "value": value} for kind, value in parts if value],
            "headers": letter.headers,
            "tracking_settings": _OFF,
        }
        answer = await self._api.call("POST", "/v3/mail/send", still_wanted, json=body)
        if isinstance(answer, Outcome):
            return answer
        if answer.is_success:
            return self._api.taken(answer.headers.get("x-message-id"))
        errors = body_of(answer).get("errors")
        told = [str(error.get("message")) for error in errors if isinstance(error, dict)] if errors else []
        outcome = self._api.refused(answer, "; ".join(told))
        again_at = answer.headers.get("x-ratelimit-reset", "")
        if answer.status == TOO_MANY and answer.retry_after_s is None and again_at.isdecimal():
            seconds = min(max(int(again_at[:12]) - time.time(), 1), 3_600)
            return replace(outcome, pause=timedelta(seconds=seconds))
        return outcome

    async def look_up(self, message_id: MessageId) -> str | None:
        """Its id of a message that it has; None where it does not say."""
        query = {"limit": 1, "query": f"(unique_args['{OUR_ID}']=\"{message_id}\")"}
        found = await self._api.look("/v3/messages", params=query)
        messages = (found or {}).get("messages")
        return str(messages[0].get("msg_id")) if messages else None
