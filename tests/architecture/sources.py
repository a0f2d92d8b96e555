"""The project's own source files, parsed once."""

import ast
from collections.abc import Iterator
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
    """A path as a test's name shows it."""
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    """A module, parsed."""
    return ast.parse(path.read_bytes())


def imports(path: Path) -> Iterator[str]:
    """Everything that a module imports, wherever in it, by its whole name; `from a import b` tells `a.b`."""
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{name.name}" for name in names)


def calls(path: Path) -> Iterator[ast.Call]:
    """Every call in a module."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """What is called, as it is written: `datetime.now`."""
    return ast.unparse(call.func)


def is_or_below(name: str, module: str) -> bool:
    """Whether a name is a module or something in it."""
    return name == module or name.startswith(f"{module}.")
