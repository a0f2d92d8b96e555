"""From a notice to a message that left: who is told and how, the line in the ledger, the call, what became of it.

A line is committed, claimed, before anything is called. What certainly was not said is said again; where that is not
known the line is `unknown`, shown, and never repeated.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from email.errors import MessageError

import httpx
import orjson

from services.routing.assignments import queries as assignments
from services.routing.assignments.domain import Assignment
from services.routing.notifications import queries
from services.routing.notifications.addresses import open_url
from services.routing.notifications.domain import (
    CALLING_S,
    CLAIM_FOR,
    TRIES,
    Channel,
    Result,
    Told,
    Wishes,
    data_of,
    kind_of,
    notification_id,
    over,
    pause_before,
    told,
)
from services.routing.notifications.mail import compose
from services.routing.notifications.queries import Notice, Notification
from services.routing.notifications.slack import blocks, escaped, result_of_api, result_of_webhook
from services.routing.parts import Parts
from services.routing.reps.domain import Rep
from services.routing.reps.queries import reps_of
from services.routing.requests import queries as requests
from services.routing.settings import RoutingSettings
from services.routing.webhooks.domain import Outgoing
from services.routing.webhooks.handlers import enqueue
from shared.db import Connection, Tx, agreed_now
from shared.events import NoticePersonal
from shared.faults import failpoint
from shared.ids import AssignmentId, RepId
from shared.outbound import AddressRefused, NoAnswer, Outbound
from shared.smtp import Mailer, parse_server
from shared.telemetry import counter
from shared.webhooks import envelope

TOLD = counter(
    "throughline_routing_notifications_total", "Tries to tell reps, by what they came to", ["channel", "state"]
)
AT_ONCE = 200
CLAIMED_AT_ONCE = 1  # what a killed sender had not come to would be unknown too
REPLY_TRIES = 5
REPLY_FOR = timedelta(seconds=20)
JSON = {"content-type": "application/json; charset=utf-8"}
EVENT = "throughline.rep.notified"
SEQUENCE = "sequence"


class Notifier:
    """Tells reps what there is to tell. Several may run at once: locks, claims and the ledger keep them apart."""

    def __init__(self, parts: Parts, settings: RoutingSettings) -> None:
        self._parts = parts
        self._runtime = parts.runtime
        self._settings = settings
        self._claim = secrets.token_hex(8)
        url = parts.runtime.settings.smtp_url
        self._mailer = Mailer(parse_server(url), CALLING_S) if url else None

    async def run(self) -> timedelta | None:
        """One round; answers how long until something is due."""
        database, clock = self._runtime.database, self._runtime.clock
        while await self._expand() == AT_ONCE:
            pass
        async with database.reading() as connection:
            at = await agreed_now(connection, clock)
            await queries.settle_others(connection, at)
        await asyncio.gather(self._send("email"), self._send("slack"), self._reply())
        async with database.reading() as connection:
            due = await queries.next_due(connection)
        return None if due is None else max(due - at, timedelta(milliseconds=50))

    async def _expand(self) -> int:
        """Make notifications of notices. Answers how many there were."""
        async with self._runtime.database.transaction() as tx:
            notices = await queries.new_notices(tx.connection, AT_ONCE)
            if notices:
                at = await agreed_now(tx.connection, self._runtime.clock)
                named = await self._recipients(tx.connection, notices)
                wishes = await self.wishes(tx.connection, sorted({rep_id for _, rep_id in named}))
                for one, rep_id in named:
                    for channel in wishes[rep_id].of(kind_of(one.kind)):
                        await self._plan(tx, one, rep_id, channel, wishes[rep_id], at)
                await queries.expanded(tx.connection, notices, at)
        return len(notices)

    async def _recipients(self, connection: Connection, notices: Sequence[Notice]) -> list[tuple[Notice, RepId]]:
        around = await queries.around(connection, sorted({one.about for one in notices}))
        named: dict[tuple[str, str, int, RepId], tuple[Notice, RepId]] = {}
        for one in notices:
            row = around.get(one.about)
            match one.audience:
                case "rep":
                    found = row and row["rep_id"]
                case "manager":
                    found = row and row["manager_id"]
                case "owner":
                    found = row and next(iter(row["owners"]), None)
                case rep_id:
                    found = rep_id
            if found:
                named.setdefault((one.about, one.kind, one.step, found), (one, found))
        return list(named.values())

    async def wishes(self, connection: Connection, rep_ids: Sequence[RepId]) -> dict[RepId, Wishes]:
        """How each of these reps wants to be told."""
        rows = await queries.wishes(connection, rep_ids)
        made = dict.fromkeys(rep_ids, Wishes({}))
        for rep_id, row in rows.items():
            url = row["slack_url"] and open_url(self._runtime.keys, rep_id, row["slack_url"])
            made[rep_id] = Wishes(row["channels"], row["slack_user_id"], url, row["endpoint_id"])
        return made

    async def _plan(  # noqa: PLR0913  # what a notification is made of
        self, tx: Tx, one: Notice, rep_id: RepId, channel: Channel, wishes: Wishes, at: datetime
    ) -> None:
        missing = self._missing(channel, wishes)
        this = notification_id(one.about, one.kind, one.step, rep_id, channel)
        state = "planned" if missing is None else "dropped"
        endpoint_id = wishes.endpoint_id if channel == "webhook" else None
        row = (this, one.about, one.kind, one.step, rep_id, channel, one.lead_id, endpoint_id, state, missing, at)
        if await queries.plan(tx.connection, row) and endpoint_id is not None and missing is None:
            assignment = await assignments.one(tx.connection, AssignmentId(one.about))
            link = self._settings.lead_address(one.lead_id, self._runtime.settings.public_url)
            data = data_of(one.about, one.kind, one.step, rep_id, one.lead_id, assignment, link)
            outgoing = Outgoing(this, endpoint_id, EVENT, envelope(EVENT, at, data), one.lead_id)
            await enqueue(tx.connection, self._runtime.keys, [outgoing], at)

    def _missing(self, channel: Channel, wishes: Wishes) -> str | None:
        """What has to be set before anything can be said by this channel."""
        match channel:
            case "email":
                return None if self._mailer is not None else "no mail server is set: THROUGHLINE_SMTP_URL"
            case "slack" if wishes.slack_url is not None:
                return None
            case "slack":
                if wishes.slack_user_id is None:
                    return "the rep has neither a slack_user_id nor a slack_webhook_url"
                return None if self._settings.slack_bot_token else "no THROUGHLINE_ROUTING_SLACK_BOT_TOKEN is set"
            case "webhook":
                return None if wishes.endpoint_id is not None else "the rep has no webhook_endpoint_id"

    async def _send(self, channel: Channel) -> None:
        """Send what is due by one channel, one after the other."""
        database, clock = self._runtime.database, self._runtime.clock
        async with Outbound.of(self._runtime.settings) as outbound:
            while True:
                async with database.reading() as connection:
                    at = await agreed_now(connection, clock)
                    claimed = await queries.claim(connection, self._claim, at, CLAIM_FOR, channel, CLAIMED_AT_ONCE)
                if not claimed:
                    return
                failpoint("after_notification_claim")
                for one in claimed:
                    handing_over = asyncio.create_task(self._hand_over(one, outbound))
                    try:
                        await asyncio.shield(handing_over)
                    except asyncio.CancelledError:
                        await asyncio.wait([handing_over])  # what is under way ends with a known outcome
                        raise

    async def _hand_over(self, one: Notification, outbound: Outbound) -> None:
        database, clock = self._runtime.database, self._runtime.clock
        async with database.reading() as connection:
            assignment = await assignments.one(connection, AssignmentId(one.about))
            owners = [one.rep_id] if assignment is None else [one.rep_id, assignment.rep_id]
            reps = await reps_of(connection, owners)
            wishes = (await self.wishes(connection, [one.rep_id]))[one.rep_id]
        result = await self._told(one, assignment, reps, wishes, outbound)
        failpoint("after_notification_call")
        if result.state == "planned" and one.attempts >= TRIES:
            result = Result("failed", f"{result.reason}; given up after {TRIES} tries")
        async with database.reading() as connection:
            at = await agreed_now(connection, clock)
            pause = max(result.retry_after or timedelta(), pause_before(one.attempts))
            await queries.record(connection, one.notification_id, self._claim, result, at + pause, at)
        TOLD.labels(one.channel, result.state).inc()

    async def _told(
        self,
        one: Notification,
        assignment: Assignment | None,
        reps: dict[RepId, Rep],
        wishes: Wishes,
        outbound: Outbound,
    ) -> Result:
        rep = reps.get(one.rep_id)
        why = over(one.kind, assignment)
        if rep is None or why is not None:
            return Result("dropped", why or "the rep is gone")
        owner = reps.get(assignment.rep_id) if assignment is not None else None
        message = told(
            one.kind,
            one.step,
            assignment=assignment,
            rep_name=owner.name if owner is not None else "a rep",
            is_for_rep=assignment is None or assignment.rep_id == one.rep_id,
            zone=rep.calendar.zone,
            link=self._settings.lead_address(one.lead_id, self._runtime.settings.public_url),
        )
        said = await self._in_own_words(one, message)
        if said is None:
            return Result("dropped", "the person was erased")
        if one.channel == "email":
            return await self._mailed(one, rep, said)
        return await self._slacked(one, wishes, said, outbound)

    async def _in_own_words(self, one: Notification, message: Told) -> Told | None:
        """What a sequence wants said, in its words; None when they are gone with the person."""
        async with self._runtime.database.reading() as connection:
            words = await requests.words_of(connection, one.about) if one.kind == SEQUENCE else None
            if words is None:
                return message
            (text,) = await self._runtime.keys.open_many(connection, [words])
        if text is None:
            return None
        said = NoticePersonal.model_validate_json(text)
        return replace(message, subject=said.subject, text=said.text)

    async def _mailed(self, one: Notification, rep: Rep, message: Told) -> Result:
        if self._mailer is None:
            return Result("dropped", "no mail server is set: THROUGHLINE_SMTP_URL")
        try:
            content = compose(one.notification_id, self._runtime.settings.mail_from, rep.email, message)
        except (MessageError, ValueError) as exc:
            return Result("failed", f"it cannot be written as an email: {type(exc).__name__}")
        outcome = await self._mailer.deliver(content, lambda: True)
        match outcome.state:
            case "sent" | "unknown":
                return Result(outcome.state, outcome.reason)
            case _ if outcome.retry:
                return Result("planned", outcome.reason, timedelta())
            case _:
                return Result("failed", outcome.reason)

    async def _slacked(self, one: Notification, wishes: Wishes, message: Told, outbound: Outbound) -> Result:
        content = {
            "text": escaped(f"{message.subject}: {message.text}"),
            "blocks": blocks(message, one.notification_id),
        }
        token = self._settings.slack_bot_token
        try:
            if wishes.slack_url is not None:
                body = orjson.dumps(content)
                answer = await outbound.call("POST", wishes.slack_url, headers=JSON, content=body, timeout_s=CALLING_S)
                return result_of_webhook(answer)
            if token is None or wishes.slack_user_id is None:
                return Result("dropped", self._missing("slack", wishes) or "Slack is not set up")
            body = orjson.dumps({**content, "channel": wishes.slack_user_id})
            answer = await outbound.call(
                "POST",
                f"{self._settings.slack_api_url.rstrip('/')}/chat.postMessage",
                headers={**JSON, "authorization": f"Bearer {token.get_secret_value()}"},
                content=body,
                timeout_s=CALLING_S,
            )
            return result_of_api(answer)
        except AddressRefused as exc:
            return Result("failed", exc.detail)
        except NoAnswer as exc:
            if isinstance(exc.__cause__, httpx.ConnectError | httpx.ConnectTimeout):
                return Result("planned", f"Slack was not reached: {exc.detail}", timedelta())
            return Result("unknown", f"no answer came after the message was handed over: {exc.detail}")

    async def _reply(self) -> None:
        """Send what is to be answered in Slack. Said twice it replaces the same message by the same words."""
        database, clock = self._runtime.database, self._runtime.clock
        async with database.reading() as connection:
            replies = await queries.claim_replies(connection, await agreed_now(connection, clock), REPLY_FOR)
        if not replies:
            return
        async with Outbound.of(self._runtime.settings) as outbound:
            for row in replies:
                body = orjson.dumps(row["content"])
                url = open_url(self._runtime.keys, "reply", row["url"])
                try:
                    answer = await outbound.call("POST", url, headers=JSON, content=body, timeout_s=10)
                    done = answer.status < 500 and answer.status != 429
                except AddressRefused:
                    done = True
                except NoAnswer:
                    done = False
                if done or row["attempts"] >= REPLY_TRIES:
                    async with database.reading() as connection:
                        await queries.drop_reply(connection, row["place"])
