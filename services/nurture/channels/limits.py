"""How many emails a minute a recipient's domain takes from us, counted over all processes."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from services.nurture.channels import queries
from services.nurture.sending.domain import Hold
from shared.emails import domain_of

if TYPE_CHECKING:  # the list of checks names this one
    from services.nurture.sending.checks import Question


async def domain_limit(question: "Question") -> Hold | None:
    """Hold an email whose domain has had its share of this minute."""
    if not question.claiming or question.step.channel != "email" or question.person.email is None:
        return None
    domain = domain_of(question.person.email)
    limit = question.parts.channels.domain_limits.get(domain)
    if limit is None or limit.per_minute is None:
        return None
    minute, number = await queries.take_number(question.connection, domain)
    until = turn(minute, number, limit.per_minute)
    return Hold(question.step, f"{domain} takes {limit.per_minute} emails a minute", until) if until else None


def turn(minute: datetime, number: int, per_minute: int) -> datetime | None:
    """When the `number`-th (from 1) of those who asked in a minute may come back; None when it may go on."""
    later = (number - 1) // per_minute
    return minute + timedelta(minutes=later) if later else None
