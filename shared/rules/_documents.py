"""Versioned rule documents: saved, activated, rolled back, never overwritten."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import asyncpg

from shared.db import Connection
from shared.errors import FieldError, NotFound, Rejected
from shared.rules._activations import changed_meanwhile, version_before
from shared.rules._difference import difference
from shared.rules._expression import ExpressionFault

T = TypeVar("T")
SHIPPED_BY = "throughline"
DEFAULT = "default"
_ACTIVE_VERSION = """
    SELECT version FROM rule_activations
    WHERE kind = $1 AND name = $2 AND effective_at <= clock_timestamp()
    ORDER BY effective_at DESC, sequence DESC LIMIT 1"""
_VERSION_AT = """
    SELECT version FROM rule_activations WHERE kind = $1 AND name = $2 AND effective_at <= $3
    ORDER BY effective_at DESC, sequence DESC LIMIT 1"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))"
_SAVE = """
    INSERT INTO rule_documents (kind, name, version, document, author)
    SELECT $1::text, $2::text, coalesce(max(version), 0) + 1, $3::json, $4::text
    FROM rule_documents WHERE kind = $1 AND name = $2
    RETURNING version"""
_ACTIVATE = """
    INSERT INTO rule_activations (kind, name, version, author, effective_at, reason, rollback, announce)
    VALUES ($1, $2, $3, $4, coalesce($5, clock_timestamp()), $6, $7, $8)"""
_LOAD = """
    SELECT version, document, author, created_at, created_at < now() AS settled FROM rule_documents
    WHERE kind = $1 AND name = $2 AND version = $3"""
_VERSIONS = """
    SELECT version, document, author, created_at FROM rule_documents
    WHERE kind = $1 AND name = $2 AND version < $3 ORDER BY version DESC LIMIT $4"""
_NAMES = "SELECT DISTINCT name FROM rule_documents WHERE kind = $1 ORDER BY name"


class InvalidDocument(Rejected):
    """A rule document that cannot work; `errors` points at each fault, with the column inside its expression."""

    slug = "rules/invalid-document"
    title = "The rule document has faults"


class NoSuchVersion(NotFound):
    """The document has no such version."""

    slug = "rules/no-such-version"
    title = "There is no such version"


def invalid_document(faults: Sequence[ExpressionFault]) -> InvalidDocument:
    """The refusal of a document for its expressions, all of them at once."""
    errors = [FieldError(pointer=fault.pointer, detail=fault.detail, column=fault.column) for fault in faults]
    return InvalidDocument(f"{len(errors)} of its expressions cannot work", errors=errors)


@dataclass(frozen=True, slots=True)
class Decision:
    """Who switches, why, and whether what follows from it is told; `expected` is the version they know to count."""

    author: str
    reason: str = ""
    announce: bool = True
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One version of a document, and whether it is the one that counts now.

    `settled` is false where the transaction that looks may be the one that saves it: taken back, the number is given
    to another document. So nothing of it is kept beyond the transaction.
    """

    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]
    settled: bool = True


class DocumentStore:
    """The documents of one kind. Most kinds have a single one, named `default`; sequences and models have many.

    `default` is the document that a new installation starts with: saved as version 1, active, at the first look.
    """

    def __init__(self, kind: str, default: Mapping[str, Any] | None = None) -> None:
        self.kind = kind
        self._default = default

    async def active_version(self, connection: Connection, name: str = DEFAULT) -> int | None:
        """The version that counts now; None when no version ever counted."""
        version: int | None = await connection.fetchval(_ACTIVE_VERSION, self.kind, name)
        if version is None and name == DEFAULT and self._default is not None:
            await self.install(connection, self._default)
            version = await connection.fetchval(_ACTIVE_VERSION, self.kind, name)
        return version

    async def version_at(self, connection: Connection, at: datetime, name: str = DEFAULT) -> int | None:
        """The version that counted at an instant; None before there was any."""
        version: int | None = await connection.fetchval(_VERSION_AT, self.kind, name, at)
        return version

    async def install(self, connection: Connection, document: Mapping[str, Any], name: str = DEFAULT) -> bool:
        """Save and activate what ships with the product, unless there is any version already."""
        async with connection.transaction():
            await connection.execute(_LOCK, self.kind, name)
            if await connection.fetchrow(_VERSIONS, self.kind, name, 2**31 - 1, 1):
                return False
            await connection.execute(_SAVE, self.kind, name, dict(document), SHIPPED_BY)
            await self._count(connection, name, 1, Decision(SHIPPED_BY))
            return True

    async def active(self, connection: Connection, name: str = DEFAULT) -> StoredDocument:
        """The version that counts now, raising NoSuchVersion when there is none."""
        active = await self.active_version(connection, name)
        return await self._load(connection, active or 0, active, name)

    async def version(self, connection: Connection, version: int, name: str = DEFAULT) -> StoredDocument:
        """One version, raising NoSuchVersion."""
        return await self._load(connection, version, await self.active_version(connection, name), name)

    async def _load(self, connection: Connection, version: int, active: int | None, name: str) -> StoredDocument:
        row = await connection.fetchrow(_LOAD, self.kind, name, version)
        if row is None:
            raise NoSuchVersion(f"{self.kind} {name} has no version {version}")
        return _stored(row, active)

    async def versions(
        self, connection: Connection, name: str = DEFAULT, *, before: int = 2**31 - 1, limit: int = 50
    ) -> list[StoredDocument]:
        """The versions before one, the newest first."""
        active = await self.active_version(connection, name)
        return [_stored(row, active) for row in await connection.fetch(_VERSIONS, self.kind, name, before, limit)]

    async def names(self, connection: Connection) -> list[str]:
        """The names of all documents of this kind."""
        return [row["name"] for row in await connection.fetch(_NAMES, self.kind)]

    async def save(
        self,
        connection: Connection,
        document: Mapping[str, Any],
        decision: Decision | str,
        name: str = DEFAULT,
        *,
        draft: bool = False,
    ) -> StoredDocument:
        """A new version, active at once unless it is a draft. Validate first: this takes any document.

        Raises ChangedMeanwhile when another version counts than the one that was expected.
        """
        decision = _decision(decision)
        await self.active_version(connection, name)
        async with connection.transaction():
            await self._lock(connection, name, decision.expected)
            version: int = await connection.fetchval(_SAVE, self.kind, name, dict(document), decision.author)
            if not draft:
                await self._count(connection, name, version, decision)
        return await self.version(connection, version, name)

    async def activate(
        self,
        connection: Connection,
        version: int,
        decision: Decision | str,
        name: str = DEFAULT,
        *,
        at: datetime | None = None,
    ) -> StoredDocument:
        """Switch to a version, older or newer, now or at a time to come. Raises NoSuchVersion, ChangedMeanwhile."""
        decision = _decision(decision)
        await self.version(connection, version, name)
        async with connection.transaction():
            await self._lock(connection, name, decision.expected)
            await self._count(connection, name, version, decision, at=at)
        return await self.version(connection, version, name)

    async def roll_back(self, connection: Connection, decision: Decision, name: str = DEFAULT) -> StoredDocument:
        """Switch back to the version that counted before. Raises NothingBefore, ChangedMeanwhile."""
        await self.active_version(connection, name)
        async with connection.transaction():
            await self._lock(connection, name, decision.expected)
            version = await version_before(connection, self.kind, name)
            await self._count(connection, name, version, decision, rollback=True)
        return await self.version(connection, version, name)

    async def _lock(self, connection: Connection, name: str, expected: int | None) -> None:
        """One change at a time, and only of what its author knows."""
        await connection.execute(_LOCK, self.kind, name)
        if expected is None:
            return
        counts = await self.active(connection, name)
        if counts.version != expected:
            known = await connection.fetchrow(_LOAD, self.kind, name, expected)
            changes = difference(known["document"], counts.document).faults() if known else []
            raise changed_meanwhile(expected, counts.version, counts.author, counts.created_at, changes)

    async def _count(  # noqa: PLR0913  # what an activation is made of
        self,
        connection: Connection,
        name: str,
        version: int,
        decision: Decision,
        *,
        at: datetime | None = None,
        rollback: bool = False,
    ) -> None:
        given = decision.author, at, decision.reason, rollback, decision.announce
        await connection.execute(_ACTIVATE, self.kind, name, version, *given)


class CompiledVersions(Generic[T]):
    """Versions of documents, compiled once in a process: what a version says never changes. At most so many are kept.

    `compiled` makes what is kept out of (name, version, document). A version that may still be taken back is read each
    time, and compiled where it says something else than before.
    """

    def __init__(self, compiled: Callable[[str, int, dict[str, Any]], T], most: int = 1_000) -> None:
        self._compiled = compiled
        self._most = most
        self._kept: dict[tuple[str, int], T] = {}
        self._unsettled: tuple[tuple[str, int, dict[str, Any]], T] | None = None

    async def get(self, connection: Connection, store: DocumentStore, name: str, version: int) -> T:
        """A version, raising NoSuchVersion."""
        if (name, version) in self._kept:
            return self._kept[name, version]
        stored = await store.version(connection, version, name)
        told = name, version, stored.document
        if self._unsettled is not None and self._unsettled[0] == told:
            compiled = self._unsettled[1]
        else:
            compiled = self._compiled(*told)
        if not stored.settled:
            self._unsettled = told, compiled
            return compiled
        while len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[name, version] = compiled
        return compiled


class ActiveDocument(Generic[T]):
    """The active version of a document, compiled once: a look per batch is one small query.

    `compiled` makes the rule set out of (version, document).
    """

    def __init__(self, store: DocumentStore, compiled: Callable[[int, dict[str, Any]], T], name: str = DEFAULT) -> None:
        self.store = store
        self._name = name
        self._versions = CompiledVersions(lambda _, version, document: compiled(version, document), most=8)

    async def current(self, connection: Connection) -> T:
        """What counts now, for the transaction at hand."""
        version = await self.store.active_version(connection, self._name)
        return await self.at_version(connection, version or 0)

    async def at_version(self, connection: Connection, version: int) -> T:
        """Some version, compiled; the last few are kept."""
        return await self._versions.get(connection, self.store, self._name, version)


def _stored(row: asyncpg.Record, active: int | None) -> StoredDocument:
    return StoredDocument(**row, active=row["version"] == active)


def _decision(given: Decision | str) -> Decision:
    return Decision(given) if isinstance(given, str) else given
