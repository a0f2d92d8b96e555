"""How far a change of the rules has come, for those who wait for it."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from services.scoring.parts import Parts
from services.scoring.people.beside import Beside, everything_beside, serving_version
from services.scoring.rules import queries
from services.scoring.rules.queries import Switch
from shared.db import Connection


class PreparingOut(BaseModel):
    """Rows of a version beside those that serve: how many persons are done, how fast, and how long the rest takes."""

    rules_version: int
    state: Literal["filling", "ready"]
    remaining: int
    persons_per_second: float | None
    seconds_left: float | None


class FollowingOut(BaseModel):
    """What follows from the last switch: persons judged so far, of those whose stage changed, and who advanced."""

    rules_version: int
    previous: int
    switched_at: datetime
    announce: bool
    judged: int
    remaining: int
    changed: int
    advanced: int
    finished_at: datetime | None


class RescoringOut(BaseModel):
    """How far scoring everybody under the active version has come; until it is done, `serving_version` counts.

    A version in `kept_versions` can serve again at once.
    """

    rules_version: int
    serving_version: int
    persons: int
    remaining: int
    preparing: PreparingOut | None
    kept_versions: list[int]
    following: FollowingOut | None


async def rescoring_progress(connection: Connection, parts: Parts) -> RescoringOut:
    """Where it stands at this moment."""
    active = await parts.rules.store.active_version(connection) or 0
    serving = await serving_version(connection, parts)
    found = [one for one in await everything_beside(connection) if one.follows]
    under_way = next((one for one in found if one.state != "kept" and one.version == active), None)
    under_way = under_way or next((one for one in found if one.state != "kept"), None)
    persons, left = await queries.progress(connection, under_way.reached if under_way else "")
    served = serving == active and not await queries.strays(connection, serving)
    remaining = 0 if served else left if under_way and under_way.version == active else persons
    switch = await queries.last_switch(connection)
    return RescoringOut(
        rules_version=active,
        serving_version=serving,
        persons=persons,
        remaining=remaining,
        preparing=_preparing(under_way, left) if under_way else None,
        kept_versions=[one.version for one in found if one.state == "kept"],
        following=await _following(connection, switch) if switch else None,
    )


def _preparing(one: Beside, remaining: int) -> PreparingOut:
    left = remaining if one.state == "filling" else 0
    return PreparingOut(
        rules_version=one.version,
        state="filling" if one.state == "filling" else "ready",
        remaining=left,
        persons_per_second=round(one.rate, 1) if one.rate else None,
        seconds_left=round(left / one.rate, 1) if one.rate else None,
    )


async def _following(connection: Connection, switch: Switch) -> FollowingOut:
    remaining = 0 if switch.finished_at else (await queries.progress(connection, switch.reached))[1]
    return FollowingOut(
        rules_version=switch.version,
        previous=switch.previous,
        switched_at=switch.at,
        announce=switch.announce,
        judged=switch.judged,
        remaining=remaining,
        changed=switch.changed,
        advanced=switch.advanced,
        finished_at=switch.finished_at,
    )
