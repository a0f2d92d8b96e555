"""Renders templates in a process of its own, which may be killed at any time.

Started by `rendering.py`: a line of JSON requests on standard input, a line of JSON answers on standard output. A
template is checked when it is saved (`check.py`), so this process with its limits is the second wall; MJML and CSS are
read here as well, by libraries that a template could bring down.
"""

import resource
import sys
from collections.abc import Mapping
from typing import Any

import orjson
from jinja2 import Template, TemplateError

from services.nurture.templates.addresses import LINKS, Addresses
from services.nurture.templates.compiling import Compiled, compiled, line
from services.nurture.templates.environment import Fallbacks, with_fallbacks
from services.nurture.templates.localized import LOCALE, locale_of
from services.nurture.templates.reading import tidied

MEMORY = 512 * 1024 * 1024
CPU_SECONDS = 3
LONGEST = 512 * 1024
OWN_ADDRESSES = ("unsubscribe_url", "preferences_url")


def fill(template: Template, context: Mapping[str, Any]) -> str:
    """The template with its values; raises TemplateError, also when the result is too long."""
    written: list[str] = []
    length = 0
    for piece in template.generate(context):
        length += len(piece)
        if length > LONGEST:
            raise TemplateError(f"the result is longer than {LONGEST} characters")
        written.append(piece)
    return "".join(written)


def answer_to(request: Mapping[str, Any]) -> dict[str, Any]:
    """The message that is asked for; without values for it, nothing, if it can be made."""
    words = request["words"]
    message = compiled(
        words["subject"],
        words["html"],
        words["mjml"],
        words["text"],
        footer=request["footer"],
        mark_text=request["mark_text"],
        language=words["language"],
    )
    return render(message, request) if request["context"] is not None else {}


def render(message: Compiled, request: Mapping[str, Any]) -> dict[str, Any]:
    """Subject, text, HTML with markers in place of links, the links, and what there is to say about all of it."""
    words, given, utm = request["words"], request["context"], request["utm"] or {}
    fallbacks = Fallbacks(dict(words["defaults"]), lenient=request["lenient"])
    context = {name: with_fallbacks(value, name, fallbacks) for name, value in given.items()}
    context[LOCALE] = locale_of(words["locale"])
    marks = [(name, fill(line(source), context).strip()) for name, source in utm.get("marks", {}).items()]
    addresses = Addresses(
        request["marker"],
        frozenset(given[name] for name in OWN_ADDRESSES if name in given),
        [(name, value) for name, value in marks if value],
        utm.get("hosts"),
    )
    context[LINKS] = addresses
    text = fill(message.text, context)
    return {
        "subject": fill(message.subject, context),
        "text": addresses.marked_text(tidied(text) if message.text_is_read else text),
        "html": fill(message.html, context),
        "links": addresses.found,
        "dropped": addresses.dropped,
        "missing": list(dict.fromkeys(fallbacks.missing)),
        "replaced": list(dict.fromkeys(fallbacks.replaced)),
        "wordless_images": message.wordless_images,
        "own_leave": message.own_leave,
    }


def _limit_cpu() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(used.ru_utime + used.ru_stime) + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))


def _answered(request: Mapping[str, Any]) -> bytes:
    """The answer as JSON, or the fault of the template or its values; each request has the same time."""
    _limit_cpu()
    try:
        return orjson.dumps(answer_to(request))
    except TemplateError as fault:
        return orjson.dumps({"fault": str(fault.message or type(fault).__name__)})
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError) as fault:
        return orjson.dumps({"fault": f"{type(fault).__name__} while rendering"})


def main() -> None:
    """Answer requests until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for asked in sys.stdin.buffer:
        sys.stdout.buffer.write(b"[%s]\n" % b",".join(_answered(request) for request in orjson.loads(asked)))
        sys.stdout.buffer.flush()
