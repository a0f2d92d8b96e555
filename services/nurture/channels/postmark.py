"""Postmark. https://postmarkapp.com/developer/api/email-api

It has no key that makes sending twice harmless; a message is found by its metadata, of 20 characters a name.
"""

from services.nurture.channels.calling import ProviderApi, body_of
from services.nurture.channels.letter import letter_of
from services.nurture.channels.provider import StillWanted
from shared.ids import MessageId
from shared.smtp import Envelope, Outcome, without_addresses

OUR_SHORT_ID = "throughline_message"
_INACTIVE = 406  # https://postmarkapp.com/developer/api/overview#error-codes
_ABOUT_THE_ACCOUNT = frozenset({10, 100, 400, 401, 405, 412, 413, 1235, 1236})


class Postmark:
    """Takes the parts of an email."""

    name = "postmark"

    def __init__(self, api: ProviderApi, stream: str) -> None:
        self._api = api
        self._stream = stream

    async def deliver(self, content: Envelope, still_wanted: StillWanted) -> Outcome:
        """Hand over an email."""
        letter = letter_of(content)
        kept = letter.headers | {"X-PM-KeepID": "true"}
        body = {
            "From": letter.sender,
            "To": letter.recipient,
            "Subject": letter.subject,
            "TextBody": letter.text,
            "HtmlBody": letter.html,
            "Headers": [{"Name": name, "Value": value} for name, value in kept.items()],
            "Metadata": {OUR_SHORT_ID: letter.message_id},
            "MessageStream": self._stream,
            "TrackOpens": False,
            "TrackLinks": "None",
        }
        answer = await self._api.call("POST", "/email", still_wanted, json=body)
        if isinstance(answer, Outcome):
            return answer
        said = body_of(answer)
        if answer.is_success and said.get("ErrorCode", 0) == 0:
            return self._api.taken(said.get("MessageID"))
        told = f"{said.get('ErrorCode', '')} {said.get('Message', '')}"
        if said.get("ErrorCode") == _INACTIVE:
            return Outcome("bounced", f"postmark keeps the address as inactive: {without_addresses(told)}")
        if said.get("ErrorCode") in _ABOUT_THE_ACCOUNT and answer.status < 500:
            return self._api.account_trouble(told)
        if answer.is_success:
            return Outcome("failed", f"postmark: {without_addresses(told)}")
        return self._api.refused(answer, told)

    async def look_up(self, message_id: MessageId) -> str | None:
        """Its id of a message that it has; None where it does not say."""
        query = {"count": 1, "offset": 0, f"metadata_{OUR_SHORT_ID}": message_id}
        found = await self._api.look("/messages/outbound", params=query)
        messages = (found or {}).get("Messages")
        return str(messages[0].get("MessageID")) if messages else None
