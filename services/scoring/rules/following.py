"""The stages that follow from a switch of the rules: decided once for everybody, told at a pace that people can take.

A rule edit can make thousands of leads advance in one moment. Their scores count at once; that they advance is let out
little by little, in the order of their ids, so that nobody is given more leads than can be worked on. Leads that stay
or fall back cost no reps' time and are not held up. What a new fact makes of a lead meanwhile is decided by that fact.

A rollback also lets go of stages that a lead entered under the rules it takes off, and would not have come to under
those it goes back to: by `leave_when` alone it would hold on to what was a mistake.
"""

from collections.abc import Sequence
from datetime import timedelta

from services.scoring.decisions.domain import ORDER, SET_ASIDE
from services.scoring.parts import Parts
from services.scoring.people.beside import persons_after
from services.scoring.rules import queries
from services.scoring.rules.queries import Switch
from services.scoring.stages.domain import FIRST
from services.scoring.stages.handlers import settle
from services.scoring.stages.undoing import Undone, settle_undone
from shared.db import Connection, Database
from shared.events import StageChanged
from shared.faults import failpoint
from shared.ids import LeadId
from shared.settings import Settings

PAGE = 100
SECONDS_A_MINUTE = 60


async def follow_switch(database: Database, parts: Parts, settings: Settings) -> timedelta | None:
    """Decide and tell what follows from the last switch, as far as may be now. Answers how long until more may be."""
    a_second = settings.scoring_advances_per_minute / SECONDS_A_MINUTE
    while True:
        async with database.transaction() as tx:
            switch = await queries.open_switch(tx.connection, settings.scoring_advances_at_once, a_second)
            if switch is None:
                return None
            if _held_up(switch, settings):
                return timedelta(seconds=(1 - switch.allowance) / a_second)
            person_ids = await persons_after(tx.connection, switch.reached, PAGE)
            cause = f"rules:{switch.version}"
            undone = await _undone(tx.connection, parts, switch, person_ids)
            rest = [person_id for person_id in person_ids if person_id not in undone]
            await settle_undone(tx, parts, dict.fromkeys(undone, cause), undone, quietly=not switch.announce)
            await settle(tx, parts, dict.fromkeys(rest, cause), replan=True, quietly=not switch.announce)
            changes = [StageChanged.decode(row[7]) for row in tx.rows if row[3] == StageChanged.ce_type and row[7]]
            await queries.told(
                tx.connection,
                switch,
                person_ids[-1] if person_ids else switch.reached,
                len(person_ids),
                len(changes),
                sum(map(advances, changes)),
                finished=len(person_ids) < PAGE,
            )
        failpoint("followed")


async def _undone(
    connection: Connection, parts: Parts, switch: Switch, person_ids: Sequence[LeadId]
) -> dict[LeadId, Undone]:
    """Those of the persons who are in stages that they entered under rules that this switch rolls back."""
    activation = await queries.active_activation(connection, parts.rules.store.kind)
    if activation is None or not activation.rollback or activation.version != switch.version:
        return {}
    served = await queries.served_since(connection, switch)
    if served is None:
        return {}
    since, versions = served
    entered = await queries.entered_under(connection, person_ids, versions)
    why = f"the rules were rolled back to version {switch.version}"
    return {person_id: Undone(since, why, stages) for person_id, stages in entered.items()}


def _held_up(switch: Switch, settings: Settings) -> bool:
    return switch.announce and settings.scoring_advances_per_minute > 0 and switch.allowance < 1


def advances(fact: StageChanged) -> bool:
    """Whether a lead came further, which is what others act upon."""
    return fact.stage not in SET_ASIDE and ORDER[fact.stage] > ORDER[fact.previous or FIRST]
