"""Nurture's timers: due steps, and facts whose hour is over."""

from datetime import timedelta

from services.nurture.audiences.handlers import Keeper
from services.nurture.broadcasts import dry_runs
from services.nurture.broadcasts.pacing import Pacer
from services.nurture.channels.setup import email_providers, given, make_channels
from services.nurture.enrolments import queries as enrolments
from services.nurture.experiments.handlers import judge_all
from services.nurture.measurement.counts import add_up
from services.nurture.measurement.outcomes import Rounds, count_outcomes
from services.nurture.optins import queries as optins
from services.nurture.optins.handlers import OptinSender
from services.nurture.parts import make_parts
from services.nurture.permission.handlers import follow_policy, look_at_all
from services.nurture.sending.handlers import Sender
from services.nurture.sending.reconciling import Reconciler
from services.nurture.sending.resending import Resender
from services.nurture.sending.sealing import seal_clear
from services.nurture.sequences.moves import Mover
from services.nurture.takeover.handlers import look_again_under_policy
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Steps are looked for four times a second at least, at once when one is due sooner."""
    parts = make_parts(runtime)
    providers = given(parts)
    email = email_providers(providers)
    keeper = Keeper(parts)
    channels = make_channels(providers, email)
    sender = Sender(parts, channels)
    resender = Resender(parts, channels, sender)

    async def forget_expired() -> None:
        async with runtime.database.reading() as connection:
            await enrolments.drop_expired(connection)
            await optins.empty_expired(connection)

    return (
        Timer("sequences", sender.run, timedelta(milliseconds=250)),
        Timer("audiences", keeper.run, timedelta(seconds=5)),
        Timer("audiences-fill", keeper.fill, timedelta(hours=1)),
        Timer("optins", OptinSender(parts, parts.renderer, channels, sender).run, timedelta(milliseconds=250)),
        Timer("resending", resender.run, timedelta(seconds=5)),
        Timer("reconciling", Reconciler(parts, channels, resender).run, timedelta(minutes=1)),
        Timer("policy", lambda: follow_policy(parts), timedelta(seconds=5)),
        Timer("guard", lambda: look_at_all(parts), timedelta(seconds=15)),
        Timer("counts", lambda: add_up(runtime.database), timedelta(seconds=5)),
        Timer("outcomes", lambda: count_outcomes(runtime.database), timedelta(seconds=5)),
        Timer("outcomes-rounds", Rounds(runtime.database).run, timedelta(minutes=1)),
        Timer("experiments", lambda: judge_all(parts), timedelta(minutes=1)),
        Timer("broadcasts", Pacer(parts).run, timedelta(seconds=1)),
        Timer("broadcast-dry-runs", lambda: dry_runs.run(parts), timedelta(seconds=1)),
        Timer("sequence-moves", Mover(parts).run, timedelta(seconds=1)),
        Timer("sealing", lambda: seal_clear(runtime), timedelta(minutes=1)),
        Timer("takeover", lambda: look_again_under_policy(runtime, parts), timedelta(seconds=5)),
        Timer("pending-triggers", forget_expired, timedelta(minutes=5)),
    )
