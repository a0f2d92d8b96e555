"""Attribution's timers: another version of a model credits all conversions, a few at a time, and then serves; journeys
that led to nothing so far are counted.
"""

from datetime import timedelta

from services.attribution.models.catalogue import Catalogue
from services.attribution.models.handlers import walk_models
from services.attribution.remainders.handlers import keep_remainders
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Looked at every second, and without a pause while there is more to do."""
    catalogue = Catalogue()
    return (
        Timer("models", lambda: walk_models(runtime.database, catalogue), timedelta(seconds=1)),
        Timer("remainders", lambda: keep_remainders(runtime.database), timedelta(seconds=1)),
    )
