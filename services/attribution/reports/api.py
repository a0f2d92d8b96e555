"""Reports over HTTP, as JSON or CSV."""

from fastapi import APIRouter, Depends

from services.attribution.models.catalogue import Catalogue
from services.attribution.reports import attribution, comparison, drilling, returns
from shared.service import Runtime
from shared.web import requires


def router(runtime: Runtime) -> APIRouter:
    """The endpoints of reports."""
    made = APIRouter(tags=["reports"], dependencies=[Depends(requires("attribution:read"))])
    catalogue = Catalogue()
    for report in (attribution, comparison, returns):
        made.include_router(report.router(runtime, catalogue))
    made.include_router(drilling.router(runtime))
    return made
