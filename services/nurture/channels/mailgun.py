"""Mailgun. https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages

It has no key that makes sending twice harmless; its events are searched by the Message-ID, which it keeps.
"""

from services.nurture.channels.calling import ProviderApi, body_of
from services.nurture.channels.letter import OUR_ID, letter_of
from services.nurture.channels.provider import StillWanted
from shared.ids import MessageId
from shared.smtp import Envelope, Outcome


class Mailgun:
    """Takes emails as bytes, and signs them with the domain's DKIM key."""

    name = "mailgun"

    def __init__(self, api: ProviderApi, domain: str, sender_domain: str) -> None:
        self._api = api
        self._domain = domain
        self._sender_domain = sender_domain

    async def deliver(self, content: Envelope, still_wanted: StillWanted) -> Outcome:
        """Hand over an email."""
        fields = {
            "to": content.recipient,
            f"v:{OUR_ID}": letter_of(content).message_id,
            "o:tracking": "no",
        }
        files = {"message": ("message.eml", content.content, "message/rfc822")}
        path = f"/v3/{self._domain}/messages.mime"
        answer = await self._api.call("POST", path, still_wanted, data=fields, files=files)
        if isinstance(answer, Outcome):
            return answer
        said = body_of(answer)
        if answer.is_success:
            return self._api.taken(str(said.get("id") or "").strip("<>"))
        return self._api.refused(answer, str(said.get("message") or ""))

    async def look_up(self, message_id: MessageId) -> str | None:
        """Its id of a message that it has; None where it does not say."""
        internet_id = f"{message_id}@{self._sender_domain}"
        found = await self._api.look(
            f"/v3/{self._domain}/events", params={"message-id": internet_id, "event": "accepted", "limit": 1}
        )
        return internet_id if (found or {}).get("items") else None
