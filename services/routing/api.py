"""Routing over HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError

from services.routing.assignments import api as assignments
from services.routing.availability import api as availability
from services.routing.calendars import api as calendars
from services.routing.claims import api as claims
from services.routing.crm import api as crm
from services.routing.deals import api as deals
from services.routing.deals import forecasting, importing, pipelines_api
from services.routing.deals.pipeline import PipelineDocument
from services.routing.decisions import api as decisions
from services.routing.departures import api as departures
from services.routing.fairness import api as fairness
from services.routing.handoffs import api as handoffs
from services.routing.notifications import api as notifications
from services.routing.parts import make_parts, pipeline_of, rules_of
from services.routing.releases import api as releases
from services.routing.reps import api as reps
from services.routing.rules.document import RoutingDocument
from services.routing.rules.simulation import simulate_pipeline, simulate_rules
from services.routing.sla import api as sla
from services.routing.stuck import api as stuck
from services.routing.subscriptions import api as subscriptions
from services.routing.webhooks import api as webhooks
from shared.rules import documents_router
from shared.service import Runtime
from shared.web import invalid


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """Reps, rules, assignments, deals and their pipeline, webhooks."""
    parts, turn = make_parts(runtime), asyncio.Lock()

    async def try_rules(document: dict[str, Any], days: int) -> dict[str, Any]:
        return await simulate_rules(parts, turn, document, days)

    async def try_pipeline(document: dict[str, Any], days: int) -> dict[str, Any]:
        return await simulate_pipeline(parts, pipeline_of(0, document), days)

    return (
        departures.router(parts),
        calendars.router(runtime),
        availability.router(runtime),
        reps.router(runtime),
        documents_router(
            runtime.database,
            runtime.secrets,
            parts.rules.store,
            validate=lambda document: _checked(rules_of, document),
            shape=RoutingDocument,
            simulate=try_rules,
        ),
        releases.router(parts),
        assignments.router(parts),
        importing.router(parts),
        fairness.router(parts),
        decisions.router(parts),
        deals.router(parts),
        handoffs.router(parts),
        forecasting.router(parts),
        pipelines_api.router(parts, lambda draft, days: simulate_pipeline(parts, draft, days)),
        documents_router(
            runtime.database,
            runtime.secrets,
            parts.pipelines.store,
            validate=lambda document: _checked(pipeline_of, document),
            shape=PipelineDocument,
            simulate=try_pipeline,
            path="/v1/pipeline",
        ),
        sla.router(parts),
        claims.router(parts),
        stuck.router(parts),
        notifications.router(parts),
        webhooks.router(runtime),
        subscriptions.router(runtime),
        crm.router(runtime),
    )


def _checked(compiled: Callable[[int, dict[str, Any]], object], document: dict[str, Any]) -> None:
    """Refuse a document whose shape is wrong as a request is refused."""
    try:
        compiled(0, document)
    except ValidationError as exc:
        raise invalid(exc) from exc
