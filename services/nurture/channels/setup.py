"""The channels that the settings set up."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from pydantic import SecretStr

from services.nurture.channels.calling import ProviderApi
from services.nurture.channels.channel import Channel
from services.nurture.channels.email import EmailChannel
from services.nurture.channels.mailgun import Mailgun
from services.nurture.channels.postmark import Postmark
from services.nurture.channels.provider import Content, Provider, Providers
from services.nurture.channels.resend import Resend
from services.nurture.channels.sendgrid import SendGrid
from services.nurture.channels.ses import Ses
from services.nurture.channels.settings import ChannelSettings
from services.nurture.channels.signature_v4 import Credentials
from services.nurture.channels.smtp import Signer, Smtp
from services.nurture.channels.text import TextChannel
from services.nurture.channels.texting import TextMessage
from services.nurture.channels.twilio import Twilio
from services.nurture.channels.whatsapp_cloud import WhatsAppCloud
from services.nurture.parts import Parts
from services.nurture.sending.mail import name_and_address
from shared.events import ConsentChannel
from shared.smtp import Envelope, Mailer, parse_server


@dataclass(frozen=True, slots=True)
class Given:
    """What providers are made of: the settings, and what all their clients have in common."""

    parts: Parts
    tls: ssl.SSLContext

    @property
    def settings(self) -> ChannelSettings:
        """What is set about channels."""
        return self.parts.channels

    def api(
        self, name: str, url: str, *, headers: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None
    ) -> ProviderApi:
        """A client of one provider."""
        timeout_s = self.parts.settings.smtp_timeout.total_seconds()
        return ProviderApi(name, url, timeout_s, self.tls, headers=headers, auth=auth)


def given(parts: Parts) -> Given:
    """What providers are made of; their certificates are believed as the installation says."""
    tls = ssl.create_default_context()
    if parts.runtime.settings.outbound_ca_file is not None:
        tls.load_verify_locations(parts.runtime.settings.outbound_ca_file)
    return Given(parts, tls)


def email_providers(of: Given) -> Providers[Envelope] | None:
    """The providers of email in their order; None where none is set up. Raises ValueError for settings that clash."""
    return _in_order({name: make(of) for name, make in EMAIL.items()}, of.settings.email_providers)


def make_channels(of: Given, email: Providers[Envelope] | None) -> dict[ConsentChannel, Channel]:
    """The channels that something is set up for, by name. Raises ValueError for settings that clash."""
    channels: dict[ConsentChannel, Channel] = {}
    if email is not None:
        channels["email"] = EmailChannel(of.parts, of.parts.renderer, email)
    if sms := _in_order({"twilio": _twilio(of, of.settings.twilio_sms_from)}, ()):
        channels["sms"] = TextChannel(of.parts, of.parts.renderer, sms)
    by_whatsapp = {
        "whatsapp_cloud": _whatsapp_cloud(of),
        "twilio": _twilio(of, of.settings.twilio_whatsapp_from, "whatsapp:"),
    }
    if whatsapp := _in_order(by_whatsapp, of.settings.whatsapp_providers):
        channels["whatsapp"] = TextChannel(of.parts, of.parts.renderer, whatsapp)
    return channels


def _in_order(made: Mapping[str, Provider[Content] | None], order: tuple[str, ...]) -> Providers[Content] | None:
    """Those that are wanted, in their order; all that are set up where no order is set."""
    chosen = []
    for name in dict.fromkeys(order or made):
        provider = made[name]
        if provider is not None:
            chosen.append(provider)
        elif order:
            raise ValueError(f"the provider {name} is listed and not set up: its credentials are missing")
    return Providers(chosen) if chosen else None


def _smtp(of: Given) -> Provider[Envelope] | None:
    url = of.parts.runtime.settings.smtp_url
    if not url:
        return None
    at_once = {domain: limit.at_once for domain, limit in of.settings.domain_limits.items() if limit.at_once}
    timeout_s = of.parts.settings.smtp_timeout.total_seconds()
    return Smtp(Mailer(parse_server(url), timeout_s, of.settings.smtp_connections, at_once), signer(of.settings))


def signer(settings: ChannelSettings) -> Signer | None:
    """Who signs mail by SMTP; None where nothing is set about it. Raises ValueError for a key that is none."""
    key = settings.dkim_key.get_secret_value().encode() if settings.dkim_key else None
    if key is None and settings.dkim_key_file is not None:
        key = settings.dkim_key_file.read_bytes()
    if key is None and settings.dkim_domain is None:
        return None
    if key is None or settings.dkim_domain is None or settings.dkim_selector is None:
        raise ValueError("DKIM needs NURTURE_DKIM_DOMAIN, NURTURE_DKIM_SELECTOR, and NURTURE_DKIM_KEY or its _FILE")
    try:
        return Signer.of(settings.dkim_domain, settings.dkim_selector, key)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ValueError(f"the DKIM key cannot sign: {exc}") from exc


def _ses(of: Given) -> Provider[Envelope] | None:
    settings = of.settings
    if settings.ses_access_key_id is None or settings.ses_secret_access_key is None:
        return None
    token = settings.ses_session_token
    credentials = Credentials(
        settings.ses_access_key_id,
        settings.ses_secret_access_key.get_secret_value(),
        token.get_secret_value() if token else None,
    )
    url = settings.ses_url or f"https://email.{settings.ses_region}.amazonaws.com"
    clock = of.parts.runtime.clock
    return Ses(of.api("ses", url), credentials, settings.ses_region, settings.ses_configuration_set, clock)


def _sendgrid(of: Given) -> Provider[Envelope] | None:
    key = of.settings.sendgrid_api_key
    return SendGrid(of.api("sendgrid", of.settings.sendgrid_url, headers=_bearer(key))) if key else None


def _postmark(of: Given) -> Provider[Envelope] | None:
    token = of.settings.postmark_server_token
    if token is None:
        return None
    headers = {"x-postmark-server-token": token.get_secret_value()}
    return Postmark(of.api("postmark", of.settings.postmark_url, headers=headers), of.settings.postmark_stream)


def _mailgun(of: Given) -> Provider[Envelope] | None:
    settings = of.settings
    if settings.mailgun_api_key is None or settings.mailgun_domain is None:
        return None
    api = of.api("mailgun", settings.mailgun_url, auth=("api", settings.mailgun_api_key.get_secret_value()))
    own_domain = name_and_address(of.parts.runtime.settings.mail_from)[1].rpartition("@")[2]
    return Mailgun(api, settings.mailgun_domain, own_domain)


def _resend(of: Given) -> Provider[Envelope] | None:
    key = of.settings.resend_api_key
    return Resend(of.api("resend", of.settings.resend_url, headers=_bearer(key))) if key else None


def _twilio(of: Given, sender: str | None, prefix: str = "") -> Provider[TextMessage] | None:
    settings = of.settings
    account, secret = settings.twilio_account_sid, settings.twilio_auth_token
    if account is None or secret is None or sender is None:
        return None
    api = of.api("twilio", settings.twilio_url, auth=(account, secret.get_secret_value()))
    return Twilio(api, account, sender, prefix=prefix, status_callback=settings.twilio_status_callback)


def _whatsapp_cloud(of: Given) -> Provider[TextMessage] | None:
    token, number = of.settings.whatsapp_token, of.settings.whatsapp_phone_number_id
    if token is None or number is None:
        return None
    return WhatsAppCloud(of.api("whatsapp_cloud", of.settings.whatsapp_url, headers=_bearer(token)), number)


def _bearer(token: SecretStr) -> dict[str, str]:
    return {"authorization": f"Bearer {token.get_secret_value()}"}


EMAIL: Mapping[str, Callable[[Given], Provider[Envelope] | None]] = {
    "smtp": _smtp,
    "ses": _ses,
    "sendgrid": _sendgrid,
    "postmark": _postmark,
    "mailgun": _mailgun,
    "resend": _resend,
}
