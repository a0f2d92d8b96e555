"""Everything that capture serves over HTTP."""

from fastapi import APIRouter

from services.capture.accounts.api import accounts_router
from services.capture.consent.api import consent_router
from services.capture.deals.api import crm_deals_router
from services.capture.duplicates.api import duplicates_router
from services.capture.enrichment.api import enrichment_router
from services.capture.enrichment.builtin import read_lists
from services.capture.erasures.api import erasures_router
from services.capture.exports.api import exports_router
from services.capture.facts.api import facts_router
from services.capture.facts.withdrawals import withdrawals_router
from services.capture.forgotten import Forgotten
from services.capture.forms.api import forms_router
from services.capture.hooks.api import hooks_router
from services.capture.hosted.api import hosted_router
from services.capture.imports.api import imports_router
from services.capture.leads.api import leads_router
from services.capture.person_exports.api import person_exports_router
from services.capture.settings import CaptureSettings
from services.capture.sites.api import sites_router
from services.capture.sources.api import sources_router
from services.capture.sources.known import known_sources
from shared.service import Runtime


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """The table of endpoints."""
    read_lists()
    forgotten = Forgotten(runtime)
    known = known_sources(runtime)
    settings = CaptureSettings()
    return (
        facts_router(runtime, forgotten),  # the busiest first: routes are tried in order
        withdrawals_router(runtime),
        leads_router(runtime, forgotten),
        consent_router(runtime),
        accounts_router(runtime),
        duplicates_router(runtime),
        enrichment_router(runtime),
        erasures_router(runtime),
        person_exports_router(runtime),
        sources_router(runtime, known),
        hooks_router(runtime, known),
        crm_deals_router(runtime),
        imports_router(runtime),
        exports_router(runtime),
        sites_router(runtime, forgotten, settings),
        forms_router(runtime, settings),
        hosted_router(runtime, settings),
    )
