"""Nurture over HTTP."""

from fastapi import APIRouter

from services.nurture.acts.api import acts_router
from services.nurture.audiences.api import audiences_router
from services.nurture.broadcasts.api import broadcasts_router
from services.nurture.experiments.api import experiments_router
from services.nurture.explaining.api import explaining_router
from services.nurture.measurement.api import reports_router
from services.nurture.optins.api import optins_router
from services.nurture.parts import make_parts
from services.nurture.permission.api import guard_router, policy_router
from services.nurture.preferences.api import preference_document_router, preferences_router
from services.nurture.sending.api import messages_router
from services.nurture.sequences.api import sequences_router
from services.nurture.suppressions.api import suppressions_router
from services.nurture.takeover.api import policy_router as takeover_policy_router
from services.nurture.takeover.api import takeover_router
from services.nurture.templates.api import templates_router
from services.nurture.tracking.api import tracking_router
from shared.service import Runtime
from shared.web import Endpoints


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """All that others ask of nurture, and the addresses in its messages."""
    parts = make_parts(runtime)
    router = Endpoints()
    for each in (
        sequences_router(parts),
        broadcasts_router(parts),
        templates_router(parts),
        messages_router(parts),
        acts_router(parts),
        suppressions_router(parts),
        policy_router(parts),
        guard_router(parts),
        preference_document_router(parts),
        preferences_router(parts),
        optins_router(parts),
        tracking_router(parts),
        audiences_router(parts),
        takeover_router(parts),
        takeover_policy_router(parts),
        explaining_router(parts),
        experiments_router(parts),
        reports_router(parts),
    ):
        router.take(each)
    return (router,)
