"""What a template may contain: a list of allowed parts, so that what is not on it cannot be saved.

What only shows when MJML and HTML are read is found by trying the template (`trying.py`).
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

from jinja2 import TemplateSyntaxError, nodes

from services.nurture.templates.document import BODIES, Bodies, StoredTemplate, Template, Utm
from services.nurture.templates.environment import FILTERS, TESTS, TemplateEnvironment
from services.nurture.templates.localized import FORMATS, MOST_DECIMALS, is_money
from services.nurture.templates.pieces import INCLUDE
from shared.errors import FieldError
from shared.events import ConsentChannel

LEAD_FIELDS = frozenset(
    [
        "first_name",
        "last_name",
        "email",
        "title",
        "company",
        "country",
        "region",
        "industry",
        "employees",
        "annual_revenue",
        "use_case",
        "attributes",
    ]
)
Names = Mapping[str, frozenset[str] | None]
NAMES: Names = {
    "lead": LEAD_FIELDS,
    "sequence": frozenset({"name"}),
    "sender": frozenset({"name"}),
    "site_url": None,
    "unsubscribe_url": None,
    "preferences_url": None,
}
# A link says nothing of the person it was sent to.
UTM_NAMES: Names = {"sequence": frozenset({"name"}), "language": None}
_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Const,
    nodes.List,
    nodes.Tuple,
    nodes.Filter,
    nodes.Test,
    nodes.If,
    nodes.For,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Concat,
    nodes.Add,
    nodes.Sub,
)
_SAID = {
    nodes.Call: "a call",
    nodes.Mul: "a multiplication",
    nodes.Pow: "a power",
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.Include: "include without the id of a part",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "a block",
    nodes.Macro: "a macro",
}


def faults_of_stored(document: StoredTemplate) -> list[FieldError]:
    """Every fault of a stored template, with its place."""
    if document.message is not None:
        return faults_of_template(document.message, "/message")
    return _faults_of_languages(document.part, "/part", NAMES, parts=True) if document.part is not None else []


def faults_of_template(
    template: Template, pointer: str, names: Names = NAMES, *, parts: bool = True
) -> list[FieldError]:
    """Every fault of a template, with its place; `parts` says whether it may take in stored ones."""
    parameters = [
        FieldError(f"{pointer}/parameters/{number}", f"line {line}: {detail}")
        for number, source in enumerate(template.parameters or ())
        for line, detail in template_faults(source, names)
    ]
    return [
        *_faults_of_languages(template, pointer, names, parts=parts),
        *parameters,
        *faults_of_utm(template.utm, f"{pointer}/utm"),
    ]


def unfit_parts(template: Template, channel: ConsentChannel, pointer: str) -> list[FieldError]:
    """What a template lacks for a channel, or has too much of, with its place."""
    given = {name for name in ("subject", *BODIES, "name") if getattr(template, name) is not None}
    match channel:
        case "email":
            possible, needed = {"subject", *BODIES}, {"subject"}
        case "sms":
            possible, needed = {"text"}, {"text"}
        case "whatsapp":
            possible, needed = {"text", "name"}, set[str]()
        case _:
            assert_never(channel)
    faults = [FieldError(f"{pointer}/{name}", f"{channel} has no {name}") for name in sorted(given - possible)]
    faults += [FieldError(f"{pointer}/{name}", f"{channel} needs a {name}") for name in sorted(needed - given)]
    if channel == "whatsapp" and {"text", "name"} <= given:
        faults.append(
            FieldError(f"{pointer}/text", "an approved template has the words that WhatsApp keeps, and no text")
        )
    return faults


def faults_of_utm(utm: Utm | None, pointer: str) -> list[FieldError]:
    """Every fault of what is added to links."""
    return [
        FieldError(f"{pointer}/{name.removeprefix('utm_')}", detail)
        for name, source in (utm.marks if utm else {}).items()
        for _, detail in template_faults(source, UTM_NAMES)
    ]


def _faults_of_languages(whole: Bodies, pointer: str, names: Names, *, parts: bool) -> list[FieldError]:
    faults = _faults_of_bodies(whole, pointer, names, parts=parts)
    for language, variant in getattr(whole, "languages", {}).items():
        faults += _faults_of_bodies(variant, f"{pointer}/languages/{language}", names, parts=parts)
    return faults


def _faults_of_bodies(bodies: Bodies, pointer: str, names: Names, *, parts: bool) -> list[FieldError]:
    faults = [
        FieldError(f"{pointer}/{part}", f"line {line}: {detail}")
        for part in ("subject", *BODIES)
        if (source := getattr(bodies, part, None)) is not None
        for line, detail in template_faults(source, names, parts=parts and part != "subject")
    ]
    if len((getattr(bodies, "subject", None) or "").splitlines()) > 1:
        faults.append(FieldError(f"{pointer}/subject", "is a line of its own: take out the line breaks"))
    for path in bodies.defaults:
        name, field, *_ = path.split(".")
        fields = names.get(name)
        if fields is None or field not in fields:
            known = ", ".join(f"{name}.{one}" for one in sorted(fields or ()))
            faults.append(FieldError(f"{pointer}/defaults/{path}", f"there is no {name}.{field}; there are {known}"))
    return faults


def template_faults(source: str, names: Names = NAMES, *, parts: bool = False) -> list[tuple[int, str]]:
    """Every fault of a template: its line, and what is wrong. `names` are those it may use, with their fields."""
    try:
        template = TemplateEnvironment(html=True).parse(source)
    except TemplateSyntaxError as fault:
        return [(fault.lineno, fault.message or "it cannot be read")]
    except RecursionError:
        return [(1, "it is nested too deeply")]
    if parts:
        template = TemplateEnvironment(html=True).parse(_without_parts(source))
    return list(_faults(template, frozenset(), names, in_loop=False))


def _without_parts(source: str) -> str:
    """A source without the parts that it takes in, on the same lines."""
    return INCLUDE.sub(lambda match: "\n" * match[0].count("\n"), source)


def _faults(node: nodes.Node, bound: frozenset[str], names: Names, *, in_loop: bool) -> Iterator[tuple[int, str]]:
    if not isinstance(node, _ALLOWED):
        yield node.lineno, f"{_SAID.get(type(node), type(node).__name__.lower())} is not possible in a message"
        return
    if isinstance(node, nodes.For):
        yield from _loop_faults(node, bound, names, in_loop)
        return
    yield from _own_faults(node, bound, names)
    for child in node.iter_child_nodes():
        yield from _faults(child, bound, names, in_loop=in_loop)


def _loop_faults(node: nodes.For, bound: frozenset[str], names: Names, in_loop: bool) -> Iterator[tuple[int, str]]:
    if in_loop or node.recursive:
        yield node.lineno, "a loop within a loop is not possible in a message"
        return
    yield from _faults(node.iter, bound, names, in_loop=True)
    own = {name.name for name in node.find_all(nodes.Name) if name.ctx == "store"}
    inner = [*node.body, *node.else_, *([node.test] if node.test else [])]
    for child in inner:
        yield from _faults(child, bound | own | {"loop"}, names, in_loop=True)


def _own_faults(node: nodes.Node, bound: frozenset[str], names: Names) -> Iterator[tuple[int, str]]:
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        yield node.lineno, f"there is nothing named {node.attr}"
    if isinstance(node, nodes.Name) and node.name not in bound and node.name not in names:
        yield node.lineno, f"there is no {node.name}; there are {', '.join(sorted(names))}"
    elif isinstance(node, nodes.Filter) and node.name not in FILTERS:
        yield node.lineno, f"there is no filter {node.name}; there are {', '.join(sorted(FILTERS))}"
    elif isinstance(node, nodes.Filter) and (fault := _filter_fault(node)):
        yield node.lineno, fault
    elif isinstance(node, nodes.Test) and node.name not in TESTS:
        yield node.lineno, f"there is no test {node.name}; there are {', '.join(sorted(TESTS))}"
    elif isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name not in bound:
        yield from _unknown_field(node.lineno, node.node.name, node.attr, names)
    elif isinstance(node, nodes.Getitem):
        if not isinstance(node.arg, nodes.Const) or not isinstance(node.arg.value, str | int):
            yield node.lineno, "an index is a word or a number"
        elif isinstance(node.node, nodes.Name) and node.node.name not in bound:
            yield from _unknown_field(node.lineno, node.node.name, str(node.arg.value), names)


def _unknown_field(line: int, name: str, field: str, names: Names) -> Iterator[tuple[int, str]]:
    fields = names.get(name)
    if fields is not None and field not in fields:
        yield line, f"there is no {name}.{field}; there are {', '.join(sorted(fields))}"
    elif fields is None and name in names:
        yield line, f"{name} has no fields"


def _filter_fault(node: nodes.Filter) -> str | None:
    """What is wrong with what a filter is given, where that is written down."""
    given = node.args[0].value if node.args and isinstance(node.args[0], nodes.Const) else None
    match node.name:
        case "date" | "time" | "datetime" if given is not None and given not in FORMATS:
            return f"{node.name} takes one of {', '.join(FORMATS)}"
        case "number" if given is not None and not (isinstance(given, int) and 0 <= given <= MOST_DECIMALS):
            return f"number takes 0 to {MOST_DECIMALS} decimals"
        case "money" if (given is None and not node.args) or (given is not None and not is_money(given)):
            return "money takes the code of a currency, as in money('EUR')"
        case "round" if given is not None and not (isinstance(given, int) and 0 <= given <= MOST_DECIMALS):
            return f"round takes 0 to {MOST_DECIMALS} decimals"
    return None
