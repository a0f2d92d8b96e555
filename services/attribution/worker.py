"""Attribution's timers: another version of a model or of the channel grouping counts for all of history, bit by bit;
what was too much for those who changed it is credited in pieces; journeys that led to nothing so far are counted, and
channels weighed where that takes long.
"""

from datetime import timedelta

from services.attribution.channels.groupings import active_grouping
from services.attribution.channels.handlers import regroup_touches, settle_groupings
from services.attribution.debts.handlers import pay_debts, settle_debts
from services.attribution.exports.handlers import Exporter
from services.attribution.models.catalogue import Catalogue
from services.attribution.models.handlers import settle_models, walk_models
from services.attribution.pipeline.following import settle_followed
from services.attribution.remainders.handlers import keep_remainders
from services.attribution.remainders.handlers import settle as settle_remainders
from services.attribution.standing.handlers import bring_together
from services.attribution.telling.handlers import tell_credits
from services.attribution.totals.handlers import keep_totals
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Looked at every second, and without a pause while there is more to do."""
    catalogue = Catalogue()
    groupings = active_grouping()
    return (
        Timer("models", lambda: walk_models(runtime.database, catalogue), timedelta(seconds=1)),
        Timer("debts", lambda: pay_debts(runtime.database, catalogue), timedelta(seconds=0.25)),
        Timer("regrouping", lambda: regroup_touches(runtime.database, catalogue, groupings), timedelta(seconds=1)),
        Timer("credits-told", lambda: tell_credits(runtime), timedelta(seconds=0.5)),
        Timer("exports", Exporter(runtime).step, timedelta(seconds=1)),
        Timer("remainders", lambda: keep_remainders(runtime.database), timedelta(seconds=1)),
        Timer("report-moves", lambda: bring_together(runtime.database), timedelta(seconds=2)),
        Timer("channel-totals", lambda: keep_totals(runtime.database, catalogue), timedelta(seconds=2)),
    )


async def settle(runtime: Runtime) -> None:
    """Do at once what the timers still owe to the projection at hand."""
    catalogue = Catalogue()
    await settle_groupings(runtime.database, catalogue, active_grouping())
    await settle_models(runtime.database, catalogue)
    await settle_debts(runtime, catalogue)
    await settle_models(runtime.database, catalogue)  # a run does not serve while conversions owe it their credits
    await settle_followed(runtime.database)
    await settle_remainders(runtime)
