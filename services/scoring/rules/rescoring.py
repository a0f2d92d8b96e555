"""After other rules became active: everybody's rows are made beside those that serve, then take their place at once.

What a planned activation needs is made before its time. Rows that served are kept up for a while, so that a rollback
finds them. Each step is one transaction, and what comes next is read from the tables: so the process may die anywhere.
"""

from collections.abc import Sequence
from datetime import timedelta

from services.scoring.parts import Parts
from services.scoring.people import beside
from services.scoring.people.beside import Beside, everything_beside, serving_version
from services.scoring.people.handlers import make_anew
from services.scoring.rules import queries
from shared.db import Connection, Database
from shared.faults import failpoint
from shared.settings import Settings
from shared.telemetry import counter, log

RESCORED = counter("throughline_rescored_persons_total", "Persons scored under other rules, beside those that serve")
SWITCHED = counter("throughline_rules_switched_total", "Switches of the rules that persons are scored under")
PAGE = 200
AHEAD = timedelta(hours=1)
"""How long before its time a planned activation is prepared."""
MOST_KEPT = 2
"""So many that served are kept up at most: every fact is folded into each of them."""


async def rescore(database: Database, parts: Parts, settings: Settings) -> timedelta | None:
    """Bring what serves to the active version, and prepare what is planned. Answers how long until the next switch."""
    while True:
        async with database.transaction() as tx:
            wanted, at = await _wanted(tx.connection, parts)
            found = await everything_beside(tx.connection)
            serving = await serving_version(tx.connection, parts)
            surplus = _surplus(found, wanted, serving, settings.rules_kept)
            missing = wanted is not None and not any(one.version == wanted and one.follows for one in found)
            if surplus or missing:
                await tx.connection.execute(beside.ALONE)
                for version in surplus:
                    await beside.drop(tx.connection, version)
                if missing and wanted is not None:
                    await beside.begin(tx.connection, wanted)
        if wanted is None:
            return None
        failpoint("before_filling")
        if not await _filled(database, parts, wanted):
            continue  # something else is wanted by now
        if at is not None:
            return at
        if await _switched(database, parts, wanted, settings.scoring_advances_at_once):
            SWITCHED.inc()
            log.info("rules_switched", version=wanted, previous=serving)


async def _wanted(connection: Connection, parts: Parts) -> tuple[int | None, timedelta | None]:
    """The version whose rows are needed: now, or after a while; None when what serves is what should."""
    active = await parts.rules.store.active_version(connection) or 0
    serving = await serving_version(connection, parts)
    if serving != active or await queries.strays(connection, serving):
        return active, None
    planned = await queries.next_planned(connection, parts.rules.store.kind, AHEAD)
    if planned is None or planned[0] == serving:
        return None, None
    return planned


def _surplus(found: Sequence[Beside], wanted: int | None, serving: int, kept: timedelta) -> list[int]:
    """What is of no use any more: neither wanted, nor among the last that served."""
    following = [one for one in found if one.follows and one.version != serving]
    served = [one for one in following if one.state == "kept" and one.age < kept]
    last = sorted(served, key=lambda one: one.age)[:MOST_KEPT]
    of_use = {wanted, *(one.version for one in last)}
    return [one.version for one in found if not one.follows or one.version not in of_use]


async def _filled(database: Database, parts: Parts, version: int) -> bool:
    """Make the rows of all persons under a version; false when another one is wanted before that is done."""
    while True:
        async with database.transaction() as tx:
            if (await _wanted(tx.connection, parts))[0] != version:
                return False
            reached = await beside.hold(tx.connection, version)
            if reached is None:
                return any(one.version == version and one.follows for one in await everything_beside(tx.connection))
            person_ids = await beside.persons_after(tx.connection, reached, PAGE)
            ready = len(person_ids) < PAGE
            if person_ids:
                rules = await parts.rules.at_version(tx.connection, version)
                await beside.look_in(tx.connection, version)
                await make_anew(tx.connection, parts, person_ids, rules)
            await beside.reach(
                tx.connection, version, person_ids[-1] if person_ids else reached, len(person_ids), ready=ready
            )
        RESCORED.inc(len(person_ids))
        failpoint("filled")


async def _switched(database: Database, parts: Parts, version: int, allowance: int) -> bool:
    """Let the rows of a version serve, unless another one is active by now."""
    async with database.transaction() as tx:
        await tx.connection.execute(beside.ALONE)
        active = await queries.active_activation(tx.connection, parts.rules.store.kind)
        found = {one.version: one for one in await everything_beside(tx.connection)}
        ready = version in found and found[version].follows and found[version].state != "filling"
        if not ready or active is None or active.version != version:
            return False
        serving = await serving_version(tx.connection, parts)
        await beside.put_in_place(tx.connection, version, serving)
        await queries.begin_switch(tx.connection, version, serving, announce=active.announce, allowance=allowance)
        failpoint("before_switch")
    failpoint("switched")
    return True
