"""Nurture's timers: due steps, and facts whose hour is over."""

from datetime import timedelta

from services.nurture.enrolments import queries as enrolments
from services.nurture.optins import queries as optins
from services.nurture.optins.handlers import OptinSender
from services.nurture.parts import make_parts
from services.nurture.sending.handlers import Sender
from services.nurture.sending.sealing import seal_clear
from services.nurture.sending.smtp import Mailer, parse_server
from services.nurture.templates.rendering import Renderer
from shared.service import Runtime, Timer


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    """Steps are looked for four times a second at least, at once when one is due sooner."""
    parts = make_parts(runtime)
    url = runtime.settings.smtp_url
    mailer = Mailer(parse_server(url), parts.settings.smtp_timeout.total_seconds()) if url else None
    sender = Sender(parts, Renderer(), mailer)
    optin_mailer = Mailer(parse_server(url), parts.settings.smtp_timeout.total_seconds()) if url else None

    async def forget_expired() -> None:
        async with runtime.database.reading() as connection:
            await enrolments.drop_expired(connection)
            await optins.empty_expired(connection)

    return (
        Timer("sequences", sender.run, timedelta(milliseconds=250)),
        Timer("optins", OptinSender(parts, Renderer(), optin_mailer, sender).run, timedelta(milliseconds=250)),
        Timer("sealing", lambda: seal_clear(runtime), timedelta(minutes=1)),
        Timer("pending-triggers", forget_expired, timedelta(minutes=5)),
    )
