"""A button in Slack was pressed: acts once, by the rep it was for, and says what came of it."""

import asyncio
from datetime import datetime

from services.routing.assignments import answers
from services.routing.claims.handlers import claim
from services.routing.notifications import queries
from services.routing.notifications.addresses import seal_url
from services.routing.notifications.queries import Notification
from services.routing.notifications.slack import Click, instead, only_you
from services.routing.parts import Parts
from shared.db import Tx, agreed_now
from shared.errors import Rejected, Unavailable
from shared.ids import AssignmentId

WITHIN_S = 2.5
"""Slack waits three seconds for an answer."""
SAYS = {"accept": "You accepted this lead.", "reject": "You gave this lead back.", "claim": "You claimed this lead."}
FOREIGN = "This lead was offered to somebody else, so it is not for you to answer."
UNKNOWN = "This message is not known any more."
BY_SLACK = "rejected in Slack"


async def on_click(parts: Parts, click: Click) -> None:
    """Do what the button says, and have the message say so. Raises Unavailable when it takes too long."""
    try:
        async with asyncio.timeout(WITHIN_S):
            try:
                async with parts.runtime.database.transaction() as tx:
                    at = await agreed_now(tx.connection, parts.runtime.clock)
                    await _carry_out(tx, parts, click, at)
            except Rejected as refusal:
                await _explain(parts, click, refusal)
    except TimeoutError as exc:
        raise Unavailable("it takes too long; press the button again") from exc


async def _carry_out(tx: Tx, parts: Parts, click: Click, at: datetime) -> None:
    this = await queries.one(tx.connection, click.notification_id)
    if this is None:
        await _say(tx, parts, click, only_you(UNKNOWN), at)
        return
    if await queries.slack_user(tx.connection, this.rep_id) != click.user_id:
        await _say(tx, parts, click, only_you(FOREIGN), at)
        return
    await _act(tx, parts, click, this)
    await _say(tx, parts, click, instead(SAYS[click.action]), at)


async def _act(tx: Tx, parts: Parts, click: Click, this: Notification) -> None:
    if click.action == "accept":
        await answers.accept(tx, parts, this.lead_id, AssignmentId(this.about))
    elif click.action == "reject":
        # The button answers an offer: beside "accept", pressed a moment before, it must not take the lead away again.
        await answers.reject(tx, parts, this.lead_id, AssignmentId(this.about), BY_SLACK, states=("offered",))
    else:
        await claim(tx, parts, this.lead_id, this.rep_id)


async def _explain(parts: Parts, click: Click, refusal: Rejected) -> None:
    """Tell who came too late why; the message loses its buttons, which are of no use."""
    async with parts.runtime.database.transaction() as tx:
        at = await agreed_now(tx.connection, parts.runtime.clock)
        await _say(tx, parts, click, only_you(f"That was not possible: {refusal.detail}"), at)
        await _say(tx, parts, click, instead("This lead is no longer waiting for your answer."), at)


async def _say(tx: Tx, parts: Parts, click: Click, content: dict[str, object], at: datetime) -> None:
    await queries.add_reply(tx.connection, seal_url(parts.runtime.keys, "reply", click.response_url), content, at)
