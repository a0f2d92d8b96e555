"""What providers of channels read from the environment: addresses, credentials, order, limits."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import SECRET_FILES

EmailProvider = Literal["smtp", "ses", "sendgrid", "postmark", "mailgun", "resend"]
WhatsAppProvider = Literal["whatsapp_cloud", "twilio"]
Address = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


class DomainLimit(BaseModel):
    """How much of our mail a recipient's domain takes; None for no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_once: int | None = Field(default=None, ge=1)
    per_minute: int | None = Field(default=None, ge=1)


class ChannelSettings(BaseSettings):
    """Prefix `THROUGHLINE_NURTURE_`. A wrong value stops the start."""

    model_config = SettingsConfigDict(
        env_prefix="THROUGHLINE_NURTURE_",
        env_ignore_empty=True,
        secrets_dir=SECRET_FILES if SECRET_FILES.is_dir() else None,
        frozen=True,
        extra="ignore",
    )

    email_providers: tuple[EmailProvider, ...] = Field(
        default=(), description="In which order they are tried; default: all that are set up, SMTP first"
    )
    whatsapp_providers: tuple[WhatsAppProvider, ...] = Field(default=(), description="Likewise")
    smtp_connections: int = Field(default=4, ge=1, le=100, description="Of one process")
    domain_limits: dict[str, DomainLimit] = Field(
        default={}, description='By domain of the recipient: {"gmail.com": {"at_once": 2, "per_minute": 100}}'
    )
    dkim_domain: str | None = Field(default=None, description="Mail by SMTP is signed for it")
    dkim_selector: str | None = None
    dkim_key: SecretStr | None = Field(default=None, description="RSA, as PEM")
    dkim_key_file: Path | None = None
    ses_url: Address | None = Field(default=None, description="Default: that of the region")
    ses_region: str = "us-east-1"
    ses_access_key_id: str | None = None
    ses_secret_access_key: SecretStr | None = None
    ses_session_token: SecretStr | None = None
    ses_configuration_set: str | None = Field(default=None, description="Whose events come back to capture")
    sendgrid_url: Address = "https://api.sendgrid.com"
    sendgrid_api_key: SecretStr | None = None
    postmark_url: Address = "https://api.postmarkapp.com"
    postmark_server_token: SecretStr | None = None
    postmark_stream: str = "outbound"
    mailgun_url: Address = "https://api.mailgun.net"
    mailgun_domain: str | None = Field(default=None, pattern=r"^[A-Za-z0-9.-]+$")
    mailgun_api_key: SecretStr | None = None
    resend_url: Address = "https://api.resend.com"
    resend_api_key: SecretStr | None = None
    twilio_url: Address = "https://api.twilio.com"
    twilio_account_sid: str | None = Field(default=None, pattern=r"^AC[0-9a-fA-F]{32}$")
    twilio_auth_token: SecretStr | None = None
    twilio_sms_from: str | None = Field(default=None, description="A number, a name, or the SID of a messaging service")
    twilio_whatsapp_from: str | None = Field(default=None, description="Likewise")
    twilio_status_callback: Address | None = Field(default=None, description="The address of a source in capture")
    whatsapp_url: Address = "https://graph.facebook.com/v23.0"
    whatsapp_phone_number_id: str | None = Field(default=None, pattern=r"^[0-9]+$")
    whatsapp_token: SecretStr | None = None
    sms_stop_text: str = Field(default="Reply STOP to opt out", description="Ends each SMS that is sent unasked")
    sms_segments: int = Field(default=6, ge=1, le=10, description="A longer SMS fails")
