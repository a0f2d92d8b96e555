"""Where people fill in forms: no token, pages for people, problems for front ends of one's own."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from services.capture.deciding import decided
from services.capture.errors import NoSuchConfirmation, NoSuchForm
from services.capture.forms import queries
from services.capture.forms.confirming import confirm, to_confirm, words_in
from services.capture.forms.document import languages_of
from services.capture.forms.domain import language_for, trap_of
from services.capture.forms.inputs import OpenForm, ReceivedOut
from services.capture.forms.queries import FormRow
from services.capture.hosted.receiving import Door, Filled, fields_of, wants_json
from services.capture.hosted.rendering import embedding_script, message_page, thanks, thanks_page
from services.capture.hosted.words import ENGLISH, word
from services.capture.lately import Lately
from services.capture.settings import CaptureSettings
from services.capture.sites.api import SCRIPT
from services.capture.sites.collecting import cross_origin
from shared.db import Tx
from shared.errors import Rejected, Unavailable
from shared.personal import PersonErased
from shared.service import Runtime
from shared.web import Endpoints, address_of, network_of, rejected, unavailable

OK = 200
SEE_OTHER = 303
LONGEST_AGENT = 300
PUBLIC = "public, max-age=300"


def hosted_router(runtime: Runtime, settings: CaptureSettings) -> APIRouter:
    """The pages of forms, what is sent with them, and the links that confirm."""
    router = Endpoints(tags=["hosted forms"], default_response_class=HTMLResponse)
    base = f"{runtime.settings.public_url.rstrip('/')}/capture"
    door = Door(runtime, settings, base)

    async def stored(form_id: str) -> FormRow:
        async with runtime.database.reading() as connection:
            row = await queries.form(connection, form_id)
        if row is None:
            raise NoSuchForm("there is no such form")
        return row

    known = Lately(stored, fresh_s=0.0)  # always as it is now, except while the database is away

    @router.get("/f/{form_id}.js", response_class=Response, responses=SCRIPT, summary="The script that embeds a form")
    async def embed(form_id: str) -> Response:
        row = await known.get(form_id.lower())
        script = embedding_script(row.form_id, row.document)
        headers = {"Cache-Control": PUBLIC, "Cross-Origin-Resource-Policy": "cross-origin"}
        return Response(script, headers=headers, media_type="text/javascript")

    @router.get("/f/{form_id}/thanks", summary="What people see when a form was sent")
    async def thank(request: Request, form_id: str) -> Response:
        try:
            row = await known.get(form_id.lower())
        except NoSuchForm:
            return _gone(request)
        query = request.query_params
        language = language_for(row.document, query.get("lang"), request.headers.get("accept-language"))
        return thanks_page(row.form_id, row.document, language, asked="confirm" in query, embedded="embed" in query)

    @router.get("/f/{form_id}", summary="A form, as a page or (Accept: application/json) as data")
    async def show(request: Request, form_id: str) -> Response:
        try:
            row = await known.get(form_id.lower())
        except NoSuchForm as exc:
            return rejected(exc) if wants_json(request) else _gone(request)
        filled = door.opened(row, request)
        if not wants_json(request):
            return door.page(filled)
        out = OpenForm(
            form_id=row.form_id,
            version=row.version,
            language=filled.language,
            languages=list(languages_of(row.document)),
            document=row.document.model_dump(mode="json", exclude_none=True),
            token=door.token(row),
            work_bits=settings.form_work_bits,
            trap=trap_of(row.document),
        )
        return _json(out.model_dump_json(), 200, cross_origin(row.document.origins, request))

    @router.options("/f/{form_id}", include_in_schema=False)
    async def may_send(request: Request, form_id: str) -> Response:
        row = await known.get(form_id.lower())
        return Response(status_code=204, headers=cross_origin(row.document.origins, request))

    @router.post("/f/{form_id}", status_code=SEE_OTHER, summary="Send a form: urlencoded, multipart or JSON")
    async def send(request: Request, form_id: str) -> Response:
        try:
            row = await known.get(form_id.lower())
        except NoSuchForm as exc:
            return rejected(exc) if wants_json(request) else _gone(request)
        answer = await _taken(request, row)
        answer.headers.update(cross_origin(row.document.origins, request))
        return answer

    async def _taken(request: Request, row: FormRow) -> Response:
        in_json = wants_json(request)
        try:
            fields, in_json = await fields_of(request)
            filled = await door.filled(row, request, fields)
        except Rejected as exc:
            return rejected(exc)
        try:
            door.spend(row.form_id, request)
            if fault := door.refusal(filled, in_json=in_json):
                return fault
            return await _submitted(request, filled, in_json=in_json)
        except (Rejected, Unavailable) as exc:
            if in_json:
                return rejected(exc) if isinstance(exc, Rejected) else unavailable(exc)
            return door.again(filled, exc)

    async def _submitted(request: Request, filled: Filled, *, in_json: bool) -> Response:
        async def make(tx: Tx) -> Response:
            taken = await door.submit(filled, request, tx)
            title, text = thanks(filled.document, filled.language)
            out = ReceivedOut(
                submission_id=taken.submission_id,
                title=title,
                text=text,
                redirect=filled.document.redirect,
                confirmation_sent=taken.asked,
            )
            return _json(out.model_dump_json(), OK)

        answer = await decided(runtime.database, request, await request.body(), make)
        if in_json or answer.status_code != OK:
            return answer
        asked = ReceivedOut.model_validate_json(bytes(answer.body)).confirmation_sent
        return RedirectResponse(door.next_address(filled, asked=asked), SEE_OTHER)

    @router.get("/confirm/{token}", summary="What a link confirms: a page with a button, for scanners open every link")
    async def ask(request: Request, token: str) -> Response:
        language = _language(request)
        try:
            async with runtime.database.reading() as connection:
                found = await to_confirm(connection, token, runtime, runtime.clock.now())
                document = await queries.form_at(connection, found.form_id, found.version)
        except NoSuchConfirmation:
            return _lapsed(language)
        words, read_in = words_in(found, runtime)
        language = read_in or language
        if found.confirmed_at is not None:
            return _confirmed(language)
        return message_page(
            word("confirm_title", language),
            [word("confirm_text", language)],
            language,
            form_id=found.form_id,
            document=document,
            quotes=[each.evidence.text for each in words if each.evidence and each.evidence.text],
            button=word("confirm", language),
        )

    @router.post("/confirm/{token}", summary="Confirm: consent is granted from now on. As often as wanted")
    async def confirm_consent(request: Request, token: str) -> Response:
        language = _language(request)
        network = network_of(address_of(request, settings.proxies))
        user_agent = request.headers.get("user-agent", "")[:LONGEST_AGENT] or None
        try:
            async with runtime.database.transaction() as tx:
                await confirm(token, network, user_agent, runtime.clock.now(), tx, runtime)
        except (NoSuchConfirmation, PersonErased):
            return _lapsed(language)
        return _confirmed(language)

    return router


def _language(request: Request) -> str:
    accepted = request.headers.get("accept-language", "")[:2].lower()
    return accepted if accepted.isalpha() else ENGLISH


def _gone(request: Request) -> Response:
    language = _language(request)
    return message_page(word("gone_title", language), [word("gone", language)], language, status=404)


def _lapsed(language: str) -> Response:
    return message_page(word("lapsed_title", language), [word("lapsed", language)], language, status=404)


def _confirmed(language: str) -> Response:
    return message_page(word("confirmed_title", language), [word("confirmed", language)], language)


def _json(content: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, headers, "application/json")
