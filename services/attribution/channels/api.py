"""Channel groupings over HTTP: the document that counts, how far a switch has come, and trying one out."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, StringConstraints, model_validator

from services.attribution.channels import queries
from services.attribution.channels.domain import default_grouping, foreign_referrer
from services.attribution.channels.groupings import (
    STORE,
    ChannelGrouping,
    ChannelName,
    GroupingDocument,
    Traffic,
    compile_grouping,
)
from services.attribution.channels.simulating import simulate
from shared.clock import Clock
from shared.db import Connection
from shared.rules import DocumentOut, StoredDocument, documents_router, sent_within
from shared.service import Runtime
from shared.web import Input, requires

PATH = "/v1/channel-groupings"
Text = Annotated[str, StringConstraints(max_length=2_000)]


class Regrouping(BaseModel):
    """How far all touches are grouped by the version that counts; until it is finished, some stand by the one before.

    `total` is an estimate where there are more than a million. `per_second` and `seconds_left` are null where nothing
    can be said.
    """

    version: int
    done: int
    total: int | None
    changed: int
    started_at: datetime | None
    finished_at: datetime | None
    per_second: float | None
    seconds_left: float | None


class GroupingOut(DocumentOut):
    """One version of the grouping; `regrouping` is of the active one."""

    regrouping: Regrouping | None = None


class TouchIn(Input):
    """What a touch tells of where it came from."""

    type: Text = "page_view"
    channel: ChannelName | None = None
    source: Text | None = None
    medium: Text | None = None
    campaign: Text | None = None
    content: Text | None = None
    page: Text | None = None
    referrer_host: Text | None = None
    click_ids: Annotated[list[Text], Field(max_length=20)] = Field(default_factory=list)


class PreviewIn(Input):
    """A touch to try, by the version that counts, by another one, or by a document that is not saved."""

    touch: TouchIn
    version: int | None = Field(default=None, ge=1, le=2**31 - 1)
    document: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _not_both(self) -> "PreviewIn":
        if self.version is not None and self.document is not None:
            raise ValueError("send version or document or neither, not both")
        return self


class Preview(BaseModel):
    """The channel of a touch, the rule that decided, and what the default channel grouping makes of it."""

    channel: str
    rule: str
    source: str | None
    medium: str | None
    default_channel: str
    default_rule: str


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of channel groupings."""
    database = runtime.database

    async def tell(connection: Connection, stored: StoredDocument) -> GroupingOut:
        return GroupingOut(
            version=stored.version,
            active=stored.active,
            author=stored.author,
            created_at=stored.created_at,
            document=stored.document,
            regrouping=await _regrouping(connection, runtime.clock, stored.version) if stored.active else None,
        )

    async def simulated(document: dict[str, Any], days: int) -> dict[str, Any]:
        grouping = compile_grouping(0, document)
        async with database.reading() as connection, connection.transaction(isolation="repeatable_read"):
            return (await simulate(connection, grouping, runtime.clock.now(), days)).model_dump()

    made = documents_router(
        database,
        runtime.secrets,
        STORE,
        validate=lambda document: compile_grouping(0, document),
        shape=GroupingDocument,
        simulate=simulated,
        path=PATH,
        answer=GroupingOut,
        tell=tell,
    )

    @made.post(f"{PATH}:preview", dependencies=[Depends(requires("attribution:read"))])
    async def preview(body: PreviewIn) -> Preview:
        """The channel that a touch would have, and why."""
        if body.document is not None:
            with sent_within():
                grouping = compile_grouping(0, body.document)
        else:
            async with database.reading() as connection:
                active = await STORE.active_version(connection)
                stored = await STORE.version(connection, body.version or active or 0)
            grouping = compile_grouping(stored.version, stored.document)
        return _preview(grouping, body.touch)

    return made


def _preview(grouping: ChannelGrouping, touch: TouchIn) -> Preview:
    traffic = Traffic(
        touch.type,
        touch.channel or None,
        touch.source or None,
        touch.medium or None,
        touch.campaign or None,
        touch.content,
        touch.page,
        foreign_referrer(touch.referrer_host, touch.page),
        tuple(touch.click_ids),
    )
    found = grouping.group(traffic)
    default = default_grouping(
        traffic.source, traffic.medium, traffic.campaign, traffic.click_ids, traffic.referrer_host
    )
    return Preview(
        channel=found.channel,
        rule=found.rule,
        source=found.source,
        medium=found.medium,
        default_channel=default.channel,
        default_rule=default.rule,
    )


async def _regrouping(connection: Connection, clock: Clock, version: int) -> Regrouping:
    walk = await queries.walk_as_it_stands(connection)
    if walk is None or walk.version != version:  # a worker is about to begin
        return Regrouping(
            version=version,
            done=0,
            total=None,
            changed=0,
            started_at=None,
            finished_at=None,
            per_second=None,
            seconds_left=None,
        )
    took = ((walk.finished_at or clock.now()) - walk.started_at).total_seconds()
    rate = walk.done / took if walk.done and took > 0 else None
    left = max(walk.total - walk.done, 0)
    return Regrouping(
        version=version,
        done=walk.done,
        total=walk.done if walk.finished_at else max(walk.total, walk.done),
        changed=walk.changed,
        started_at=walk.started_at,
        finished_at=walk.finished_at,
        per_second=round(rate, 1) if rate else None,
        seconds_left=0.0 if walk.finished_at else round(left / rate, 1) if rate else None,
    )
