"""What pauses marketing to one person now: by what concerns them, and by what concerns their company."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.nurture.people.domain import Person
from services.nurture.takeover import queries
from services.nurture.takeover.document import Policy
from services.nurture.takeover.domain import Known, Pause, in_force, of_company, pauses_of, won_for_group
from shared.db import Connection
from shared.identity import Member


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands: the pauses in force, the longest first, and when the group around a person became a customer."""

    pauses: Sequence[Pause]
    won_at: datetime | None


async def standing_of(
    connection: Connection, policy: Policy, person: Person, family: Sequence[Member], now: datetime
) -> Standing:
    """What pauses marketing to a person. One statement, unless the policy pauses for whole companies."""
    known = (await queries.known_of(connection, {person.person_id: family}, now))[person.person_id]
    return await standing_as_known(connection, policy, person, known, now)


async def standing_as_known(
    connection: Connection, policy: Policy, person: Person, known: Known, now: datetime
) -> Standing:
    """The same for somebody of whom is known what concerns them."""
    pauses, won_at = pauses_of(policy, known, now), won_for_group(policy, known)
    colleagues = await queries.colleagues_of(connection, person.ids) if policy.for_accounts else {}
    if not colleagues:
        return Standing(pauses, won_at)
    theirs = (await queries.known_of(connection, colleagues, now)).values()
    company = [pause for each in theirs for pause in of_company(pauses_of(policy, each, now))]
    if policy.says.deal.pauses == "account":
        won = [won_at, *(deal.closed_at for each in theirs for deal in each.deals if deal.status == "won")]
        won_at = max((at for at in won if at is not None), default=None)
    return Standing(in_force([*company, *pauses], known.released, now), won_at)
