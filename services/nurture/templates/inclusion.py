"""Parts taken into the templates that name them, as text: before MJML is read, so one may be half a frame."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from jinja2 import TemplateError

from services.nurture.templates.document import BODIES, Bodies, Part, Words
from services.nurture.templates.languages import nearest_language
from services.nurture.templates.pieces import included, with_parts

LONGEST = 300_000


class CannotInclude(TemplateError):
    """A part that is not there, or that takes in itself."""


def parts_named(bodies: Bodies | Words) -> set[str]:
    """The ids of the parts that a template takes in itself, in any language. Raises TemplateError."""
    sources = [getattr(bodies, kind) for kind in BODIES]
    variants: Iterable[Bodies] = getattr(bodies, "languages", {}).values()
    own = {name for source in sources if source and "include" in source for name in included(source)}
    return own.union(*(parts_named(variant) for variant in variants))


def with_all_parts(words: Words, parts: Mapping[str, Part]) -> Words:
    """The message with its parts in their places, in its language as far as they have it. Raises CannotInclude."""
    defaults: dict[str, str] = {}
    made: dict[tuple[str, str], str] = {}

    def whole(kind: str, source: str | None, above: tuple[str, ...] = ()) -> str | None:
        return None if source is None else with_parts(source, lambda name: said(kind, name, above))

    def said(kind: str, name: str, above: tuple[str, ...]) -> str:
        if name in above:
            raise CannotInclude(f"part {name} takes in itself: {' > '.join([*above, name])}")
        if (kind, name) not in made:
            part = parts.get(name)
            if part is None:
                raise CannotInclude(f"there is no part {name}")
            variant: Bodies = part.languages.get(
                nearest_language(words.locale, part.languages, part.default_language), part
            )
            defaults.update({**part.defaults, **variant.defaults})
            source = whole(kind, getattr(variant, kind), (*above, name))
            if source is None:
                raise CannotInclude(f"part {name} has no {kind}")
            if len(source) > LONGEST:
                raise CannotInclude(f"part {name} is longer than {LONGEST} characters with what it takes in")
            made[kind, name] = source
        return made[kind, name]

    html, mjml, text = whole("html", words.html), whole("mjml", words.mjml), whole("text", words.text)
    known = tuple(sorted((defaults | dict(words.defaults)).items()))
    return replace(words, html=html, mjml=mjml, text=text, defaults=known)
