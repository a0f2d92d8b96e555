"""What only nurture reads from the environment."""

from datetime import timedelta

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class NurtureSettings(BaseSettings):
    """Prefix `THROUGHLINE_NURTURE_`. A wrong value stops the start."""

    model_config = SettingsConfigDict(env_prefix="THROUGHLINE_NURTURE_", frozen=True, extra="ignore")

    site_url: str | None = Field(default=None, description="Where links of shipped messages lead; default: public URL")
    smtp_timeout: timedelta = Field(default=timedelta(seconds=20), description="For one message, all of it")
    claim_for: timedelta = Field(default=timedelta(seconds=45), description="After this a silent claim counts as dead")
    claim_batch: int = Field(default=10, ge=1, le=500)
    scanner_window: timedelta = Field(
        default=timedelta(seconds=2), description="Opens and clicks this soon after sending are a machine's"
    )
