"""Attribution's timer: another version of a model credits all conversions, a few at a time, and then serves."""

from datetime import timedelta

from services.attribution.models.catalogue import Catalogue
from services.attribution.models.handlers import settle_models, walk_models
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Looked at every second, and without a pause while there is more to do."""
    catalogue = Catalogue()
    return (Timer("models", lambda: walk_models(runtime.database, catalogue), timedelta(seconds=1)),)


async def settle(runtime: Runtime) -> None:
    """Do at once what the timer still owes to the projection at hand."""
    await settle_models(runtime.database, Catalogue())
