"""What only routing reads from the environment."""

from datetime import timedelta

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class RoutingSettings(BaseSettings):
    """Prefix `THROUGHLINE_ROUTING_`. A wrong value stops the start."""

    model_config = SettingsConfigDict(
        env_prefix="THROUGHLINE_ROUTING_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    lead_url: str | None = Field(
        default=None,
        description="Where a lead is looked at, with {lead_id}; default: /leads/{lead_id} of the public URL",
    )
    slack_api_url: str = "https://slack.com/api"
    slack_bot_token: SecretStr | None = Field(default=None, description="xoxb-…, with chat:write")
    slack_signing_secret: SecretStr | None = Field(default=None, description="Proves that clicks come from Slack")

    replays_kept: timedelta = Field(
        default=timedelta(days=400),
        ge=timedelta(days=1),
        description="So long a decision can be taken again; its trace stays",
    )

    def lead_address(self, lead_id: str, public_url: str) -> str:
        """The address of a lead for people."""
        return (self.lead_url or f"{public_url.rstrip('/')}/leads/{{lead_id}}").replace("{lead_id}", lead_id)
