"""What a message is filled with, and its words in the language of the person: the same for every channel."""

from dataclasses import replace
from typing import Any

from services.nurture.channels.channel import CannotWrite, Order
from services.nurture.parts import Parts
from services.nurture.sending.mail import sender_name
from services.nurture.templates.document import Words
from services.nurture.templates.languages import language_of
from services.nurture.templates.rendering import CannotRender

TRIAL = "[Test] "


def context_of(parts: Parts, order: Order) -> dict[str, Any]:
    """The values that templates may name."""
    values: dict[str, Any] = order.person.values().get("lead", {})
    return {
        "lead": {name: value for name, value in values.items() if name != "consent"},
        "sequence": {"name": order.plan.name},
        "sender": {"name": sender_name(parts.runtime.settings.mail_from)},
        "site_url": parts.site_url,
        "unsubscribe_url": parts.links.address("u", order.message_id),
        "preferences_url": parts.preference_links.address(order.person.person_id, order.message_id),
    }


async def words_of(parts: Parts, order: Order, context: dict[str, Any]) -> Words:
    """The words of the step, marked when it is a trial. Raises CannotWrite."""
    try:
        words = await parts.templates.words(order.step.template, language_of(context["lead"]))
    except CannotRender as exc:
        raise CannotWrite(f"the template cannot be filled: {exc}") from exc
    if not order.trial:
        return words
    if order.step.channel == "email":
        return replace(words, subject=TRIAL + words.subject)
    return replace(words, text=TRIAL + words.text) if words.text else words
