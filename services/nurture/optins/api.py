"""The message that asks for confirmation, over HTTP: a versioned document, with its preview."""

from typing import Any

from fastapi import APIRouter

from services.nurture.optins.document import LINK, MESSAGES, OptinMessages, checked
from services.nurture.parts import Parts
from services.nurture.sending.mail import plain_html, sender_name
from services.nurture.templates.rendering import CannotRender
from shared.rules import documents_router


def optins_router(parts: Parts) -> APIRouter:
    """Read, save, list, preview (`:simulate`) and activate the message by language."""
    runtime = parts.runtime
    renderer = parts.renderer

    async def preview(document: dict[str, Any], _days: int) -> dict[str, Any]:
        """What the message looks like in each language."""
        context = {
            LINK: f"{runtime.settings.public_url.rstrip('/')}/capture/confirm/…",
            "form": {"name": "Newsletter"},
            "sender": {"name": sender_name(runtime.settings.mail_from)},
        }
        shown: dict[str, Any] = {}
        for language, template in checked(document).messages.items():
            try:
                rendered = await renderer.render(template, context, footer=False)
            except CannotRender as exc:
                shown[language] = {"problem": str(exc)}
                continue
            shown[language] = {
                "subject": rendered.subject,
                "text": rendered.text,
                "html": plain_html(rendered),
            }
        return {"messages": shown}

    return documents_router(
        runtime.database,
        runtime.secrets,
        MESSAGES,
        validate=checked,
        shape=OptinMessages,
        simulate=preview,
        path="/v1/optin-message",
    )
