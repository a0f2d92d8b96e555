"""Routing over HTTP."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError

from services.routing.assignments import api as assignments
from services.routing.deals import api as deals
from services.routing.parts import make_parts, pipeline_of, rules_of
from services.routing.reps import api as reps
from services.routing.rules.simulation import simulate_pipeline, simulate_rules
from shared.rules import documents_router
from shared.service import Runtime
from shared.web import invalid


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """Reps, rules, assignments, deals and their pipeline."""
    parts = make_parts(runtime)

    async def try_rules(document: dict[str, Any], days: int) -> dict[str, Any]:
        return await simulate_rules(parts, rules_of(0, document), days)

    async def try_pipeline(document: dict[str, Any], days: int) -> dict[str, Any]:
        return await simulate_pipeline(parts, pipeline_of(0, document), days)

    return (
        reps.router(runtime),
        documents_router(
            runtime.database,
            runtime.secrets,
            parts.rules.store,
            validate=lambda document: _checked(rules_of, document),
            simulate=try_rules,
        ),
        assignments.router(parts),
        deals.router(parts),
        documents_router(
            runtime.database,
            runtime.secrets,
            parts.pipeline.store,
            validate=lambda document: _checked(pipeline_of, document),
            simulate=try_pipeline,
            path="/v1/pipeline",
        ),
    )


def _checked(compiled: Callable[[int, dict[str, Any]], object], document: dict[str, Any]) -> None:
    """Refuse a document whose shape is wrong as a request is refused."""
    try:
        compiled(0, document)
    except ValidationError as exc:
        raise invalid(exc) from exc
