"""How a rep wants to be told, and how the ledger is shown."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

from services.routing.notifications.domain import Channel, Kind, State
from shared.web import Input

SlackUser = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,30}$", examples=["U012AB3CD"])]
Id = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]


class WishesInput(Input):
    """By which channels a rep is told of what; a kind that is left out is told by email, one with no channels not.

    Slack goes to `slack_webhook_url`, an incoming webhook, else as a message of the installation's app to
    `slack_user_id`, which also says whose clicks are believed. `webhook` goes to `webhook_endpoint_id`.
    """

    channels: dict[Kind, Annotated[list[Channel], Field(max_length=3)]] = Field(default_factory=dict)
    slack_user_id: SlackUser | None = None
    slack_webhook_url: Annotated[str, Field(max_length=1_000)] | None = None
    webhook_endpoint_id: Id | None = None

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        wanted = {channel for channels in self.channels.values() for channel in channels}
        if "slack" in wanted and self.slack_user_id is None and self.slack_webhook_url is None:
            raise ValueError("slack needs slack_user_id or slack_webhook_url")
        if "webhook" in wanted and self.webhook_endpoint_id is None:
            raise ValueError("webhook needs webhook_endpoint_id")
        return self


class WishesOut(BaseModel):
    """How a rep is told. The address of an incoming webhook is a secret, and not shown."""

    rep_id: str
    channels: dict[str, list[Channel]]
    slack_user_id: str | None
    has_slack_webhook: bool
    webhook_endpoint_id: str | None


class NotificationOut(BaseModel):
    """A rep was, or is to be, told something by one channel. `about` is the assignment, or what opened a claim.

    `unknown` is what may or may not have arrived: it is never sent again. `dropped` was of no use any more, or could
    not be said at all; `reason` says why.
    """

    notification_id: str
    about: str
    kind: str
    step: int
    rep_id: str
    channel: Channel
    lead_id: str
    state: State
    reason: str | None
    attempts: int
    due_at: datetime
    created_at: datetime
    settled_at: datetime | None
