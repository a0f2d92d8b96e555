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
from services.nurture.sending.mail import with_addresses
from services.nurture.templates.document import Approved, Words
from services.nurture.templates.rendering import CannotRender, Renderer
from services.nurture.tracking.links import SHORT_PLACES
from shared.consents import needs_consent
from shared.smtp import Outcome

LONGEST_WHATSAPP = 4_096


class TextChannel:
    """Writes text messages and hands them over."""

    def __init__(self, parts: Parts, renderer: Renderer, carrier: Carrier[TextMessage]) -> None:
        self._parts = parts
        self._renderer = renderer
        self._carrier = carrier

    def address_of(self, person: Person) -> str | None:
        """The number of the person."""
        return person.phone

    async def write(self, order: Order) -> Draft:
        """The message with its words filled in. Raises CannotWrite."""
        context = context_of(self._parts, order)
        recipient = order.person.phone or ""
        approved: Approved | None = None
        words = await words_of(self._parts, order, context)
        links: list[str] = []
        text = await self._filled(order, words, words.text, context, links) if words.text else ""
        if words.approved is not None:
            sources = words.approved.parameters
            parameters = [await self._filled(order, words, source, context, links) for source in sources]
            approved = replace(words.approved, parameters=tuple(parameters))
        elif order.step.channel == "sms":
            if needs_consent(order.plan.purpose):
                text = with_way_out(text, self._parts.channels.sms_stop_text)
            most = self._parts.channels.sms_segments
            if (count := segments(text)) > most:
                raise CannotWrite(f"the SMS has {count} segments, and {most} are allowed")
        elif len(text) > LONGEST_WHATSAPP:
            raise CannotWrite(f"the message has more than {LONGEST_WHATSAPP} characters")
        return Draft(recipient, None, tuple(links), TextMessage(order.message_id, recipient, text, approved))

    async def _filled(self, order: Order, words: Words, source: str, context: dict[str, Any], links: list[str]) -> str:
        """One text with its values; adds its `links` where clicks on them are counted. Raises CannotWrite."""
        words, counted = replace(words, html=None, text=source), words.tracked and not order.trial
        try:
            rendered = await self._renderer.render(words, context, footer=False, utm=order.plan.utm, mark_text=counted)
        except CannotRender as exc:
            raise CannotWrite(f"the template cannot be filled: {exc}") from exc
        first = len(links)
        text = with_addresses(
            rendered.text, rendered.marker, lambda number: self._address(order, first + number, rendered.links[number])
        ).strip()
        if not text:
            raise CannotWrite("the text comes out empty")
        if counted:
            links += rendered.links
        return text

    def _address(self, order: Order, number: int, target: str) -> str:
        return self._parts.links.short_address(order.message_id, number) if number < SHORT_PLACES else target

    async def deliver(self, draft: Draft, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand the message to the provider."""
        return await self._carrier.deliver(draft.content, still_wanted)
