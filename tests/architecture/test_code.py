"""Rules of the house that hold in every package."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import (
    PACKAGES,
    ROOT,
    SHARED_PACKAGES,
    called,
    calls,
    imports,
    is_or_below,
    modules,
    shown,
    tree,
)

EVERYWHERE = modules(*PACKAGES)
TESTS = modules("tests")
WITHOUT_A_NAME = re.compile(r"(?:^|_)(?:utils?|helpers?|common|base|manager|misc)(?:_|$)")
LONG = 400
LONGEST = 600
LONGER_THAN_LONG = {
    "services/nurture/sending/handlers.py",
    "shared/kafka/_consumer.py",
    "tests/service/test_embedded_gateway.py",
    "tests/service/test_nurture_sending.py",
    "tests/service/test_runtime_batches.py",
    "tests/service/test_runtime_web.py",
}
HAND_ON_THE_ENVIRONMENT = {
    "deploy/embedded/processes.py": "what it starts gets it",
    "deploy/embedded/supervisor.py": "what it starts gets it",
    "deploy/embedded/template.py": "a copy takes over what its order names",
    "throughline/backups.py": "PostgreSQL's programs get it, and its own settings are read there",
    "throughline/demo/system.py": "what it starts gets it",
}
LOOKS_BEHIND = {
    "shared/testing/_harness.py": "stands in for the consumer",
    "tests/service/test_runtime_batches.py": "tries the consumer's parts one by one",
    "tests/service/test_runtime_consumer.py": "aims at a partition",
    "tests/service/test_runtime_personal.py": "tries the keys' consumer by itself",
}


@pytest.mark.parametrize("path", EVERYWHERE, ids=shown)
def test_a_module_is_named_for_what_it_holds(path: Path) -> None:
    names = [path.stem, *path.relative_to(ROOT).parent.parts]
    assert [name for name in names if WITHOUT_A_NAME.search(name)] == []


@pytest.mark.parametrize("path", EVERYWHERE, ids=shown)
def test_a_module_fits_on_its_pages(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= (LONGEST if shown(path) in LONGER_THAN_LONG else LONG)


def test_what_became_short_is_not_called_long_any_more() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in LONGER_THAN_LONG}
    assert {name for name, lines in lengths.items() if lines <= LONG} == set()


@pytest.mark.parametrize("path", modules("shared", "services", "throughline", "deploy"), ids=shown)
def test_the_environment_is_read_by_settings_alone(path: Path) -> None:
    if path.stem == "settings" or shown(path) in HAND_ON_THE_ENVIRONMENT:
        return
    text = ast.unparse(tree(path))
    assert "os.environ" not in text
    assert "getenv" not in text


@pytest.mark.parametrize("path", modules("services", "throughline"), ids=shown)
def test_only_the_runtime_catches_everything_and_goes_on(path: Path) -> None:
    wide = [
        f"line {handler.lineno}"
        for handler in ast.walk(tree(path))
        if isinstance(handler, ast.ExceptHandler)
        if handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
        if not isinstance(handler.body[-1], ast.Raise)
    ]
    assert wide == []


@pytest.mark.parametrize("folder", SHARED_PACKAGES, ids=lambda folder: folder.name)
def test_a_shared_package_shows_what_it_lists(folder: Path) -> None:
    shown_names: set[str] = set()
    listed: list[str] = []
    for node in tree(folder / "__init__.py").body:
        match node:
            case ast.ImportFrom(names=names):
                shown_names |= {name.asname or name.name for name in names}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                shown_names.add(name)
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                listed = ast.literal_eval(value)
    assert set(listed) == shown_names
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("folder", SHARED_PACKAGES, ids=lambda folder: folder.name)
def test_a_file_of_a_shared_package_is_private_or_says_what_it_shows(folder: Path) -> None:
    public = [path for path in folder.glob("*.py") if not path.name.startswith("_")]
    assert [path.name for path in public if "__all__" not in path.read_text()] == []


@pytest.mark.parametrize("path", EVERYWHERE, ids=shown)
def test_nobody_looks_behind_a_shared_package(path: Path) -> None:
    if shown(path) in LOOKS_BEHIND:
        return
    own = ".".join(path.relative_to(ROOT).parts[:2])
    behind = [name for name in imports(path) if re.match(r"shared\.\w+\._[a-z]", name) and not is_or_below(name, own)]
    assert behind == []


def test_the_linter_knows_every_private_module() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    private = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in SHARED_PACKAGES
        for path in folder.glob("_[!_]*.py")
        if folder.name != "testing"
    }
    assert set(config["flake8-tidy-imports"]["banned-api"]) == private


@pytest.mark.parametrize("path", TESTS, ids=shown)
def test_tests_mock_nothing(path: Path) -> None:
    assert [name for name in imports(path) if is_or_below(name, "unittest.mock") or is_or_below(name, "mock")] == []


@pytest.mark.parametrize(
    "path", modules("tests/unit", "tests/service", "tests/contract", "tests/architecture"), ids=shown
)
def test_tests_wait_for_conditions_and_not_for_time(path: Path) -> None:
    sleeps = [
        f"line {call.lineno}"
        for call in calls(path)
        if called(call) in ("time.sleep", "asyncio.sleep") and ast.unparse(call.args[0]) != "0"
    ]
    assert sleeps == []
