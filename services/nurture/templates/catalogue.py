"""The stored templates: read once per version, put together with their parts for the language of a person."""

import time
from collections.abc import Mapping

from jinja2 import TemplateError

from services.nurture.templates import queries
from services.nurture.templates.document import (
    Bodies,
    Part,
    StoredTemplate,
    Template,
    TemplateRef,
    Words,
    in_language,
)
from services.nurture.templates.inclusion import parts_named, with_all_parts
from services.nurture.templates.rendering import CannotRender
from shared.db import Connection, Database
from shared.rules import CompiledVersions, DocumentStore, NoSuchVersion

TEMPLATES = DocumentStore("template")
FRESH_FOR_S = 1.0
"""How long a process that sends goes by the versions it has read, so that messages in a row do not each ask."""


class Templates:
    """Templates by id and version. A version never changes; which one counts may, `fresh_for_s` after it did.

    `instead` are documents that are tried before they are saved.
    """

    def __init__(
        self,
        database: Database,
        fresh_for_s: float = FRESH_FOR_S,
        instead: Mapping[str, StoredTemplate] | None = None,
    ) -> None:
        self._database = database
        self._instead = instead or {}
        self._fresh_for_s = fresh_for_s
        self._stored = CompiledVersions(lambda *stored: StoredTemplate.model_validate(stored[-1]))
        self._current: Mapping[str, int] = {}
        self._read_at = float("-inf")

    async def words(self, template: Template | TemplateRef, language: str | None) -> Words:
        """The message for somebody who speaks a language, its parts taken in. Raises CannotRender."""
        if isinstance(template, Template) and not _takes_in(template):
            return in_language(template, language)
        async with self._database.reading() as connection:
            return await self.words_by(connection, template, language)

    async def words_by(self, connection: Connection, template: Template | TemplateRef, language: str | None) -> Words:
        """The same, by a connection at hand."""
        message = template if isinstance(template, Template) else await self._message(connection, template)
        words = in_language(message, language)
        try:
            return with_all_parts(words, await self.parts_of(connection, words))
        except TemplateError as exc:
            raise CannotRender(exc.message or "it cannot be put together") from exc

    async def stored(self, connection: Connection, ref: TemplateRef) -> StoredTemplate | None:
        """A stored template; None where there is no such version, or no such template."""
        if ref.version is None and ref.template_id in self._instead:
            return self._instead[ref.template_id]
        version = ref.version or (await self._versions(connection)).get(ref.template_id)
        if version is None:
            return None
        try:
            return await self._stored.get(connection, TEMPLATES, ref.template_id, version)
        except NoSuchVersion:
            return None

    async def current(self, connection: Connection) -> dict[str, StoredTemplate]:
        """All templates at the version that counts."""
        found = {name: await self.stored(connection, TemplateRef(name)) for name in await self._versions(connection)}
        return {name: document for name, document in found.items() if document is not None}

    async def parts_of(self, connection: Connection, bodies: Bodies | Words) -> dict[str, Part]:
        """All parts that a template takes in, also by way of others. Raises TemplateError."""
        found: dict[str, Part] = {}
        seen: set[str] = set()
        todo = parts_named(bodies)
        while todo - seen:
            name = (todo - seen).pop()
            seen.add(name)
            stored = await self.stored(connection, TemplateRef(name))
            if stored is not None and stored.part is not None:
                found[name] = stored.part
                todo |= parts_named(stored.part)
        return found

    async def _message(self, connection: Connection, ref: TemplateRef) -> Template:
        found = await self.stored(connection, ref)
        if found is None or found.message is None:
            raise CannotRender(f"there is no template {ref.template_id} that is a message, or no such version of it")
        return found.message

    async def _versions(self, connection: Connection) -> Mapping[str, int]:
        now = time.monotonic()
        if now - self._read_at >= self._fresh_for_s:
            self._current = await queries.current_versions(connection)
            self._read_at = now
        return self._current


def _takes_in(bodies: Bodies) -> bool:
    try:
        return bool(parts_named(bodies))
    except TemplateError as exc:
        raise CannotRender(exc.message or "the template cannot be read") from exc
