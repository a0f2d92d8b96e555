"""Resend. https://resend.com/docs/api-reference/emails/send-email

Its idempotency keys hold for 24 hours: where no answer came, or 5xx, the same message is handed over again, at once and
later, and taken once. One with other words under a key that was sent already is refused, which tells as much. Without
an id of its own it finds no message.
"""

from datetime import timedelta

from services.nurture.channels.calling import ProviderApi, body_of
from services.nurture.channels.letter import OUR_ID, letter_of
from services.nurture.channels.provider import StillWanted
from shared.smtp import Envelope, Outcome

TRIES = 3
_IN_PROGRESS, _SAME_KEY = "concurrent_idempotent_requests", "invalid_idempotent_request"


class Resend:
    """Takes the parts of an email, under our message's id as idempotency key."""

    name = "resend"

    def __init__(self, api: ProviderApi) -> None:
        self._api = api

    def takes_once_for(self) -> timedelta:
        """An hour less than they say, so that no clock is in doubt."""
        return timedelta(hours=23)

    async def deliver(self, content: Envelope, still_wanted: StillWanted) -> Outcome:
        """Hand over an email; again where nobody knows whether it was taken. What is in doubt then stays so."""
        outcome = await self._try(content, still_wanted)
        for _ in range(TRIES - 1):
            if outcome.state != "unknown" or not still_wanted():
                return outcome
            again = await self._try(content, still_wanted)
            outcome = outcome if again.retry else again
        return outcome

    async def _try(self, content: Envelope, still_wanted: StillWanted) -> Outcome:
        letter = letter_of(content)
        body = {
            "from": letter.sender,
            "to": [letter.recipient],
            "subject": letter.subject,
            "text": letter.text,
            "html": letter.html,
            "headers": letter.headers,
            "tags": [{"name": OUR_ID, "value": letter.message_id}],
        }
        headers = {"idempotency-key": letter.message_id}
        answer = await self._api.call("POST", "/emails", still_wanted, json=body, headers=headers)
        if isinstance(answer, Outcome):
            return answer
        said = body_of(answer)
        if answer.is_success:
            return self._api.taken(said.get("id"))
        if said.get("name") == _SAME_KEY:
            return self._api.taken(None, "it has this message already, with other words")
        if said.get("name") == _IN_PROGRESS:
            return Outcome("unknown", "resend is taking this message at this moment")
        return self._api.refused(answer, f"{said.get('name', '')} {said.get('message', '')}")
