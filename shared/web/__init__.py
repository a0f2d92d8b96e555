"""HTTP: apps, problem documents, tokens, strict models, pages, idempotency.

An endpoint raises `shared.errors` and the app answers with a problem document. A POST that creates reads its body as
bytes, validates it, and runs its transaction through `idempotent`. Lists answer a `Page`; its cursor is made by
`make_cursor` and read by `read_cursor`.
"""

from shared.web._app import Check, ManagementApp, create_app, edged
from shared.web._bodies import described_body, read_body
from shared.web._callers import Network, address_of, network_of, readable_address
from shared.web._direct import DirectRoute
from shared.web._endpoints import Endpoints
from shared.web._idempotency import Make, forget_answers, idempotent
from shared.web._models import (
    CalendarDay,
    Input,
    Instant,
    Limit,
    OccurredAt,
    Page,
    ReportDay,
    make_cursor,
    read_cursor,
)
from shared.web._problems import PROBLEM_JSON, faults_of, invalid, problem, problem_body, rejected, unavailable
from shared.web._sheets import document, sheet, wants_sheet
from shared.web._tokens import (
    LONGEST,
    SCOPES,
    Authenticator,
    Principal,
    authorise,
    create_token,
    read_token,
    requires,
)

__all__ = [
    "LONGEST",
    "PROBLEM_JSON",
    "SCOPES",
    "Authenticator",
    "CalendarDay",
    "Check",
    "DirectRoute",
    "Endpoints",
    "Input",
    "Instant",
    "Limit",
    "Make",
    "ManagementApp",
    "Network",
    "OccurredAt",
    "Page",
    "Principal",
    "ReportDay",
    "address_of",
    "authorise",
    "create_app",
    "create_token",
    "described_body",
    "document",
    "edged",
    "faults_of",
    "forget_answers",
    "idempotent",
    "invalid",
    "make_cursor",
    "network_of",
    "problem",
    "problem_body",
    "read_body",
    "read_cursor",
    "read_token",
    "readable_address",
    "rejected",
    "requires",
    "sheet",
    "unavailable",
    "wants_sheet",
]
