"""SMS and WhatsApp by Twilio. https://www.twilio.com/docs/messaging/api/message-resource

It has no key that makes sending twice harmless, and keeps no id of ours: that stands in the address of its callbacks.
"""

import httpx
import orjson

from services.nurture.channels.calling import TOO_MANY, ProviderApi, body_of
from services.nurture.channels.letter import OUR_ID
from services.nurture.channels.provider import StillWanted
from services.nurture.channels.texting import TextMessage, segments
from shared.smtp import Outcome

# https://www.twilio.com/docs/api/errors: what is wrong with us, and not with the message.
_ABOUT_THE_ACCOUNT = frozenset({20003, 20005, 20006, 21212, 21603, 21606, 21701, 21703, 21704, 63007})
_TOO_MANY = frozenset({14107, 20429, 21611, 63018})
_OPTED_OUT = 21610
_FROM_SERVICE = "MG"


class Twilio:
    """Takes text messages. `channel` goes before the numbers: nothing for SMS, else `whatsapp:`."""

    name = "twilio"

    def __init__(
        self, api: ProviderApi, account: str, sender: str, *, prefix: str = "", status_callback: str | None = None
    ) -> None:
        self._api = api
        self._path = f"/2010-04-01/Accounts/{account}/Messages.json"
        service = sender.startswith(_FROM_SERVICE)
        self._sender = {"MessagingServiceSid": sender} if service else {"From": f"{prefix}{sender}"}
        self._prefix = prefix
        self._callback = status_callback

    async def deliver(self, content: TextMessage, still_wanted: StillWanted) -> Outcome:
        """Hand over a text message."""
        fields = {
            "To": f"{self._prefix}{content.recipient}",
            **self._sender,
            **self._told_to(content),
            **_words(content),
        }
        answer = await self._api.call("POST", self._path, still_wanted, data=fields)
        if isinstance(answer, Outcome):
            return answer
        said = body_of(answer)
        if answer.is_success:
            count = said.get("num_segments") or segments(content.text)
            note = "accepted" if self._prefix or not content.text else f"accepted, segments: {count}"
            return self._api.taken(said.get("sid"), note)
        code, told = said.get("code"), f"{said.get('code', '')} {said.get('message', '')}"
        if answer.status == TOO_MANY or code in _TOO_MANY:
            return self._api.busy(f"twilio: {code}", answer.retry_after_s)
        if code in _ABOUT_THE_ACCOUNT:
            return self._api.account_trouble(told)
        if code == _OPTED_OUT:
            return Outcome("failed", "twilio: 21610 the person has answered STOP to this sender")
        return self._api.refused(answer, told)

    def _told_to(self, content: TextMessage) -> dict[str, str]:
        """Where it tells what became of the message, which the address names: so it is known though no answer came."""
        if self._callback is None:
            return {}
        address = httpx.URL(self._callback).copy_merge_params({OUR_ID: content.message_id})
        return {"StatusCallback": str(address)}


def _words(content: TextMessage) -> dict[str, str]:
    if content.approved is None:
        return {"Body": content.text}
    variables = {str(number): value for number, value in enumerate(content.approved.parameters, 1)}
    named = {"ContentSid": content.approved.name}
    return named | ({"ContentVariables": orjson.dumps(variables).decode()} if variables else {})
