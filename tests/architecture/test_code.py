"""Rules of the house that hold in every package."""

import ast
import re
import tomllib
from pathlib import Path

from tests.architecture.sources import (
    PACKAGES,
    ROOT,
    SHARED_PACKAGES,
    at_line,
    breaches,
    called,
    calls,
    dotted,
    imports,
    is_or_below,
    modules,
    nodes,
    shown,
    tree,
)

EVERYWHERE = modules(*PACKAGES)
WITHOUT_A_NAME = re.compile(r"(?:^|_)(?:utils?|helpers?|common|base|manager|misc)(?:_|$)")
LONG = 400
LONGEST = 600
LONGER_THAN_LONG = {
    "tests/service/test_embedded_gateway.py",
    "tests/service/test_nurture_sending.py",
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
    "tests/service/batches_world.py": "a batch is made by hand",
    "tests/service/test_runtime_batches.py": "tries the consumer's parts one by one",
    "tests/service/test_runtime_parked.py": "a guard stops a partition, and nothing shows it",
    "tests/service/test_runtime_consumer.py": "aims at a partition",
    "tests/service/test_runtime_hurry.py": "aims at a partition, and makes a record by hand",
    "tests/service/test_runtime_idle.py": "has a statement explained",
    "tests/service/test_runtime_personal.py": "tries the keys' consumer by itself",
    "tests/unit/shared/test_fetch_sessions.py": "stands between a client and its broker",
}


def test_a_module_is_named_for_what_it_holds() -> None:
    def vague(path: Path) -> list[str]:
        names = [path.stem, *path.relative_to(ROOT).parent.parts]
        return [name for name in names if WITHOUT_A_NAME.search(name)]

    assert breaches(EVERYWHERE, vague) == {}


def test_a_module_fits_on_its_pages() -> None:
    def too_long(path: Path) -> list[str]:
        lines = len(path.read_text().splitlines())
        return [f"{lines} lines"] if lines > (LONGEST if shown(path) in LONGER_THAN_LONG else LONG) else []

    assert breaches(EVERYWHERE, too_long) == {}


def test_what_became_short_is_not_called_long_any_more() -> None:
    lengths = {name: len((ROOT / name).read_text().splitlines()) for name in LONGER_THAN_LONG}
    assert {name for name, lines in lengths.items() if lines <= LONG} == set()


def test_the_environment_is_read_by_settings_alone() -> None:
    def hands_on_the_environment(path: Path) -> list[str]:
        if path.stem == "settings" or shown(path) in HAND_ON_THE_ENVIRONMENT:
            return []
        read = [
            at_line(node)
            for node in nodes(path)
            if isinstance(node, ast.Name | ast.Attribute)
            if dotted(node).endswith(("os.environ", "os.environb", "getenv"))
        ]
        written = [
            at_line(node) for node in nodes(path) if isinstance(node, ast.Constant) and "os.environ" in str(node.value)
        ]
        return [*read, *written, *(name for name in imports(path) if name.startswith(("os.environ", "os.getenv")))]

    assert breaches(modules("shared", "services", "throughline", "deploy"), hands_on_the_environment) == {}


def test_only_the_runtime_catches_everything_and_goes_on() -> None:
    def catches_everything(path: Path) -> list[str]:
        return [
            at_line(node)
            for node in nodes(path)
            if isinstance(node, ast.ExceptHandler)
            if node.type is None or dotted(node.type) in ("Exception", "BaseException")
            if not isinstance(node.body[-1], ast.Raise)
        ]

    assert breaches(modules("services", "throughline"), catches_everything) == {}


def test_a_shared_package_shows_what_it_lists() -> None:
    def differs(folder: Path) -> list[str]:
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
        twice = {name for name in listed if listed.count(name) > 1}
        return sorted((set(listed) ^ shown_names) | twice)

    assert breaches(SHARED_PACKAGES, differs) == {}


def test_a_file_of_a_shared_package_is_private_or_says_what_it_shows() -> None:
    def says_nothing(folder: Path) -> list[str]:
        public = [path for path in folder.glob("*.py") if not path.name.startswith("_")]
        return [path.name for path in public if "__all__" not in path.read_text()]

    assert breaches(SHARED_PACKAGES, says_nothing) == {}


def test_nobody_looks_behind_a_shared_package() -> None:
    def behind(path: Path) -> list[str]:
        own = ".".join(path.relative_to(ROOT).parts[:2])
        private = [name for name in imports(path) if re.match(r"shared\.\w+\._[a-z]", name)]
        return [name for name in private if not is_or_below(name, own)]

    assert breaches([path for path in EVERYWHERE if shown(path) not in LOOKS_BEHIND], behind) == {}


def test_the_linter_knows_every_private_module() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    private = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in SHARED_PACKAGES
        for path in folder.glob("_[!_]*.py")
        if folder.name != "testing"
    }
    assert set(config["flake8-tidy-imports"]["banned-api"]) == private


def test_tests_mock_nothing() -> None:
    def mocks(path: Path) -> list[str]:
        return [name for name in imports(path) if is_or_below(name, "unittest.mock") or is_or_below(name, "mock")]

    assert breaches(modules("tests"), mocks) == {}


def test_tests_wait_for_conditions_and_not_for_time() -> None:
    def sleeps(path: Path) -> list[str]:
        return [
            at_line(call)
            for call in calls(path)
            if called(call) in ("time.sleep", "asyncio.sleep") and ast.unparse(call.args[0]) != "0"
        ]

    where = modules("tests/unit", "tests/service", "tests/contract", "tests/architecture")
    assert breaches(where, sleeps) == {}
