"""Email."""

from collections.abc import Callable
from datetime import datetime, timedelta

from services.nurture.channels.channel import CannotWrite, Draft, Order
from services.nurture.channels.filling import context_of, words_of
from services.nurture.channels.provider import Carrier, Providers
from services.nurture.parts import Parts
from services.nurture.people.domain import Person
from services.nurture.sending.mail import NotMailable, compose
from services.nurture.templates.rendering import CannotRender, Renderer
from shared.consents import needs_consent
from shared.ids import MessageId
from shared.smtp import Envelope, Outcome


class EmailChannel:
    """Writes emails and hands them to a server or a provider."""

    def __init__(self, parts: Parts, renderer: Renderer, carrier: Carrier[Envelope]) -> None:
        self._parts = parts
        self._renderer = renderer
        self._carrier = carrier

    def address_of(self, person: Person) -> str | None:
        """The address of the person."""
        return person.email

    async def write(self, order: Order) -> Draft:
        """The email as bytes. Raises CannotWrite."""
        runtime, plan = self._parts.runtime, order.plan
        context = context_of(self._parts, order)
        words = await words_of(self._parts, order, context)
        recipient = order.person.email or ""
        try:
            rendered = await self._renderer.render(words, context, footer=needs_consent(plan.purpose), utm=plan.utm)
            envelope = compose(
                rendered,
                self._parts.links,
                message_id=order.message_id,
                sequence_id=plan.sequence_id,
                purpose=plan.purpose,
                sender=runtime.settings.mail_from,
                recipient=recipient,
                at=runtime.clock.now(),
                tracked=words.tracked and not order.trial,
            )
        except CannotRender as exc:
            raise CannotWrite(f"the template cannot be filled: {exc}") from exc
        except NotMailable as exc:
            raise CannotWrite(str(exc)) from exc
        only = self._carrier.only if isinstance(self._carrier, Providers) else None
        return Draft(recipient, rendered.subject, rendered.links, envelope, only)

    async def deliver(self, draft: Draft, still_wanted: Callable[[], bool]) -> Outcome:
        """Hand the email over."""
        return await self._carrier.deliver(draft.content, still_wanted)

    async def look_up(self, message_id: MessageId, claimed_at: datetime) -> Outcome | None:
        """What a provider knows of a message whose outcome is unknown; None where none says that it has it."""
        return await self._carrier.look_up(message_id) if isinstance(self._carrier, Providers) else None

    def takes_once_for(self, provider: str | None) -> timedelta:
        """For how long a provider takes the same email once; zero where it may take it again."""
        return self._carrier.takes_once_for(provider) if isinstance(self._carrier, Providers) else timedelta()

    async def repeat(self, provider: str | None, draft: Draft, still_wanted: Callable[[], bool]) -> Outcome | None:
        """Hand an email over again, to this provider and nobody else; None where it is not set up."""
        if not isinstance(self._carrier, Providers):
            return None
        return await self._carrier.repeat(provider, draft.content, still_wanted)
