"""What a service's code may do, and where."""

import ast
from pathlib import Path

from tests.architecture.sources import (
    ROOT,
    SERVICE_FOLDERS,
    at_line,
    breaches,
    called,
    calls,
    imports,
    is_or_below,
    modules,
    nodes,
    shown,
)
from throughline.services import SERVICES

SERVICE_MODULES = modules("services")

# A later layer may use the ones before it. Modules of other names belong to the layer of whoever uses them.
LAYERS = {"domain": 0, "queries": 1, "handlers": 2, "api": 3, "consumer": 4, "worker": 4}
STATEMENTS_ELSEWHERE = {
    "services/nurture/measurement/counts.py": "about counts alone: those of reports fill a file",
    "services/nurture/sending/reconciling.py": "about unknown messages alone: those of the ledger fill a file",
    "services/nurture/sending/resending.py": "about messages that are sent again alone: the same",
    "services/nurture/sending/turns.py": "about runs that are due alone: the same",
    "services/attribution/pipeline/reading.py": "composed of what is asked for, beside what composes them",
    "services/attribution/pipeline/sums.py": "about marks and their sums alone: those of facts fill a file",
    "services/capture/accounts/standings.py": "about leads in accounts alone: those of accounts fill a file",
    "services/capture/forgotten.py": "its one question is to a table of the runtime",
    "services/capture/leads/batches.py": "the same as in queries, for many at once: beside the one that uses them",
    "services/capture/leads/erasure.py": "erasing is statements one after another",
    "services/capture/leads/folding.py": "restoring is statements one after another",
    "services/capture/leads/sealing.py": "sealing what an earlier version wrote is one thing, in one place",
    "services/nurture/sending/sealing.py": "the same",
    "services/scoring/segments/counting.py": "its one question is about touches, with all that it takes to ask it",
    "services/scoring/segments/lists.py": "about lists alone: those of segments fill a file",
    "services/scoring/people/beside.py": "about rows beside those that serve alone: what makes and moves them",
    "services/scoring/people/histories.py": "its one question, and how its answer is read",
    "services/routing/assignments/inputs.py": "the same",
    "services/routing/crm/salesforce.py": "it asks Salesforce, in its own language",
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


def test_a_service_is_laid_out_like_the_others() -> None:
    def missing(folder: Path) -> list[str]:
        files = ["README.md", "api.py", "consumer.py", "worker.py", "errors.py", "projection.sql"]
        first = [] if list((folder / "migrations" / "versions").glob("0001_*.py")) else ["migrations/versions/0001_"]
        return [*(name for name in files if not (folder / name).is_file()), *first]

    assert breaches(SERVICE_FOLDERS, missing) == {}


def test_services_never_commit() -> None:
    def ends_a_transaction(path: Path) -> list[str]:
        ends = ("commit", "rollback")
        return [
            at_line(call) for call in calls(path) if isinstance(call.func, ast.Attribute) and call.func.attr in ends
        ]

    assert breaches(SERVICE_MODULES, ends_a_transaction) == {}


def test_services_never_print() -> None:
    def prints(path: Path) -> list[str]:
        return [at_line(call) for call in calls(path) if called(call) == "print"]

    assert breaches(SERVICE_MODULES, prints) == {}


def test_sql_is_written_as_sql() -> None:
    def builds_sql(path: Path) -> list[str]:
        return [name for name in imports(path) if is_or_below(name, "sqlalchemy")]

    assert breaches(SERVICE_MODULES, builds_sql) == {}


def test_a_statement_is_a_constant_of_its_module() -> None:
    """Its text is the same at every call, so no value can get into it, and the server prepares it once."""

    def composed(path: Path) -> list[str]:
        return [
            at_line(call)
            for call in calls(path)
            if isinstance(call.func, ast.Attribute) and call.func.attr in STATEMENTS and call.args
            if isinstance(call.args[0], ast.JoinedStr | ast.BinOp | ast.Constant)
        ]

    assert breaches(SERVICE_MODULES, composed) == {}


def test_sql_stands_in_queries() -> None:
    def sql(path: Path) -> list[str]:
        return [
            at_line(node)
            for node in nodes(path)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            if node.value.lstrip().startswith(("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "WITH "))
        ]

    elsewhere = [path for path in SERVICE_MODULES if path.stem != "queries" and shown(path) not in STATEMENTS_ELSEWHERE]
    assert breaches(elsewhere, sql) == {}


def test_a_module_uses_only_layers_below_its_own() -> None:
    def above(path: Path) -> list[str]:
        return [
            name
            for name in imports(path)
            if name.startswith("services.")
            for part in name.split(".")[2:]
            if LAYERS.get(part, 0) > LAYERS[path.stem]
            and (ROOT / (name.partition(f".{part}")[0].replace(".", "/")) / f"{part}.py").exists()
        ]

    assert breaches([path for path in SERVICE_MODULES if path.stem in LAYERS], above) == {}


def test_decisions_are_pure() -> None:
    def impure(path: Path) -> list[str]:
        return [
            *(name for name in imports(path) if any(is_or_below(name, each) for each in WITHOUT_SIDE_EFFECTS)),
            *(at_line(call) for call in calls(path) if called(call) in CLOCKS),
            *(at_line(node) for node in nodes(path) if isinstance(node, ast.AsyncFunctionDef | ast.Await)),
        ]

    assert breaches([path for path in SERVICE_MODULES if path.stem == "domain"], impure) == {}
