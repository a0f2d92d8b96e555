"""Everything that is read from the environment. Secrets other than these are derived from `secret`."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRET_FILES = Path("/run/secrets")
"""Where containers are given secrets: a file `throughline_secret` stands for the variable `THROUGHLINE_SECRET`."""


class Settings(BaseSettings):
    """One process's settings: variables `THROUGHLINE_…`, else files of that name. A wrong value stops the start."""

    model_config = SettingsConfigDict(
        env_prefix="THROUGHLINE_",
        env_ignore_empty=True,
        secrets_dir=SECRET_FILES if SECRET_FILES.is_dir() else None,
        frozen=True,
        hide_input_in_errors=True,
        extra="ignore",
    )

    database_url: SecretStr
    kafka_bootstrap_servers: str
    topic_prefix: str = "throughline."
    topic_partitions: int = Field(default=12, ge=1)
    topic_replication_factor: int = Field(default=1, ge=1)
    secret: SecretStr = Field(description="32 random bytes as 64 hexadecimal digits", min_length=64)
    host: str = "127.0.0.1"
    port: int = 8000
    management_port: int = 9000
    public_url: str = "http://127.0.0.1:8080"
    data_dir: Path = Path(".throughline")
    providers: dict[str, str] = {}
    """Addresses of webhook providers' APIs by the kind of source, in place of the ones we know."""
    outbound_private_hosts: frozenset[str] = frozenset()
    """Hosts of private networks that may be called for users, as names, addresses or networks."""
    outbound_ca_file: Path | None = None
    """Certificates that are believed besides those of the system."""
    enrichment_off: frozenset[Literal["phone", "email", "names", "countries", "titles"]] = frozenset()
    """Which of the built-in enrichments are switched off."""
    smtp_url: str | None = None
    mail_from: str = "Throughline <hello@throughline.example>"
    body_limit: int = 2_000_000
    rate_limit_writes: int = Field(default=600_000, ge=0)
    """Requests that write, by one token in a minute, of one process; 0 for no limit."""
    rate_limit_reads: int = Field(default=60_000, ge=0)
    """Requests that read, likewise."""
    import_limit: int = 2_000_000_000
    """The largest file that is taken for an import, in bytes, unpacked."""
    import_bad_rows_days: int = Field(default=14, ge=1)
    """How long the bad rows of an import can be downloaded; a file that is never started is kept as long."""
    credits_topic_models: frozenset[str] = frozenset({"last_touch", "linear"})
    """The models whose credits are told to the topic `credits`."""
    scoring_advances_at_once: int = Field(default=200, ge=1)
    """Leads that a switch of the scoring rules lets advance at once."""
    scoring_advances_per_minute: int = Field(default=300, ge=0)
    """Leads that it lets advance in each minute after; 0 for no limit."""
    rules_kept: timedelta = timedelta(minutes=15)
    """How long scores under the rules before are kept up after a switch, so that a rollback takes no time."""
    log_level: str = "info"
    failpoints: str = ""
    database_pool_size: int = 8
    capture_queue_rows: int = 20_000
    consumer_batch: int = 5_000
    consumer_session_timeout: timedelta = timedelta(seconds=6)
    consumer_stuck_after: timedelta = timedelta(seconds=60)
    idle_in_transaction_timeout: timedelta = timedelta(seconds=5)
    parked_share_limit: float = 0.01
    parked_run_limit: int = 50
    lease_seconds: float = 6.0
    watermark_every: timedelta = timedelta(seconds=5)
    event_log_days: int = 7
    inbox_days: int = 14
    fresh_within: timedelta = timedelta(seconds=60)
    otlp_endpoint: str | None = None
    oidc_issuer: str | None = None
    oidc_jwks_url: str | None = None
    oidc_audience: str = "throughline"

    @field_validator("secret")
    @classmethod
    def _is_hexadecimal(cls, secret: SecretStr) -> SecretStr:
        try:
            bytes.fromhex(secret.get_secret_value())
        except ValueError:
            raise ValueError("is not hexadecimal") from None
        return secret

    @model_validator(mode="after")
    def _knows_issuer_and_keys(self) -> Self:
        """With keys alone every issuer that they belong to would be believed, and an issuer alone has none."""
        if (self.oidc_issuer is None) != (self.oidc_jwks_url is None):
            raise ValueError("OIDC_ISSUER and OIDC_JWKS_URL are set together or not at all")
        return self
