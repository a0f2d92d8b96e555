"""After another version became active: score everybody anew from the touches, page by page, while the old serves."""

from services.scoring.parts import Parts
from services.scoring.people.handlers import make_anew
from services.scoring.rules import queries
from services.scoring.stages.handlers import settle
from shared.db import Database
from shared.telemetry import counter

RESCORED = counter("throughline_rescored_persons_total", "Persons scored anew since other rules became active")
PAGE = 100


async def rescore_outdated(database: Database, parts: Parts) -> None:
    """Score anew all who are still scored under another version."""
    while True:
        async with database.transaction() as tx:
            rules = await parts.rules.current(tx.connection)
            person_ids = await queries.claim_outdated(tx.connection, rules.version, PAGE)
            if person_ids:
                await make_anew(tx.connection, parts, person_ids, rules)
                await settle(tx, parts, dict.fromkeys(person_ids, f"rules:{rules.version}"), replan=True)
        RESCORED.inc(len(person_ids))
        if len(person_ids) < PAGE:
            return
