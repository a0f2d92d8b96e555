"""Amazon SES, API v2. https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html

It has no key that makes sending twice harmless, and nothing to ask whether it has a message.
"""

import base64

import orjson

from services.nurture.channels.calling import ProviderApi, body_of
from services.nurture.channels.letter import OUR_ID, letter_of
from services.nurture.channels.provider import StillWanted
from services.nurture.channels.signature_v4 import Credentials, signed_headers
from shared.clock import Clock
from shared.smtp import Envelope, Outcome

PATH = "/v2/email/outbound-emails"
_ABOUT_THE_ACCOUNT = frozenset(
    {
        "AccountSuspendedException",
        "SendingPausedException",
        "MailFromDomainNotVerifiedException",
        "LimitExceededException",
        "NotFoundException",
    }
)
_TOO_MANY = frozenset({"TooManyRequestsException", "ThrottlingException"})


class Ses:
    """Takes emails as bytes, and signs them with the identity's DKIM key."""

    name = "ses"

    def __init__(
        self, api: ProviderApi, credentials: Credentials, region: str, configuration_set: str | None, clock: Clock
    ) -> None:
        self._api = api
        self._credentials = credentials
        self._region = region
        self._set = {"ConfigurationSetName": configuration_set} if configuration_set else {}
        self._clock = clock

    async def deliver(self, content: Envelope, still_wanted: StillWanted) -> Outcome:
        """Hand over an email."""
        letter = letter_of(content)
        body = orjson.dumps(
            {
                "FromEmailAddress": letter.sender_address,
                "Destination": {"ToAddresses": [content.recipient]},
                "Content": {"Raw": {"Data": base64.b64encode(content.content).decode()}},
                "EmailTags": [{"Name": OUR_ID, "Value": letter.message_id}],
                **self._set,
            }
        )
        headers = signed_headers(
            self._credentials,
            "POST",
            self._api.url + PATH,
            {"content-type": "application/json"},
            body,
            region=self._region,
            service="ses",
            at=self._clock.now(),
        )
        answer = await self._api.call("POST", PATH, still_wanted, content=body, headers=headers)
        if isinstance(answer, Outcome):
            return answer
        said = body_of(answer)
        if answer.is_success:
            return self._api.taken(said.get("MessageId"))
        kind = answer.headers.get("x-amzn-errortype", "").partition(":")[0]
        told = f"{kind} {said.get('message') or said.get('Message') or ''}"
        if kind in _TOO_MANY:
            return self._api.busy(f"{self.name}: {kind}", answer.retry_after_s)
        return self._api.account_trouble(told) if kind in _ABOUT_THE_ACCOUNT else self._api.refused(answer, told)
