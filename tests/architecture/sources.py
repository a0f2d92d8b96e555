"""The project's own source files, parsed once."""

import ast
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shared", "services", "throughline", "deploy", "bench", "tests")
SHARED_PACKAGES = sorted(path.parent for path in (ROOT / "shared").glob("*/__init__.py"))
SERVICE_FOLDERS = sorted(path.parent for path in (ROOT / "services").glob("*/__init__.py"))


def modules(*packages: str) -> list[Path]:
    """The modules of packages, without migrations, whose names are numbers."""
    return sorted(
        path
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "versions" not in path.parts and "__pycache__" not in path.parts
    )


def shown(path: Path) -> str:
    """A path as a failure shows it."""
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    """A module, parsed."""
    return ast.parse(path.read_bytes())


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Everything in a module: every rule looks at it, so it is walked once."""
    return tuple(ast.walk(tree(path)))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Everything that a module imports, wherever in it, by its whole name; `from a import b` tells `a.b`."""
    found: list[str] = []
    for node in nodes(path):
        match node:
            case ast.Import(names=names):
                found += [name.name for name in names]
            case ast.ImportFrom(module=str(module), names=names):
                found += [f"{module}.{name.name}" for name in names]
    return tuple(found)


@cache
def calls(path: Path) -> tuple[ast.Call, ...]:
    """Every call in a module."""
    return tuple(node for node in nodes(path) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """What is called, as it is written: `datetime.now`; of what is no name, the attributes alone: `.now`."""
    return dotted(call.func)


def dotted(expression: ast.expr) -> str:
    """A name with its attributes, as it is written."""
    match expression:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{dotted(value)}.{attribute}"
        case _:
            return ""


def is_or_below(name: str, module: str) -> bool:
    """Whether a name is a module or something in it."""
    return name == module or name.startswith(f"{module}.")


def breaches(paths: Iterable[Path], look: Callable[[Path], Sequence[str]]) -> dict[str, Sequence[str]]:
    """What a rule finds to complain of, by module: one test a rule tells of every module that breaks it."""
    return {shown(path): found for path in paths if (found := look(path))}


def at_line(node: ast.stmt | ast.expr | ast.excepthandler) -> str:
    """Where in its module something stands, for who has to mend it."""
    return f"line {node.lineno}"
