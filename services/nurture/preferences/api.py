"""The preference page over HTTP. No token is needed: the address itself is signed, and only its owner has it."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel

from services.nurture.errors import NoSuchLead
from services.nurture.parts import Parts
from services.nurture.preferences import handlers
from services.nurture.preferences.document import PAGES, PreferenceDocument, checked
from services.nurture.preferences.domain import rows_of
from services.nurture.preferences.handlers import Sender, Visit
from services.nurture.preferences.rendering import gone_page, preference_page
from services.nurture.preferences.words import ENGLISH
from shared.emails import Email
from shared.errors import FieldError, Invalid
from shared.identity import find_by_email
from shared.ids import LeadId
from shared.rules import documents_router
from shared.web import Endpoints, address_of, network_of, requires

SEE_OTHER = 303
LONGEST_AGENT = 300
MOST_FIELDS = 200
WITHOUT_TOKEN: dict[str, Any] = {"security": []}


class ChoiceOut(BaseModel):
    """A purpose on a channel, and whether the person gets it."""

    purpose: str
    channel: str
    on: bool


class PreferencesOut(BaseModel):
    """Where a person's page is, and what stands there."""

    lead_id: str
    url: str
    language: str | None
    paused_until: datetime | None
    choices: list[ChoiceOut]


def preferences_router(parts: Parts) -> APIRouter:
    """The page of each person."""
    router = Endpoints(tags=["preferences"])
    runtime = parts.runtime

    @router.get("/v1/leads/{lead_id}/preferences", dependencies=[Depends(requires("nurture:read"))])
    async def preferences_of_lead(lead_id: str) -> PreferencesOut:
        """The address of a lead's page, to put where the person is known already, and what they chose."""
        async with runtime.database.transaction() as tx:
            person = await handlers.person_at(tx, parts, LeadId(lead_id))
            page = await parts.preferences.current(tx.connection)
        if person is None:
            raise NoSuchLead(f"nothing is known of a lead {lead_id}")
        return PreferencesOut(
            lead_id=person.person_id,
            url=parts.preference_links.address(person.person_id),
            language=(person.fields.get("attributes") or {}).get("language"),
            paused_until=person.paused_until,
            choices=[
                ChoiceOut(purpose=row.purpose, channel=row.channel, on=row.on)
                for row in rows_of(page, person, page.document.default_language)
            ],
        )

    @router.get("/v1/preferences", dependencies=[Depends(requires("nurture:read"))])
    async def preferences_by_address(
        email: Annotated[Email, Query(description="The lead's address")],
    ) -> PreferencesOut:
        """The same of the lead with this address."""
        async with runtime.database.reading() as connection:
            lead_id = await find_by_email(connection, runtime.ids, email)
        return await preferences_of_lead(lead_id)

    @router.get(
        "/v1/preferences/{token}",
        response_class=HTMLResponse,
        summary="A person's page",
        openapi_extra=WITHOUT_TOKEN,
    )
    async def show(
        request: Request,
        token: str,
        lang: Annotated[str | None, Query(max_length=10)] = None,
        done: Annotated[str | None, Query(pattern="^(done|left)$")] = None,
    ) -> Response:
        lead_id = parts.preference_links.read(token)
        async with runtime.database.transaction() as tx:
            page = await parts.preferences.current(tx.connection)
            person = await handlers.person_at(tx, parts, lead_id) if lead_id else None
            now = await parts.present(tx.connection)
        accepted = _accepted(request)
        if person is None:
            return gone_page(page.language_for(lang, accepted))
        chosen = (person.fields.get("attributes") or {}).get("language")
        language = page.language_for(lang, chosen if isinstance(chosen, str) else None, accepted)
        paused = person.paused_until is not None and person.paused_until > now
        return preference_page(page, person, language, done, paused=paused)

    @router.post(
        "/v1/preferences/{token}",
        status_code=SEE_OTHER,
        response_class=RedirectResponse,
        summary="What a person changes: `do` is save, pause (with `days`), resume or leave",
        openapi_extra=WITHOUT_TOKEN,
    )
    async def change(request: Request, token: str) -> Response:
        fields = await _fields(request)
        lead_id = parts.preference_links.read(token)
        asked = next(iter(fields.get("do", ())), "")
        if asked not in ("save", "pause", "resume", "leave"):
            raise Invalid("look at /do", [FieldError("/do", "is one of save, pause, resume, leave")])
        async with runtime.database.transaction() as tx:
            page = await parts.preferences.current(tx.connection)
            person = await handlers.person_at(tx, parts, lead_id) if lead_id else None
            shown = page.language_for(next(iter(fields.get("shown", ())), None), _accepted(request))
            if person is None:
                return gone_page(shown)
            network = network_of(address_of(request, parts.settings.proxies))
            agent = request.headers.get("user-agent", "")[:LONGEST_AGENT] or None
            came_by = parts.preference_links.message_of(token, lead_id) if lead_id else None
            visit = Visit(page, shown, Sender(network, agent), came_by)
            language = next(iter(fields.get("language", ())), None)
            match asked:
                case "save":
                    await handlers.save(
                        tx,
                        parts,
                        person.person_id,
                        visit,
                        shown_on=set(fields.get("was", ())),
                        ticked=set(fields.get("on", ())),
                        language=language,
                    )
                    shown = page.language_for(language, shown)
                case "pause":
                    days = next(iter(fields.get("days", ())), "")
                    if days not in map(str, page.document.pause_days):
                        possible = ", ".join(map(str, page.document.pause_days))
                        raise Invalid("look at /days", [FieldError("/days", f"is one of {possible}")])
                    await handlers.pause(tx, parts, person.person_id, int(days))
                case "resume":
                    await handlers.end_pause(tx, parts, person.person_id)
                case _:
                    await handlers.leave(tx, parts, person.person_id, visit)
        answer = "left" if asked == "leave" else "done"
        return RedirectResponse(f"{token}?lang={shown}&done={answer}", SEE_OTHER)

    return router


def preference_document_router(parts: Parts) -> APIRouter:
    """What the page offers: read, saved, listed and activated as other documents are."""
    runtime = parts.runtime
    return documents_router(
        runtime.database,
        runtime.secrets,
        PAGES,
        validate=checked,
        shape=PreferenceDocument,
        simulate=None,
        path="/v1/preference-page",
    )


async def _fields(request: Request) -> dict[str, list[str]]:
    """The form, as browsers send it without a script."""
    try:
        return parse_qs((await request.body()).decode(), max_num_fields=MOST_FIELDS)
    except ValueError as exc:
        raise Invalid("send the form urlencoded", [FieldError("", "is no urlencoded form")]) from exc


def _accepted(request: Request) -> str:
    accepted = request.headers.get("accept-language", "")[:2].lower()
    return accepted if accepted.isalpha() else ENGLISH
