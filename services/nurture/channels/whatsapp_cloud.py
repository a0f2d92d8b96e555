"""WhatsApp by Meta's Cloud API. https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages

It has no key that makes sending twice harmless, and nothing to ask whether it has a message; our id comes back with its
webhooks as `biz_opaque_callback_data`.
"""

from typing import Any

from services.nurture.channels.calling import ProviderApi, body_of
from services.nurture.channels.provider import StillWanted
from services.nurture.channels.texting import TextMessage
from shared.smtp import Outcome

# https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
_TOO_MANY = frozenset({4, 80007, 130429, 131048, 131056})
_ABOUT_THE_ACCOUNT = frozenset({0, 3, 10, 33, 190, 368, 131005, 131031, 131042, 133010, *range(200, 300)})
_MAYBE_TAKEN = frozenset({1, 2, 131000, 131016})


class WhatsAppCloud:
    """Takes WhatsApp messages."""

    name = "whatsapp_cloud"

    def __init__(self, api: ProviderApi, phone_number_id: str) -> None:
        self._api = api
        self._path = f"/{phone_number_id}/messages"

    async def deliver(self, content: TextMessage, still_wanted: StillWanted) -> Outcome:
        """Hand over a WhatsApp message."""
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": content.recipient.removeprefix("+"),
            "biz_opaque_callback_data": content.message_id,
            **_words(content),
        }
        answer = await self._api.call("POST", self._path, still_wanted, json=body)
        if isinstance(answer, Outcome):
            return answer
        said = body_of(answer)
        messages = said.get("messages")
        if answer.is_success:
            first = messages[0] if isinstance(messages, list) and messages else {}
            return self._api.taken(first.get("id"))
        error = said.get("error")
        fault: dict[str, Any] = error if isinstance(error, dict) else {}
        code, told = fault.get("code"), f"{fault.get('code', '')} {fault.get('message', '')}"
        if code in _TOO_MANY:
            return self._api.busy(f"whatsapp_cloud: {code}", answer.retry_after_s)
        if code in _MAYBE_TAKEN:
            return Outcome("unknown", f"whatsapp_cloud answered {answer.status} {code}", in_trouble=True)
        return self._api.account_trouble(told) if code in _ABOUT_THE_ACCOUNT else self._api.refused(answer, told)


def _words(content: TextMessage) -> dict[str, Any]:
    if content.approved is None:
        return {"type": "text", "text": {"body": content.text, "preview_url": False}}
    parameters = [{"type": "text", "text": value} for value in content.approved.parameters]
    template: dict[str, Any] = {"name": content.approved.name, "language": {"code": content.approved.language}}
    if parameters:
        template["components"] = [{"type": "body", "parameters": parameters}]
    return {"type": "template", "template": template}
