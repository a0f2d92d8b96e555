"""From a request to what somebody filled in: read, checked, and shown again where something is wrong."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

import orjson
from python_multipart.exceptions import FormParserError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from services.capture.forms import queries
from services.capture.forms.document import FormDocument
from services.capture.forms.domain import (
    LONGEST_CONTEXT,
    Context,
    FormToken,
    Signs,
    Values,
    context_of,
    language_for,
    read_answers,
    suspicions,
    trap_of,
    work_is_done,
)
from services.capture.forms.handlers import Submission, Taken, submit
from services.capture.forms.queries import FormRow
from services.capture.forms.tokens import FormTokens
from services.capture.hosted.rendering import Shown, form_page, sentence
from services.capture.reading import refuse_bad_text
from services.capture.settings import CaptureSettings
from services.capture.visitors import Allowance
from shared.db import Tx
from shared.errors import FieldError, Invalid, Malformed, QuotaExceeded, Rejected, TooLarge, Unavailable
from shared.ids import new_id
from shared.service import Runtime
from shared.web import address_of, network_of, rejected

LARGEST = 131_072
MOST_FIELDS = 400
LONGEST_AGENT = 300
JSON = "application/json"
_EXACT = 2.0**53  # up to here doubles hold every whole number
CARRIED = ("_url", "_referrer", "_visitor", "_session_url", "_session_referrer", "_lang", "_embed")
OPENING = {"_url": "url", "_referrer": "referrer", "_lang": "lang", "_embed": "embed"}


class UnknownBody(Rejected):
    """A form was sent in a way that no browser sends it."""

    slug = "capture/unknown-form-body"
    status = 415
    title = "The form cannot be read"


@dataclass(frozen=True, slots=True)
class Filled:
    """A form, as somebody sees it or has sent it."""

    row: FormRow
    document: FormDocument
    version: int
    language: str
    values: Values
    context: Context
    token: FormToken | None = None
    carried: Mapping[str, str] = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        """Whether it stands in another page."""
        return bool(self.carried.get("_embed"))


def wants_json(request: Request) -> bool:
    """Whether a front end of one's own asks."""
    sent = request.headers.get("content-type", "")
    accepted = request.headers.get("accept", "")
    return sent.startswith(JSON) or (JSON in accepted and "text/html" not in accepted)


async def fields_of(request: Request) -> tuple[dict[str, list[str]], bool]:
    """What was sent, by name, and whether as JSON. Raises TooLarge, Malformed, Invalid, UnknownBody."""
    body = await request.body()
    if len(body) > LARGEST:
        raise TooLarge(f"a form has at most {LARGEST} bytes")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        return _json_fields(body), True
    if kind == "multipart/form-data":
        return await _multipart_fields(request), wants_json(request)
    if kind in ("application/x-www-form-urlencoded", ""):
        try:
            pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
        except ValueError as exc:
            raise Malformed(f"a form has at most {MOST_FIELDS} fields") from exc
        return _by_name(pairs), wants_json(request)
    raise UnknownBody("send application/x-www-form-urlencoded, multipart/form-data or application/json")


async def _multipart_fields(request: Request) -> dict[str, list[str]]:
    try:
        async with request.form(max_files=0, max_fields=MOST_FIELDS) as form:
            return _by_name([(name, value) for name, value in form.multi_items() if isinstance(value, str)])
    except (HTTPException, FormParserError) as exc:
        raise Malformed("the multipart body cannot be read; files are not taken") from exc


def _json_fields(body: bytes) -> dict[str, list[str]]:
    refuse_bad_text(body)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as exc:  # a number beyond all bounds
        raise Malformed("the body is not valid JSON", [FieldError("", "is not valid JSON")]) from exc
    if not isinstance(content, dict) or len(content) > MOST_FIELDS:
        raise Malformed("send one object with the answers by the names of the fields")
    fields: dict[str, list[str]] = {}
    for name, value in content.items():
        given = value if isinstance(value, list) else [value]
        if any(isinstance(each, dict | list) for each in given):
            raise Invalid(f"look at /{name}", [FieldError(f"/{name}", "is not a text, a number, or a list of texts")])
        fields[name] = [text for each in given if (text := _text(each)) is not None]
    return fields


def _text(value: object) -> str | None:
    match value:
        case None | False:
            return None
        case True:
            return "on"
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
        case _:
            return str(value)


def _by_name(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


class Door:
    """What every request to a form goes through."""

    def __init__(self, runtime: Runtime, settings: CaptureSettings, base: str) -> None:
        self._runtime = runtime
        self._settings = settings
        self._base = base
        self._tokens = FormTokens(runtime.secrets)
        self._posts = Allowance(at_once=settings.form_posts_at_once, a_second=settings.form_posts_a_second)
        self._unproven = Allowance(at_once=settings.form_unproven_at_once, a_second=settings.form_unproven_a_second)

    def token(self, row: FormRow) -> str:
        """A token for a form that is shown now."""
        return self._tokens.form_token(row.form_id, row.version, self._runtime.clock.now())

    def opened(self, row: FormRow, request: Request) -> Filled:
        """A form that somebody opens; answers may stand in the address, and so may the page that it stands in."""
        query = request.query_params
        carried = {name: query[key][:LONGEST_CONTEXT] for name, key in OPENING.items() if query.get(key)}
        if "_url" not in carried:
            address = f"{self._base}/f/{row.form_id}"
            carried["_url"] = f"{address}?{request.url.query}"[:LONGEST_CONTEXT] if request.url.query else address
            if referrer := request.headers.get("referer"):
                carried.setdefault("_referrer", referrer[:LONGEST_CONTEXT])
        asked = {each.id for each in row.document.fields}
        return Filled(
            row=row,
            document=row.document,
            version=row.version,
            language=language_for(row.document, query.get("lang"), request.headers.get("accept-language")),
            values={name: query.getlist(name) for name in query if name in asked},
            context=Context(),
            carried=carried,
        )

    async def filled(self, row: FormRow, request: Request, fields: Values) -> Filled:
        """A form that was sent: of the version that people had before them."""
        token = self._tokens.read_form_token(row.form_id, next(iter(fields.get("_token", ())), ""))
        document, version = row.document, row.version
        if token is not None and token.version != row.version:
            async with self._runtime.database.reading() as connection:
                document = await queries.form_at(connection, row.form_id, token.version) or row.document
            version = token.version
        lang = next(iter(fields.get("_lang", ())), None)
        return Filled(
            row=row,
            document=document,
            version=version,
            language=language_for(document, lang, request.headers.get("accept-language")),
            values=fields,
            context=context_of(fields),
            token=token,
            carried={name: fields[name][0][:LONGEST_CONTEXT] for name in CARRIED if fields.get(name)},
        )

    def spend(self, form_id: str, request: Request) -> None:
        """Take a submission from an address. Raises QuotaExceeded."""
        self._posts.spend(form_id, address_of(request, self._settings.proxies), time.monotonic())

    def refusal(self, filled: Filled, *, in_json: bool) -> Response | None:
        """The answer to a form that cannot be taken: with faults, or open for too long."""
        answers = read_answers(filled.document, filled.values)
        if answers.faults and in_json:
            faults = [
                FieldError(f"/{name}", sentence(filled.document, name, fault, filled.language))
                for name, fault in answers.faults.items()
            ]
            return rejected(Invalid(f"look at {', '.join(fault.pointer for fault in faults[:5])}", faults))
        if answers.faults:
            return self.page(filled, faults=answers.faults, status=422)
        now = self._runtime.clock.now()
        if filled.token is not None and now - filled.token.shown_at > self._settings.form_open_for:
            if in_json:
                fault = FieldError("/_token", "is too old")
                return rejected(Invalid("the form was opened too long ago; open it again", [fault]))
            return self.page(filled, notice="expired", status=422)
        return None

    def again(self, filled: Filled, exc: Rejected | Unavailable) -> Response:
        """The form once more, with all that was typed, for it could not be kept."""
        match exc:
            case QuotaExceeded():
                return self.page(
                    filled, notice="busy", status=exc.status, headers={"Retry-After": str(exc.retry_after)}
                )
            case Unavailable():
                return self.page(filled, notice="away", status=503, headers={"Retry-After": str(exc.retry_after)})
            case _:
                return rejected(exc)

    async def submit(self, filled: Filled, request: Request, tx: Tx) -> Taken:
        """Take what was sent without faults."""
        now = self._runtime.clock.now()
        reasons = suspicions(
            self._signs(filled, request), self._settings.form_fastest, self._settings.form_fastest_unproven
        )
        sent = Submission(
            submission_id=filled.token.submission_id if filled.token else new_id(),
            form_id=filled.row.form_id,
            version=filled.version,
            document=filled.document,
            values=filled.values,
            context=filled.context,
            language=filled.language,
            network=network_of(address_of(request, self._settings.proxies)),
            user_agent=request.headers.get("user-agent", "")[:LONGEST_AGENT] or None,
            received_at=now,
            reasons=reasons,
        )
        return await submit(sent, tx, self._runtime, self._settings)

    def _signs(self, filled: Filled, request: Request) -> Signs:
        answer = next(iter(filled.values.get("_proof", ())), "")
        token = filled.token
        proof = work_is_done(token.challenge, answer, self._settings.form_work_bits) if token and answer else None
        flooded = proof is None and bool(
            self._unproven.wait_for(filled.row.form_id, address_of(request, self._settings.proxies), time.monotonic())
        )
        return Signs(
            trapped=any(text.strip() for text in filled.values.get(trap_of(filled.document), ())),
            age=self._runtime.clock.now() - token.shown_at if token else None,
            proof=proof,
            flooded=flooded,
        )

    def next_address(self, filled: Filled, *, asked: bool) -> str:
        """Where people go after a form: to its thanks, or where it says. Within a page the page around it leads on."""
        if filled.document.redirect and not filled.embedded:
            return filled.document.redirect
        told = {"lang": filled.language, **({"confirm": "1"} if asked else {})}
        told |= {"embed": "1"} if filled.embedded else {}
        return f"{filled.row.form_id}/thanks?{urlencode(told)}"  # beside the form

    def page(
        self,
        filled: Filled,
        *,
        faults: Mapping[str, str] | None = None,
        notice: str | None = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The form as a page. With faults it keeps its token, so that one submission stays one."""
        keep = filled.token is not None and notice != "expired"
        shown = Shown(
            form_id=filled.row.form_id,
            document=filled.document if keep else filled.row.document,
            language=filled.language,
            action=filled.row.form_id,  # beside this page, whatever its host is called here
            token=filled.token.challenge if keep and filled.token else self.token(filled.row),
            work_bits=self._settings.form_work_bits,
            values=filled.values,
            faults=faults or {},
            notice=notice,
            carried={name: filled.carried.get(name, "") for name in CARRIED} | {"_lang": filled.language},
            embedded=filled.embedded,
        )
        return form_page(shown, status, headers)
