"""What only capture reads from the environment."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CaptureSettings(BaseSettings):
    """Prefix `THROUGHLINE_CAPTURE_`. A wrong value stops the start. Limits count for one address in one process."""

    model_config = SettingsConfigDict(env_prefix="THROUGHLINE_CAPTURE_", frozen=True, extra="ignore")

    proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="Public networks of proxies that are believed about who asks; private ones always are"
    )
    site_requests_at_once: int = Field(default=120, ge=1, description="Batches of events of one site")
    site_requests_a_second: float = Field(default=20.0, gt=0)
    form_posts_at_once: int = Field(default=30, ge=1, description="Submissions of one form; more are refused with 429")
    form_posts_a_second: float = Field(default=1.0, gt=0)
    form_unproven_at_once: int = Field(
        default=5, ge=1, description="Submissions without a proof of work; more are kept for review"
    )
    form_unproven_a_second: float = Field(default=1 / 60, gt=0)
    form_fastest: timedelta = Field(default=timedelta(seconds=2), description="Nobody fills in a form faster")
    form_fastest_unproven: timedelta = Field(default=timedelta(seconds=4), description="The same, without scripts")
    form_open_for: timedelta = Field(default=timedelta(hours=24), description="After that a form has to be sent again")
    form_work_bits: int = Field(default=13, ge=0, le=24, description="Zero bits that the proof of work begins with")
    form_review_for: timedelta = Field(default=timedelta(days=30), description="How long suspicious ones are kept")
    optin_valid_for: timedelta = Field(default=timedelta(days=7), description="How long a link confirms consent")
    optin_pause: timedelta = Field(default=timedelta(minutes=10), description="Between two links for one person")
    optin_daily: int = Field(default=3, ge=1, description="Most links for one person in a day")
