"""Templates over HTTP: written, read, saved anew, switched, compared; previewed, their links checked."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, ValidationError, model_validator

from services.nurture.errors import NoSuchSequence, NoSuchStep, NoSuchTemplate, TemplateExists
from services.nurture.parts import Parts
from services.nurture.sequences.domain import SendStep
from services.nurture.templates import handlers, queries
from services.nurture.templates.catalogue import TEMPLATES, Templates
from services.nurture.templates.check import LEAD_FIELDS, faults_of_stored
from services.nurture.templates.document import Language, StoredTemplate, Template, TemplateId, TemplateRef, Utm
from services.nurture.templates.languages import language_of
from services.nurture.templates.probing import probe_all
from services.nurture.templates.rendering import CannotRender
from services.nurture.templates.trying import Trying
from shared.consents import MARKETING, needs_consent
from shared.db import Connection, Tx
from shared.emails import Email
from shared.errors import FieldError, Invalid
from shared.ids import SequenceId, new_id
from shared.outbound import Outbound, PrivateHosts, trusted_hosts
from shared.rules import Decision, InvalidDocument, NoSuchVersion, StoredDocument, difference
from shared.web import Endpoints, Input, Limit, Page, Principal, idempotent, invalid, make_cursor, read_cursor, requires

NEWEST = 2**31 - 1
Version = Annotated[int, Field(ge=1, le=NEWEST)]
VersionQuery = Annotated[int | None, Query(ge=1, le=NEWEST)]
Id = Annotated[str, Path(max_length=200)]
Expected = Annotated[int | None, Query(ge=1, le=NEWEST, description="The version that is known to count: else 409")]


class TemplateIn(StoredTemplate):
    """A new template. Its id is what steps and other templates name it by; made when not given."""

    template_id: TemplateId | None = None


class TemplateOut(BaseModel):
    """One version of a template; `active` says that it is the one that counts."""

    template_id: str
    version: int
    active: bool
    author: str
    created_at: datetime
    document: dict[str, Any]


class SwitchIn(Input):
    """Which version counts from now on, and why."""

    version: Version
    reason: str = Field(default="", max_length=1_000)


class ReasonIn(Input):
    """Why the version that counts now is taken back."""

    reason: str = Field(default="", max_length=1_000)


class PreviewIn(Input):
    """For whom: a lead by id or address, or one that is imagined; and of a template, a version or a document."""

    lead_id: str | None = Field(default=None, max_length=100)
    email: Email | None = None
    lead: dict[str, Any] | None = None
    language: Language | None = Field(default=None, description="Instead of the lead's own")
    version: Version | None = None
    document: dict[str, Any] | None = Field(default=None, description="Not saved yet; instead of a version")

    @model_validator(mode="after")
    def _is_clear(self) -> "PreviewIn":
        if sum(one is not None for one in (self.lead_id, self.email, self.lead)) > 1:
            raise ValueError("name one lead: lead_id, email or lead")
        if self.version is not None and self.document is not None:
            raise ValueError("send either version or document")
        return self


class WarningOut(BaseModel):
    """Something that may be wrong with a message."""

    code: str
    detail: str


class PreviewOut(BaseModel):
    """A message as it would be; `fault` says why there would be none. Sizes are bytes; links stand as written."""

    language: str
    subject: str
    text: str
    html: str
    html_bytes: int
    text_bytes: int
    links: list[str]
    warnings: list[WarningOut]
    fault: str | None


class LinkOut(BaseModel):
    """A link, and what came of following it; `problem` is null when it leads to a page."""

    url: str
    status: int | None
    leads_to: str | None
    problem: str | None


class ChecksOut(BaseModel):
    """The links of a message, followed; and what there is to say about the message."""

    links: list[LinkOut]
    warnings: list[WarningOut]
    fault: str | None


class TemplateDifferenceOut(BaseModel):
    """What must happen to version `from` to make version `to` of it."""

    from_version: int = Field(serialization_alias="from")
    to_version: int = Field(serialization_alias="to")
    same: bool
    added: list[dict[str, Any]]
    removed: list[dict[str, Any]]
    changed: list[dict[str, Any]]
    moved: list[dict[str, Any]]
    values: list[dict[str, Any]]
    patch: list[dict[str, Any]]


def templates_router(parts: Parts) -> APIRouter:
    """The life of templates, and their previews."""
    router = Endpoints(tags=["templates"])
    runtime = parts.runtime
    database = runtime.database
    may_read = Depends(requires("nurture:read"))
    may_write = requires("nurture:write")
    trying = Trying(database, parts.renderer)
    private = PrivateHosts(trusted_hosts(runtime.settings))

    @router.post("/v1/templates", status_code=201, response_model=TemplateOut)
    async def create_template(
        body: TemplateIn, request: Request, principal: Annotated[Principal, Depends(may_write)]
    ) -> Response:
        """Save a new template: a `message` that steps send, or a `part` that others take in."""
        template_id = body.template_id or new_id()
        document = _checked(body.model_dump(exclude={"template_id"}, exclude_none=True))

        async def make(tx: Tx) -> Response:
            await queries.lock(tx.connection, template_id)
            if await TEMPLATES.active_version(tx.connection, template_id) is not None:
                raise TemplateExists(f"there is a template {template_id}; PUT saves a new version of it")
            await try_out(tx.connection, template_id, document)
            saved = await TEMPLATES.save(tx.connection, document.as_json(), principal.subject, template_id)
            return Response(_out(template_id, saved).model_dump_json(), 201, media_type="application/json")

        return await idempotent(database, request, await request.body(), make)

    @router.get("/v1/templates", dependencies=[may_read])
    async def list_templates(limit: Limit = 50, cursor: str | None = None) -> Page[TemplateOut]:
        """All templates, each at the version that counts, in the order of their ids."""
        after = str(read_cursor(runtime.secrets, "templates", cursor) or "")
        async with database.reading() as connection:
            found = await queries.listed(connection, after, limit + 1)
            items = [_out(one, await TEMPLATES.active(connection, one)) for one in found[:limit]]
        more = make_cursor(runtime.secrets, "templates", found[limit - 1]) if len(found) > limit else None
        return Page(items=items, next_cursor=more)

    @router.post("/v1/templates:preview", dependencies=[may_read])
    async def preview_document(body: PreviewIn) -> PreviewOut:
        """A template that is not saved, as a lead would get it."""
        if body.document is None:
            raise Invalid("look at /document", [FieldError("/document", "is missing: the template to look at")])
        return _preview_out(await shown(body, await message_of(None, body)))

    @router.get("/v1/templates/{template_id}:diff", dependencies=[may_read])
    async def template_differences(
        template_id: Id,
        from_version: Annotated[int | None, Query(alias="from", ge=1, le=NEWEST)] = None,
        to_version: Annotated[int | None, Query(alias="to", ge=1, le=NEWEST)] = None,
    ) -> TemplateDifferenceOut:
        """What is different between two versions: `from` the one that counts to the newest, unless said otherwise."""
        async with database.reading() as connection:
            one = await version_of(connection, template_id, from_version)
            newest = (await TEMPLATES.versions(connection, template_id, limit=1))[0].version
            other = await version_of(connection, template_id, to_version or newest)
        found = difference(one.document, other.document).as_json()
        return TemplateDifferenceOut(from_version=one.version, to_version=other.version, **found)

    @router.get("/v1/templates/{template_id}", dependencies=[may_read])
    async def get_template(template_id: Id, version: VersionQuery = None) -> TemplateOut:
        """A template at the version that counts, or at another one."""
        async with database.reading() as connection:
            return _out(template_id, await version_of(connection, template_id, version))

    @router.put("/v1/templates/{template_id}")
    async def save_template(  # what a request is made of
        body: StoredTemplate,
        template_id: Id,
        principal: Annotated[Principal, Depends(may_write)],
        draft: Annotated[bool, Query(description="Only save it")] = False,
        expected: Expected = None,
    ) -> TemplateOut:
        """Save a new version. Messages written from now on follow it, unless their step names a version."""
        document = _checked(body.model_dump(exclude_none=True))
        async with database.transaction() as tx:
            await version_of(tx.connection, template_id, None)
            await try_out(tx.connection, template_id, document)
            decision = Decision(principal.subject, expected=expected)
            saved = await TEMPLATES.save(tx.connection, document.as_json(), decision, template_id, draft=draft)
        return _out(template_id, saved)

    @router.get("/v1/templates/{template_id}/versions", dependencies=[may_read])
    async def template_versions(template_id: Id, limit: Limit = 50, cursor: str | None = None) -> Page[TemplateOut]:
        """All versions of a template, the newest first."""
        before = read_cursor(runtime.secrets, "template-versions", cursor) or NEWEST
        async with database.reading() as connection:
            await version_of(connection, template_id, None)
            found = await TEMPLATES.versions(connection, template_id, before=before, limit=limit + 1)
        last = found[limit - 1].version if len(found) > limit else None
        more = make_cursor(runtime.secrets, "template-versions", last) if last else None
        return Page(items=[_out(template_id, stored) for stored in found[:limit]], next_cursor=more)

    @router.post("/v1/templates/{template_id}:activate")
    async def activate_template(
        template_id: Id, body: SwitchIn, principal: Annotated[Principal, Depends(may_write)]
    ) -> TemplateOut:
        """Switch to a version, also back."""

        async def switch(tx: Tx) -> StoredDocument:
            decision = Decision(principal.subject, body.reason)
            return await TEMPLATES.activate(tx.connection, body.version, decision, template_id)

        return await switched(template_id, switch)

    @router.post("/v1/templates/{template_id}:rollback")
    async def roll_back_template(
        template_id: Id, principal: Annotated[Principal, Depends(may_write)], body: ReasonIn | None = None
    ) -> TemplateOut:
        """Go back to the version that counted before; again goes back one more."""

        async def switch(tx: Tx) -> StoredDocument:
            decision = Decision(principal.subject, body.reason if body else "")
            return await TEMPLATES.roll_back(tx.connection, decision, template_id)

        return await switched(template_id, switch)

    @router.post("/v1/templates/{template_id}:preview", dependencies=[may_read])
    async def preview_template(template_id: Id, body: PreviewIn) -> PreviewOut:
        """A template as a lead would get it: what is missing stands there by its name, and is among the warnings."""
        return _preview_out(await shown(body, await message_of(template_id, body)))

    @router.post("/v1/templates/{template_id}:check", dependencies=[Depends(may_write)])
    async def check_template(template_id: Id, body: PreviewIn | None = None) -> ChecksOut:
        """Follow the links of a message, each by a HEAD or a GET, wherever they lead in the public internet."""
        asked = body or PreviewIn()
        found = await shown(asked, await message_of(template_id, asked))
        async with Outbound.of(runtime.settings) as outbound:
            probes = await probe_all(outbound, private, found.links)
        links = [LinkOut(**asdict(probe)) for probe in probes]
        return ChecksOut(links=links, warnings=_warnings(found), fault=found.fault)

    @router.post("/v1/sequences/{sequence_id}/steps/{step_id}:preview", dependencies=[may_read])
    async def preview_step(sequence_id: Id, step_id: Id, body: PreviewIn) -> PreviewOut:
        """What a step of a sequence sends, as a lead would get it."""
        if body.document is not None:
            raise Invalid("look at /document", [FieldError("/document", "is for templates; a step has its own")])
        async with database.reading() as connection:
            try:
                version = body.version or await sequence_version(connection, sequence_id)
                plan = await parts.catalogue.plan(connection, SequenceId(sequence_id), version)
            except NoSuchVersion as exc:
                raise NoSuchSequence(f"there is no sequence {sequence_id}, or no such version of it") from exc
        step = plan.steps.get(step_id)
        if not isinstance(step, SendStep):
            raise NoSuchStep(f"sequence {sequence_id} has no step {step_id} that sends a message")
        leave = needs_consent(plan.purpose)
        found = await shown(body, step.template, sequence=plan.name, utm=plan.utm, needs_leave=leave)
        return _preview_out(found)

    async def sequence_version(connection: Connection, sequence_id: str) -> int:
        return await parts.catalogue.current_version(connection, SequenceId(sequence_id)) or 0

    async def version_of(connection: Connection, template_id: str, version: int | None) -> StoredDocument:
        try:
            if version is None:
                return await TEMPLATES.active(connection, template_id)
            return await TEMPLATES.version(connection, version, template_id)
        except NoSuchVersion as exc:
            raise NoSuchTemplate(f"there is no template {template_id}, or no such version of it") from exc

    async def try_out(connection: Connection, template_id: str, document: StoredTemplate) -> None:
        if faults := await trying.stored(connection, template_id, document):
            raise InvalidDocument(f"the template has {len(faults)} faults", errors=faults)

    async def switched(template_id: str, switch: Callable[[Tx], Awaitable[StoredDocument]]) -> TemplateOut:
        """The version that was switched to, if those that take it in work with it."""
        async with database.transaction() as tx:
            await version_of(tx.connection, template_id, None)
            try:
                stored = await switch(tx)
            except NoSuchVersion as exc:
                raise NoSuchTemplate(exc.detail) from exc
            await try_out(tx.connection, template_id, StoredTemplate.model_validate(stored.document))
            return _out(template_id, stored)

    async def message_of(template_id: str | None, body: PreviewIn) -> Template | TemplateRef:
        """The message that is looked at."""
        if body.document is None:
            assert template_id is not None, "an unsaved document has none"
            async with database.reading() as connection:
                stored = await version_of(connection, template_id, body.version)
            document = StoredTemplate.model_validate(stored.document)
        else:
            document = _checked(body.document, "/document")
        if document.message is None:
            raise Invalid("this is a part", [FieldError("", "is a part of templates; look at a message with it")])
        return document.message

    async def shown(
        body: PreviewIn,
        template: Template | TemplateRef,
        *,
        sequence: str = "…",
        utm: Utm | None = None,
        needs_leave: bool = needs_consent(MARKETING),
    ) -> handlers.Preview:
        async with database.reading() as connection:
            lead = await handlers.lead_by(connection, parts, body.lead_id, body.email)
            lead = _imagined(body.lead) if lead is None else lead
            language = body.language or language_of(lead)
            try:
                words = await Templates(database, 0).words_by(connection, template, language)
            except CannotRender as exc:
                return handlers.Preview(language or "", fault=str(exc))
        return await handlers.preview(parts, words, lead, sequence=sequence, utm=utm, needs_leave=needs_leave)

    return router


def _checked(document: dict[str, Any], pointer: str = "") -> StoredTemplate:
    try:
        stored = StoredTemplate.model_validate(document)
    except ValidationError as exc:
        faults = [FieldError(f"{pointer}{one.pointer}", one.detail) for one in invalid(exc).errors]
        raise Invalid(f"look at {', '.join(one.pointer or 'the body' for one in faults)}", faults) from exc
    if found := faults_of_stored(stored):
        placed = [FieldError(f"{pointer}{one.pointer}", one.detail) for one in found]
        raise InvalidDocument(f"the template has {len(placed)} faults", errors=placed)
    return stored


def _imagined(lead: dict[str, Any] | None) -> dict[str, Any]:
    unknown = [name for name in lead or {} if name not in LEAD_FIELDS]
    if unknown:
        known = ", ".join(sorted(LEAD_FIELDS))
        raise Invalid(
            "look at /lead", [FieldError(f"/lead/{name}", f"is not known; there are {known}") for name in unknown]
        )
    return lead or {}


def _warnings(found: handlers.Preview) -> list[WarningOut]:
    return [WarningOut(code=one.code, detail=one.detail) for one in found.warnings]


def _preview_out(found: handlers.Preview) -> PreviewOut:
    return PreviewOut(
        language=found.language,
        subject=found.subject,
        text=found.text,
        html=found.html,
        html_bytes=len(found.html.encode()),
        text_bytes=len(found.text.encode()),
        links=list(found.links),
        warnings=_warnings(found),
        fault=found.fault,
    )


def _out(template_id: str, stored: StoredDocument) -> TemplateOut:
    return TemplateOut(
        template_id=template_id,
        version=stored.version,
        active=stored.active,
        author=stored.author,
        created_at=stored.created_at,
        document=stored.document,
    )
