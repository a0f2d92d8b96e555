"""Attribution's timer: another version of a custom model credits all conversions anew, a few at a time."""

from datetime import timedelta

from services.attribution.models.catalogue import Catalogue
from services.attribution.models.handlers import backfill_models
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Looked at every second, and without a pause while there is more to do."""
    catalogue = Catalogue()
    return (Timer("model-backfill", lambda: backfill_models(runtime.database, catalogue), timedelta(seconds=1)),)
