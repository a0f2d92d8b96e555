"""`throughline up`, `down` and `ps`: the embedded stack."""

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer

from deploy.embedded.errors import CannotStart, FolderInUse, ProgramFailed
from deploy.embedded.folder import DataFolder, ProcessState
from deploy.embedded.processes import ProcessId, is_alive, wait_until
from throughline.options import DEFAULT_DATA_DIR, AsJson, DataDir

STOP_WITHIN = 90.0


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    port: Annotated[
        int, typer.Option(envvar="THROUGHLINE_PORT", min=0, max=65_535, help="The port of the base URL.")
    ] = 8080,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    report: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the whole system on this machine: PostgreSQL, Kafka, every service, one base URL."""
    folder = DataFolder(data_dir)
    folder.make()
    if detach:
        print(_detached(port, folder))
    elif report is not None:
        _reporting(port, folder, report)
    else:
        _supervise(port, folder, ready=lambda url: print(url, flush=True), tell=_say)


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop a stack: services first, then the gateway, Kafka and PostgreSQL. Its data stays."""
    from deploy.embedded.supervisor import end_leftovers

    folder = DataFolder(data_dir)
    if not folder.holds_a_stack():
        _say(f"Nothing runs on {folder.path}.")
        return
    supervisor = folder.supervisor()
    if supervisor is not None:
        with suppress(ProcessLookupError):  # another `down` was faster
            os.kill(supervisor.pid, signal.SIGTERM)
        if not wait_until(lambda: not is_alive(supervisor), STOP_WITHIN, every=0.05):
            raise ProgramFailed(f"The stack on {folder.path} (process {supervisor.pid}) did not stop.")
    left = False
    try:
        with folder.held(within=STOP_WITHIN):
            left = end_leftovers(folder)
    except FolderInUse:
        if supervisor is None:  # else it is gone, and whoever came since has ended what it left
            raise
    _say(f"Stopped what ran on {folder.path}." if supervisor or left else f"Nothing runs on {folder.path}.")


def ps(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show the processes of a stack."""
    processes = _processes(DataFolder(data_dir))
    if as_json:
        print(json.dumps([_row(process) for process in processes], indent=2))
        return
    if not processes:
        _say(f"Nothing runs on {data_dir}.")
        return
    from throughline.operations import print_table

    columns = ("name", "roles", "pid", "state", "restarts", "port", "management port")
    rows = [_row(process) for process in processes]
    print_table(
        columns,
        [(row["name"], " ".join(row["roles"]), *(row[name.replace(" ", "_")] for name in columns[2:])) for row in rows],
    )


def _supervise(port: int, folder: DataFolder, **hooks: Any) -> None:
    from deploy.embedded.supervisor import Plan, supervise
    from throughline.processes import ENTRY, MODULES, PROCESSES

    try:
        supervise(Plan(folder, port, PROCESSES, ENTRY, MODULES), **hooks)
    except OSError as exc:
        raise CannotStart(f"The stack on {folder.path} cannot run: {exc}.") from exc


def _detached(port: int, folder: DataFolder) -> str:
    """Start a supervisor apart from this terminal; answers the base URL when everything is ready."""
    from deploy.embedded.supervisor import run_again

    reading, writing = os.pipe()
    log = folder.path / "logs" / "supervisor.log"
    words = (
        "throughline",
        "up",
        f"--port={port}",
        f"--data-dir={folder.path}",
        f"--report={writing}",
    )
    supervisor = run_again(words, log, writing)
    os.close(writing)
    try:
        with os.fdopen(reading) as answers:
            told = json.loads(answers.readline() or "{}")
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait()
        raise
    if "url" in told:
        return str(told["url"])
    if supervisor.wait() == 0:
        raise CannotStart(f"The stack on {folder.path} was told to stop while it started.")
    raise CannotStart(
        told.get(
            "error",
            f"The supervisor ended with status {supervisor.returncode}; its log is {log}.",
        )
    )


def _reporting(port: int, folder: DataFolder, descriptor: int) -> None:
    """Be the supervisor that another process waits for."""
    report = os.fdopen(descriptor, "w")
    try:
        _supervise(port, folder, ready=lambda url: _tell(report, url=url), tell=_say)
    except CannotStart as exc:
        _tell(report, error=str(exc))
        sys.exit(1)


def _tell(report: Any, **what: str) -> None:
    if not report.closed:
        json.dump(what, report)
        report.close()


def _processes(folder: DataFolder) -> list[ProcessState]:
    """The processes as their supervisor knows them, and what of that is still so."""
    from concurrent.futures import ThreadPoolExecutor

    state = folder.read_state()
    if state is None:
        return []
    processes = state.processes
    if folder.supervisor() is None:
        processes = [process for process in processes if _lives(process)]
    with ThreadPoolExecutor(max(len(processes), 1)) as looking:
        for process, now in zip(processes, looking.map(_state_now, processes), strict=True):
            process.state = now
    return processes


def _lives(process: ProcessState) -> bool:
    return bool(process.pid and process.created and is_alive(ProcessId(process.pid, process.created)))


def _state_now(process: ProcessState) -> str:
    """What was ready once can have become unready since, or have ended."""
    from deploy.embedded.programs import answers_ok

    if process.state == "ready" and not _lives(process):
        return "ended"
    if process.state == "ready" and process.management_port is not None:
        return "ready" if answers_ok(process.management_port, "/readyz", within=2.0) else "unready"
    return process.state


def _row(process: ProcessState) -> dict[str, Any]:
    return {name: value for name, value in asdict(process).items() if name != "created"}


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
