"""SMS and WhatsApp."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.nurture.channels.channel import CannotWrite, Draft, Order
from services.nurture.channels.filling import context_of, words_of
from services.nurture.channels.provider import Carrier
from services.nurture.channels.texting import TextMessage, segments, with_way_out
from services.nurture.parts import Parts
from services.nurture.people.domain import Person
from services.nurture.templates.document import Approved, Words
from services.nurture.templates.rendering import CannotRender, Renderer
from services.nurture.tracking.links import Links
from shared.consents import needs_consent
from shared.smtp import Outcome

LONGEST_WHATSAPP = 4_096


class TextChannel:
    """Writes text messages and hands them over. Links stay as they are written: ours would fill a whole SMS."""

    def __init__(self, parts: Parts, renderer: Renderer, carrier: Carrier[TextMessage]) -> None:
        self._parts = parts
        self._renderer = renderer
        self._carrier = carrier
        self._links = Links(parts.runtime.secrets.links, parts.runtime.settings.public_url)

    def address_of(self, person: Person) -> str | None:
        """The number of the person."""
        return person.phone

    async def write(self, order: Order) -> Draft:
        """The message with its words filled in. Raises CannotWrite."""
        plan = order.plan
        context = context_of(self._parts, self._links, order)
        recipient = order.person.phone or ""
        approved: Approved | None = None
        words = await words_of(self._parts, order, context)
        text = await self._filled(words, words.text, context) if words.text else ""
        if words.approved is not None:
            parameters = [await self._filled(words, source, context) for source in words.approved.parameters]
            approved = replace(words.approved, parameters=tuple(parameters))
        elif order.step.channel == "sms":
            if needs_consent(plan.purpose):
                text = with_way_out(text, self._parts.channels.sms_stop_text)
            most = self._parts.channels.sms_segments
            if (count := segments(text)) > most:
                raise CannotWrite(f"the SMS has {count} segments, and {most} are allowed")
        elif len(text) > LONGEST_WHATSAPP:
            raise CannotWrite(f"the message has more than {LONGEST_WHATSAPP} characters")
        return Draft(recipient, None, (), TextMessage(order.message_id, recipient, text, approved))

    async def _filled(self, words: Words, source: str, context: dict[str, Any]) -> str:
        """One text with its values. Raises CannotWrite."""
        try:
            rendered = await self._renderer.render(replace(words, html=None, text=source), context, footer=False)
        except CannotRender as exc:
            raise CannotWrite(f"the template cannot be filled: {exc}") from exc
        if not rendered.text.strip():
            raise CannotWrite("the text comes out empty")
        return rendered.text.strip()

    async def deliver(self, draft: Draft, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand the message to the provider."""
        return await self._carrier.deliver(draft.content, still_wanted)
