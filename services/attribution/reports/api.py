"""Reports over HTTP, as JSON or CSV."""

from fastapi import APIRouter, Depends

from services.attribution.models.catalogue import Catalogue
from services.attribution.reports import attribution, comparison, drilling, returns
from services.attribution.standing.answers import Answers
from shared.service import Runtime
from shared.web import Endpoints, requires


def router(runtime: Runtime, answers: Answers) -> APIRouter:
    """The endpoints of reports."""
    made = Endpoints(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])
    catalogue = Catalogue()
    for report in (attribution, comparison, returns):
        made.take(report.router(answers, catalogue))
    made.take(drilling.router(runtime))
    return made
