"""Nurture over HTTP."""

from fastapi import APIRouter

from services.nurture.optins.api import optins_router
from services.nurture.parts import make_parts
from services.nurture.people.api import suppressions_router
from services.nurture.sending.api import messages_router
from services.nurture.sequences.api import sequences_router
from services.nurture.tracking.api import tracking_router
from shared.service import Runtime


def routers(runtime: Runtime) -> tuple[APIRouter, ...]:
    """Sequences, messages, suppressions, the message that asks for confirmation, and the addresses in messages."""
    parts = make_parts(runtime)
    return (
        sequences_router(parts),
        messages_router(parts),
        suppressions_router(parts),
        optins_router(parts),
        tracking_router(parts),
    )
