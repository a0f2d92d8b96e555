"""Scoring's timers: what changes by time alone, scoring anew, learning from deals, and saved segments."""

from datetime import timedelta

from services.scoring.accounts.handlers import settle_accounts
from services.scoring.parts import make_parts
from services.scoring.predictive.handlers import ask_when_due, train_next
from services.scoring.rules.following import follow_switch
from services.scoring.rules.rescoring import rescore
from services.scoring.segments import handlers as segments
from services.scoring.segments.building import build_segments
from services.scoring.stages.due import settle_due
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """All look every half second; what is due sooner is not kept waiting."""
    parts, database, settings = make_parts(runtime), runtime.database, runtime.settings

    async def build() -> None:
        await build_segments(database, parts)

    async def train() -> None:
        await ask_when_due(database, parts)
        await train_next(database)

    return (
        Timer("stages-due", lambda: settle_due(database, parts), timedelta(milliseconds=500)),
        Timer("rescoring", lambda: rescore(database, parts, settings), timedelta(milliseconds=500)),
        Timer("following", lambda: follow_switch(database, parts, settings), timedelta(milliseconds=500)),
        Timer("segments-due", lambda: segments.settle_due(database, parts), timedelta(milliseconds=500)),
        Timer("segments", build, timedelta(milliseconds=500)),
        Timer("training", train, timedelta(seconds=2)),
        Timer("accounts", lambda: settle_accounts(database, parts), timedelta(milliseconds=500)),
    )
