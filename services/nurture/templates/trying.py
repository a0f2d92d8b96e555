"""Templates tried before they are saved: what only shows when their parts, MJML, HTML and styles are put together."""

from collections.abc import Iterable, Iterator

from jinja2 import TemplateError

from services.nurture.templates.catalogue import Templates
from services.nurture.templates.check import unfit_parts
from services.nurture.templates.document import Part, StoredTemplate, Template, TemplateRef, Words
from services.nurture.templates.inclusion import with_all_parts
from services.nurture.templates.rendering import CannotRender, Renderer
from shared.db import Connection, Database
from shared.errors import FieldError
from shared.events import ConsentChannel


class Trying:
    """Tries templates without values."""

    def __init__(self, database: Database, renderer: Renderer) -> None:
        self._database = database
        self._renderer = renderer

    async def sends(
        self, connection: Connection, sends: Iterable[tuple[str, ConsentChannel, Template | TemplateRef]]
    ) -> list[FieldError]:
        """What is wrong with what steps send; each comes with its place in the document."""
        templates = Templates(self._database, 0)
        faults: list[FieldError] = []
        for pointer, channel, template in sends:
            if isinstance(template, TemplateRef):
                faults += await self._reference(connection, templates, template, pointer, channel)
            else:
                faults += await self._message(connection, templates, template, f"{pointer}/template")
        return faults

    async def stored(self, connection: Connection, template_id: str, document: StoredTemplate) -> list[FieldError]:
        """What is wrong with a template that is about to count, and with those that take it in."""
        templates = Templates(self._database, 0, instead={template_id: document})
        if document.message is not None:
            return await self._message(connection, templates, document.message, "/message")
        assert document.part is not None, "a template is a message or a part"
        faults = await self._part(connection, templates, document.part)
        if faults:
            return faults
        for name, other in (await templates.current(connection)).items():
            if other.message is not None and template_id in await templates.parts_of(connection, other.message):
                found = await self._message(connection, templates, other.message, "/part")
                faults += [FieldError(one.pointer, f"template {name} would not work: {one.detail}") for one in found]
        return faults

    async def _reference(
        self, connection: Connection, templates: Templates, ref: TemplateRef, pointer: str, channel: ConsentChannel
    ) -> list[FieldError]:
        found = await templates.stored(connection, ref)
        if found is not None and found.message is not None:
            unfit = unfit_parts(found.message, channel, "")
            return [
                FieldError(f"{pointer}/template_id", f"of template {ref.template_id}: {one.detail}") for one in unfit
            ]
        if found is not None:
            return [FieldError(f"{pointer}/template_id", f"{ref.template_id} is a part of templates, not a message")]
        if ref.version is not None and await templates.stored(connection, TemplateRef(ref.template_id)) is not None:
            return [FieldError(f"{pointer}/version", f"template {ref.template_id} has no version {ref.version}")]
        return [FieldError(f"{pointer}/template_id", f"there is no template {ref.template_id}")]

    async def _part(self, connection: Connection, templates: Templates, part: Part) -> list[FieldError]:
        for pointer, body in (
            ("/part", part),
            *((f"/part/languages/{name}", one) for name, one in part.languages.items()),
        ):
            words = Words("", body.html, body.mjml, body.text)
            try:
                with_all_parts(words, await templates.parts_of(connection, words))
            except TemplateError as exc:
                return [FieldError(pointer, exc.message or "it cannot be put together")]
        return []

    async def _message(
        self, connection: Connection, templates: Templates, template: Template, pointer: str
    ) -> list[FieldError]:
        faults = []
        for place, language in _languages(template, pointer):
            try:
                words = await templates.words_by(connection, template, language)
                if words.mjml or words.html:  # reading these can take for ever: not in this process
                    await self._renderer.try_out(words)
            except CannotRender as exc:
                faults.append(FieldError(place, str(exc)))
        return faults


def _languages(template: Template, pointer: str) -> Iterator[tuple[str, str]]:
    yield pointer, template.default_language
    for language in template.languages:
        yield f"{pointer}/languages/{language}", language
