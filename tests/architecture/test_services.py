"""What a service's code may do, and where."""

import ast
from pathlib import Path

import pytest

from tests.architecture.sources import (
    ROOT,
    SERVICE_FOLDERS,
    called,
    calls,
    imports,
    is_or_below,
    modules,
    shown,
    tree,
)
from throughline.services import SERVICES

SERVICE_MODULES = modules("services")
EACH_MODULE = pytest.mark.parametrize("path", SERVICE_MODULES, ids=shown)
EACH_SERVICE = pytest.mark.parametrize("folder", SERVICE_FOLDERS, ids=lambda folder: folder.name)

# A later layer may use the ones before it. Modules of other names belong to the layer of whoever uses them.
LAYERS = {"domain": 0, "queries": 1, "handlers": 2, "api": 3, "consumer": 4, "worker": 4}
STATEMENTS_ELSEWHERE = {
    "services/attribution/pipeline/reading.py": "composed of what is asked for, beside what composes them",
    "services/attribution/pipeline/sums.py": "about marks and their sums alone: those of facts fill a file",
    "services/capture/accounts/standings.py": "about leads in accounts alone: those of accounts fill a file",
    "services/capture/forgotten.py": "its one question is to a table of the runtime",
    "services/capture/leads/batches.py": "the same as in queries, for many at once: beside the one that uses them",
    "services/capture/leads/erasure.py": "erasing is statements one after another",
    "services/capture/leads/folding.py": "restoring is statements one after another",
    "services/capture/leads/sealing.py": "sealing what an earlier version wrote is one thing, in one place",
    "services/nurture/sending/sealing.py": "the same",
    "services/routing/assignments/inputs.py": "the same",
    "services/routing/deals/sealing.py": "the same",
    "services/routing/assignments/holds.py": "about holds alone: those of assignments fill a file",
}
STATEMENTS = {"execute", "executemany", "fetch", "fetchrow", "fetchval", "cursor"}
WITHOUT_SIDE_EFFECTS = (
    "asyncio",
    "asyncpg",
    "aiokafka",
    "fastapi",
    "httpx",
    "os",
    "random",
    "shared.clock",
    "shared.db",
    "shared.kafka",
    "shared.outbox",
    "shared.personal.PersonKeys",
    "shared.service",
    "shared.telemetry",
    "shared.web",
    "socket",
    "starlette",
    "time",
)
CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time"}


def test_every_service_is_in_the_one_table_of_services() -> None:
    assert {folder.name for folder in SERVICE_FOLDERS} == set(SERVICES)


@EACH_SERVICE
def test_a_service_is_laid_out_like_the_others(folder: Path) -> None:
    files = {"README.md", "api.py", "consumer.py", "worker.py", "errors.py", "projection.sql"}
    assert {name for name in files if not (folder / name).is_file()} == set()
    assert list((folder / "migrations" / "versions").glob("0001_*.py"))


@EACH_MODULE
def test_services_never_commit(path: Path) -> None:
    methods = {call.func.attr for call in calls(path) if isinstance(call.func, ast.Attribute)}
    assert not methods & {"commit", "rollback"}


@EACH_MODULE
def test_services_never_print(path: Path) -> None:
    assert "print" not in {called(call) for call in calls(path)}


@EACH_MODULE
def test_sql_is_written_as_sql(path: Path) -> None:
    assert [name for name in imports(path) if is_or_below(name, "sqlalchemy")] == []


@EACH_MODULE
def test_a_statement_is_a_constant_of_its_module(path: Path) -> None:
    """Its text is the same at every call, so no value can get into it, and the server prepares it once."""
    composed = [
        f"line {call.lineno}"
        for call in calls(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr in STATEMENTS and call.args
        if isinstance(call.args[0], ast.JoinedStr | ast.BinOp | ast.Constant)
    ]
    assert composed == []


@EACH_MODULE
def test_sql_stands_in_queries(path: Path) -> None:
    if path.stem == "queries" or shown(path) in STATEMENTS_ELSEWHERE:
        return
    texts = [
        f"line {node.lineno}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.lstrip().startswith(("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "WITH "))
    ]
    assert texts == []


@EACH_MODULE
def test_a_module_uses_only_layers_below_its_own(path: Path) -> None:
    rank = LAYERS.get(path.stem)
    if rank is None:
        return
    above = [
        name
        for name in imports(path)
        if name.startswith("services.")
        for part in name.split(".")[2:]
        if LAYERS.get(part, 0) > rank
        and (ROOT / (name.partition(f".{part}")[0].replace(".", "/")) / f"{part}.py").exists()
    ]
    assert above == []


@pytest.mark.parametrize("path", [path for path in SERVICE_MODULES if path.stem == "domain"], ids=shown)
def test_decisions_are_pure(path: Path) -> None:
    impure = [name for name in imports(path) if any(is_or_below(name, each) for each in WITHOUT_SIDE_EFFECTS)]
    assert impure == []
    assert not CLOCKS & {called(call) for call in calls(path)}
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
