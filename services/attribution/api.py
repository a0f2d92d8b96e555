"""Attribution over HTTP: journeys, conversions with their credits and reasons, models, reports."""

from fastapi import APIRouter

from services.attribution.channels import api as channels
from services.attribution.cohorts import api as cohorts
from services.attribution.conversions import api as conversions
from services.attribution.exports import api as exports
from services.attribution.journeys import api as journeys
from services.attribution.models import api as models
from services.attribution.paths import api as paths
from services.attribution.pipeline import api as pipeline
from services.attribution.rates import api as rates
from services.attribution.reports import api as reports
from services.attribution.standing.answers import Answers
from shared.service import Runtime


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """The endpoints, below `/attribution`."""
    answers = Answers(runtime.database)
    return (
        journeys.router(runtime),
        conversions.router(runtime),
        models.router(runtime),
        reports.router(runtime, answers),
        cohorts.router(runtime, answers),
        paths.router(runtime, answers),
        rates.router(runtime),
        channels.router(runtime),
        exports.router(runtime),
        pipeline.router(runtime, answers),
    )
