"""The sequences, compiled: what each version says never changes, so it is read and compiled once in a process."""

import json
from importlib import resources
from typing import Any

from services.nurture.enrolments.domain import Screen, screen_of
from services.nurture.sequences import queries
from services.nurture.sequences.document import SequenceDocument
from services.nurture.sequences.domain import Plan, compile_plan
from shared.db import Connection
from shared.ids import SequenceId
from shared.rules import CompiledVersions, DocumentStore

WELCOME = SequenceId("welcome")
SEQUENCES = DocumentStore("sequence")
BROADCAST = "broadcast-"
"""What the ids of broadcasts begin with: each is a sequence of one step, kept apart from those that are written."""
BROADCASTS = DocumentStore("broadcast")


def store_of(sequence_id: SequenceId) -> DocumentStore:
    """Where the versions of a sequence are kept."""
    return BROADCASTS if sequence_id.startswith(BROADCAST) else SEQUENCES


def shipped(name: str) -> dict[str, object]:
    """A sequence that comes with the product."""
    source = resources.files("services.nurture").joinpath("shipped", f"{name}.json").read_text()
    document: dict[str, object] = json.loads(source)
    return document


class Catalogue:
    """Plans by sequence and version, and the screen that all facts pass first."""

    def __init__(self) -> None:
        self._plans = CompiledVersions(_plan)
        self._screen: tuple[tuple[tuple[SequenceId, int], ...], Screen] = ((), Screen(()))

    async def plan(self, connection: Connection, sequence_id: SequenceId, version: int) -> Plan:
        """One version of a sequence; raises NoSuchVersion."""
        return await self._plans.get(connection, store_of(sequence_id), sequence_id, version)

    async def entered(self, connection: Connection) -> list[Plan]:
        """The sequences that can be entered now."""
        plans = [await self.plan(connection, *current) for current in await queries.current_versions(connection)]
        return [plan for plan in plans if plan.active]

    async def current_version(self, connection: Connection, sequence_id: SequenceId) -> int | None:
        """The version that counts; None where there is none."""
        return await store_of(sequence_id).active_version(connection, sequence_id)

    async def live(self, connection: Connection, sequence_id: SequenceId) -> bool:
        """Whether the sequence runs: what its present version says."""
        version = await self.current_version(connection, sequence_id)
        return version is not None and (await self.plan(connection, sequence_id, version)).active

    async def screen(self, connection: Connection, entered: list[Plan]) -> Screen:
        """What tells that a fact concerns neither a way in nor any run under way."""
        under_way = [await self.plan(connection, *used) for used in await queries.versions_under_way(connection)]
        plans = {(plan.sequence_id, plan.version): plan for plan in [*entered, *under_way]}
        key = tuple(sorted(plans))
        if self._screen[0] != key:
            self._screen = (key, screen_of(plans.values()))
        return self._screen[1]


def _plan(sequence_id: str, version: int, document: dict[str, Any]) -> Plan:
    return compile_plan(SequenceId(sequence_id), version, SequenceDocument.model_validate(document))
