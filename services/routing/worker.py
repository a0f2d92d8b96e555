"""What routing does when time has passed."""

from datetime import datetime, timedelta

from services.routing.assignments import handlers, inputs
from services.routing.calendars.handlers import look_for_due
from services.routing.crm.handlers import CrmWriter
from services.routing.deals import renewals, rotting
from services.routing.deals import sealing as deal_texts
from services.routing.decisions.handlers import forget_old
from services.routing.departures.handlers import go_on
from services.routing.handoffs import handlers as handoffs
from services.routing.notifications.handlers import Notifier
from services.routing.parts import Parts, make_parts
from services.routing.settings import RoutingSettings
from services.routing.sla.handlers import run_clocks
from services.routing.subscriptions.reading import Subscribing
from services.routing.webhooks.handlers import Deliverer
from shared.db import agreed_now
from shared.service import Runtime, Timer

EVERY = timedelta(seconds=1)


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Deadlines, leads and customers that wait for a rep, deals that fall silent or are to be renewed."""
    parts = make_parts(runtime)
    deliverer = Deliverer(runtime, {"crm": CrmWriter(runtime).deliver})
    subscribing = Subscribing(runtime)
    settings = RoutingSettings()
    notifier = Notifier(parts, settings)

    async def deadlines() -> timedelta | None:
        if not await _knows_its_decisions(runtime):
            return None
        return await _until(await run_clocks(parts), runtime)

    async def holds() -> timedelta | None:
        if not await _knows_its_decisions(runtime):
            return None
        return await _until(await handlers.retry_holds(parts), runtime)

    async def rot() -> timedelta | None:
        return await rotting.tell_rotted(parts) if await _knows_its_deals(runtime) else None

    async def renew() -> timedelta | None:
        return await renewals.open_renewals(parts) if await _knows_its_deals(runtime) else None

    async def owners() -> timedelta | None:
        if not await _knows_its_deals(runtime):
            return None
        return await _until(await handoffs.find_owners(parts), runtime)

    async def seal() -> None:
        await deal_texts.seal_clear(runtime)
        await inputs.seal_clear(runtime)

    async def forget() -> None:
        await forget_old(parts, settings.replays_kept)

    return (
        Timer("calendars", lambda: _calendars(runtime), EVERY),
        Timer("reroutes", lambda: _reroutes(parts), EVERY),
        Timer("deadlines", deadlines, EVERY),
        Timer("holds", holds, EVERY),
        Timer("rotting-deals", rot, timedelta(minutes=1)),
        Timer("renewals", renew, timedelta(minutes=1)),
        Timer("handoff-owners", owners, EVERY),
        Timer("sealing", seal, timedelta(minutes=1)),
        Timer("notifications", notifier.run, timedelta(milliseconds=250)),
        Timer("subscriptions", subscribing.run, timedelta(milliseconds=500)),
        Timer("webhooks", deliverer.run, timedelta(milliseconds=250)),
        Timer("webhooks-clean-up", deliverer.clean_up, timedelta(minutes=5)),
        Timer("decisions-clean-up", forget, timedelta(hours=1)),
    )


async def _calendars(runtime: Runtime) -> timedelta | None:
    return await _until(await look_for_due(runtime), runtime)


async def _reroutes(parts: Parts) -> None:
    if await _knows_its_decisions(parts.runtime):
        await go_on(parts)


async def _knows_its_decisions(runtime: Runtime) -> bool:
    """Whether what was published lately has been read back.

    A database restored to an earlier copy has not: there, an offer that was accepted long ago looks overdue. And with
    Kafka away nobody would hear of a decision.
    """
    async with runtime.database.reading() as connection:
        return await runtime.feeds.fresh(connection, "assignments", runtime.settings.fresh_within)


async def _knows_its_deals(runtime: Runtime) -> bool:
    """The same of deals: a copy would open a renewal, or tell of a silence, that was told long ago."""
    async with runtime.database.reading() as connection:
        return await runtime.feeds.fresh(connection, "deals", runtime.settings.fresh_within)


async def _until(due: datetime | None, runtime: Runtime) -> timedelta | None:
    if due is None:
        return None
    async with runtime.database.reading() as connection:
        return max(due - await agreed_now(connection, runtime.clock), timedelta(0))
