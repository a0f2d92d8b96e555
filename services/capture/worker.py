"""What comes round in capture."""

from datetime import timedelta

from services.capture.accounts.rematching import rematch_leads
from services.capture.deals.queries import drop_old as drop_old_deals
from services.capture.duplicates.handlers import check_likenesses
from services.capture.enrichment.handlers import Enriching
from services.capture.erasures.handlers import look_through_requests
from services.capture.forms.queries import empty_old
from services.capture.hooks.fetching import SecondCalls
from services.capture.hooks.queries import drop_old_deliveries, drop_signed
from services.capture.imports.carrying import Imports
from services.capture.imports.upkeep import drop_old_imports
from services.capture.leads.sealing import seal_clear
from services.capture.person_exports.handlers import drop_expired
from services.capture.settings import CaptureSettings
from shared.service import Runtime, Timer

SEALED_FOR = timedelta(days=14)
KNOWN_FOR = timedelta(days=90)


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """The table of duties."""
    enriching = Enriching(runtime)

    async def drop_old() -> timedelta | None:
        now = runtime.clock.now()
        async with runtime.database.reading() as connection:
            await drop_old_deliveries(connection, now - SEALED_FOR, now - KNOWN_FOR)
            await drop_signed(connection, now - SEALED_FOR)
            await drop_old_deals(connection, now - KNOWN_FOR)
        return None

    reviewed_for = CaptureSettings().form_review_for

    async def empty_old_forms() -> timedelta | None:
        now = runtime.clock.now()
        async with runtime.database.reading() as connection:
            await empty_old(connection, now - reviewed_for, now)
        return None

    return (
        Timer("old-submissions", empty_old_forms, timedelta(hours=1)),
        Timer("old-deliveries", drop_old, timedelta(hours=1)),
        Timer("enrichment", enriching.run, timedelta(seconds=1)),
        Timer("old-answers-of-providers", enriching.drop_old, timedelta(hours=1)),
        Timer("imports", Imports(runtime).run, timedelta(seconds=1)),
        Timer("old-imports", lambda: drop_old_imports(runtime), timedelta(hours=1)),
        Timer("erasures", lambda: look_through_requests(runtime), timedelta(seconds=1)),
        Timer("old-exports", lambda: drop_expired(runtime), timedelta(hours=1)),
        Timer("second-calls", SecondCalls(runtime).run, timedelta(seconds=1)),
        Timer("rematches", lambda: rematch_leads(runtime), timedelta(seconds=1)),
        Timer("sealing", lambda: seal_clear(runtime), timedelta(minutes=1)),
        Timer("likenesses", lambda: check_likenesses(runtime), timedelta(seconds=1)),
    )
