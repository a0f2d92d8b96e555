"""What a template may contain: a list of allowed parts, so that what is not on it cannot be saved."""

from collections.abc import Iterator, Mapping

from jinja2 import TemplateSyntaxError, nodes

from services.nurture.templates.renderer import FILTERS, TESTS, TemplateEnvironment

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
}
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
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "a block",
    nodes.Macro: "a macro",
}


def template_faults(source: str, names: Names = NAMES) -> list[tuple[int, str]]:
    """Every fault of a template: its line, and what is wrong. `names` are those it may use, with their fields."""
    try:
        template = TemplateEnvironment(html=True).parse(source)
    except TemplateSyntaxError as fault:
        return [(fault.lineno, fault.message or "it cannot be read")]
    except RecursionError:
        return [(1, "it is nested too deeply")]
    return list(_faults(template, frozenset(), names, in_loop=False))


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
