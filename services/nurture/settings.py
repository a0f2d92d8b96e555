"""What only nurture reads from the environment."""

from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class NurtureSettings(BaseSettings):
    """Prefix `THROUGHLINE_NURTURE_`. A wrong value stops the start."""

    model_config = SettingsConfigDict(env_prefix="THROUGHLINE_NURTURE_", frozen=True, extra="ignore")

    site_url: str | None = Field(default=None, description="Where links of shipped messages lead; default: public URL")
    smtp_timeout: timedelta = Field(default=timedelta(seconds=20), description="For one message, all of it")
    renderer_patience: timedelta = Field(
        default=timedelta(seconds=30), description="For filling a template, by the clock; its own limit is of CPU time"
    )
    claim_for: timedelta = Field(default=timedelta(seconds=45), description="After this a silent claim counts as dead")
    claim_batch: int = Field(default=200, ge=1, le=1_000, description="Due steps that are taken at once")
    send_at_once: int = Field(default=50, ge=1, le=500, description="Messages that are handed over at the same time")
    unknown_counts_as_sent_after: timedelta | None = Field(
        default=None, description="A message of which nobody knows whether it left; default: until somebody decides"
    )
    scanner_window: timedelta = Field(
        default=timedelta(seconds=2), description="Opens and clicks this soon after sending are a machine's"
    )
    scan_span: timedelta = Field(
        default=timedelta(seconds=5), description="Following every link of a message within this is a machine's"
    )
    trap_links: bool = Field(default=True, description="Whether messages hold a link that nobody sees")
    short_links_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s?#]+$",
        description="What clicks in text messages begin with; default: the public URL with /nurture/s",
    )
    trap_reach: timedelta = Field(
        default=timedelta(days=1), description="Opens and clicks this long before that link is followed are a machine's"
    )
    scanner_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="Networks of mail scanners, besides those that are known"
    )
    proxies: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=(), description="Public networks of proxies that are believed about who asks; private ones always are"
    )
