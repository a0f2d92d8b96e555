"""Scoring's timers: stages that change by decay alone, and scoring anew after the rules changed."""

from datetime import timedelta

from services.scoring.parts import make_parts
from services.scoring.rules.rescoring import rescore_outdated
from services.scoring.stages.handlers import settle_due
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Both look every half second; a stage that is due sooner is not kept waiting."""
    parts, database = make_parts(runtime), runtime.database

    async def rescore() -> None:
        await rescore_outdated(database, parts)

    return (
        Timer("stages-due", lambda: settle_due(database, parts), timedelta(milliseconds=500)),
        Timer("rescoring", rescore, timedelta(milliseconds=500)),
    )
