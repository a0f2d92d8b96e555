"""The whole embedded stack by its command line: it starts, refuses a second, survives kills, goes without a trace."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cached_property
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.embedded.folder import DataFolder, ProcessState
from deploy.embedded.ports import LOOPBACK, free_port, is_listening
from deploy.embedded.processes import ProcessId, identify, is_alive, marked, wait_until
from deploy.embedded.programs import answers_ok
from throughline.processes import GIVES_WAY
from throughline.services import SERVICES

pytestmark = pytest.mark.slow
PATIENCE = 120.0
PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("THROUGHLINE_")}


class StackOnDisk:
    """A data folder, and the command line used on it."""

    def __init__(self, path: Path) -> None:
        self.folder = DataFolder(path)
        self.port = free_port()

    def run(self, *words: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """A command of the command line."""
        return subprocess.run(
            [sys.executable, "-m", "throughline", *words, "--data-dir", str(self.folder.path)],
            capture_output=True,
            text=True,
            env={**PLAIN, **(environment or {})},
            timeout=300,
            check=False,
        )

    def up(self, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Start it, detached."""
        return self.run("up", "--detach", "--port", str(self.port), environment=environment)

    def processes(self) -> dict[str, ProcessState]:
        """The processes by name, as their supervisor sees them."""
        state = self.folder.read_state()
        return {process.name: process for process in state.processes} if state else {}

    def all_ready(self) -> bool:
        """Whether every process is, and says so itself."""
        processes = self.processes().values()
        asked = [process.management_port for process in processes if process.management_port]
        return all(process.state == "ready" for process in processes) and all(
            answers_ok(port, "/readyz") for port in asked
        )

    @cached_property
    def token(self) -> str:
        """A token, by the command that makes them."""
        return self.run("tokens", "create", "--scope", "capture:write").stdout.strip()

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A call of the public API."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        with closing(HTTPConnection(LOOPBACK, self.port, timeout=30)) as client:
            client.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = client.getresponse()
            return response.status, json.loads(response.read() or "null")


@contextmanager
def clean(stack: StackOnDisk) -> Iterator[StackOnDisk]:
    try:
        yield stack
    finally:
        stack.run("down")
        assert marked(stack.folder.path) == []


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackOnDisk]:
    """A running stack."""
    with clean(StackOnDisk(tmp_path_factory.mktemp("stack") / "data")) as made:
        up = made.up()
        assert (up.returncode, up.stdout) == (0, f"http://{LOOPBACK}:{made.port}\n"), up.stderr
        yield made


def kill(shown: ProcessState) -> ProcessId:
    """Kill a process of `ps` at once."""
    assert shown.pid is not None
    process = identify(shown.pid)
    assert process is not None
    os.kill(shown.pid, signal.SIGKILL)
    return process


def test_every_process_is_ready_and_listens_on_loopback_alone(stack: StackOnDisk) -> None:
    listed: list[dict[str, Any]] = json.loads(stack.run("ps", "--json").stdout)
    rows = {row["name"]: row for row in listed}
    assert {"postgres", "kafka", "gateway", "capture-api", "capture-worker"} <= rows.keys()
    assert {row["service"] for row in listed if row["service"]} == set(SERVICES)
    assert rows["capture-worker"]["roles"] == ["consumer", "worker"]
    assert (rows["kafka"]["service"], rows["kafka"]["roles"]) == (None, [])
    for row in listed:
        assert row.keys() == {"name", "service", "roles", "pid", "state", "restarts", "port", "management_port"}
        assert (row["state"], row["restarts"]) == ("ready", 0), row
        assert row["management_port"] is None or answers_ok(row["management_port"], "/readyz"), row
        for each in psutil.Process(row["pid"]).net_connections(kind="inet"):
            if each.status == psutil.CONN_LISTEN:
                assert each.laddr.ip.removeprefix("::ffff:") == LOOPBACK, row


def test_what_has_a_moment_gives_way_to_what_somebody_waits_for(stack: StackOnDisk) -> None:
    listed: list[dict[str, Any]] = json.loads(stack.run("ps", "--json").stdout)
    nice = {row["name"]: psutil.Process(row["pid"]).nice() for row in listed}
    assert nice["nurture"] == nice["routing"] + GIVES_WAY
    assert nice["capture-api"] == nice["capture-worker"] == nice["scoring"] == nice["routing"] == nice["attribution"]


def test_secrets_are_made_for_the_owner_alone(stack: StackOnDisk) -> None:
    for name in ("secrets.json", "settings.json"):
        assert (stack.folder.path / name).stat().st_mode & 0o777 == 0o600
    for log in stack.folder.logs.glob("*.log"):
        assert log.stat().st_mode & 0o077 == 0


def test_a_second_stack_on_the_same_folder_is_refused_in_a_sentence(stack: StackOnDisk) -> None:
    before = stack.processes()
    second = stack.run("up", "--port", str(free_port()))
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"Another stack runs on the data folder {stack.folder.path}" in second.stderr
    assert stack.processes() == before


def test_a_second_stack_on_the_same_port_is_refused_in_a_sentence(stack: StackOnDisk, tmp_path: Path) -> None:
    before = stack.processes()
    second = StackOnDisk(tmp_path)
    second.port = stack.port
    up = second.up()
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr == f"Port {stack.port} is in use: stop what listens there, or choose another with --port.\n"
    assert marked(tmp_path) == []
    assert stack.processes() == before


def test_commands_beside_a_stack_need_no_settings(stack: StackOnDisk) -> None:
    token = stack.run("tokens", "create", "--scope", "capture:read", "--expires", "1h")
    assert len(token.stdout.split()) == 1
    assert token.stdout.count(".") == 2
    assert stack.run("topics", "drift").stdout == "Every topic is as it should be.\n"
    lags = json.loads(stack.run("lag", "--json").stdout)
    assert {row["service"] for row in lags} == set(SERVICES)
    assert {"relay", "scoring.v1"} <= {row["what"] for row in lags}


def test_what_is_personal_stands_in_no_log_and_not_in_kafka(stack: StackOnDisk) -> None:
    canary = "Zyxwvut"
    email = f"{canary}.person@example.com"
    personal = {"email": email, "first_name": canary, "phone": "+441632960999", "attributes": {"note": canary}}
    touch = {"email": email, "type": "page_view", "url": f"https://a.example/?q={canary}", "properties": {"p": canary}}
    asked = [
        ("POST", "/capture/v1/leads", personal, 201),
        ("POST", "/capture/v1/touches", touch, 202),
        ("POST", "/capture/v1/leads", {"email": f"{canary}@@", "country": canary}, 422),
        ("POST", "/capture/v1/leads", f"{canary} is no object", 422),
        ("GET", f"/capture/v1/leads?email={email}", None, 200),
        ("GET", f"/capture/v1/leads/{email}", None, 404),
        ("POST", f"/capture/hooks/unknown?email={email}", {"email": email}, 404),
        ("GET", f"/nowhere?token={canary}", None, 404),
    ]
    for method, path, body, status in asked:
        assert stack.request(method, path, body)[0] == status, (method, path)
    last = stack.request("POST", "/capture/v1/leads", {"email": "last@example.com", "anonymous_id": "last"})[1]

    def published() -> bool:
        relays = [row for row in json.loads(stack.run("lag", "--json").stdout) if row["what"] == "relay"]
        return all(row["lag"] == 0 for row in relays)

    assert wait_until(published, PATIENCE, every=0.5)
    searched = [path for path in (stack.folder.path / "kafka").rglob("*") if path.is_file()]
    assert any(last["lead_id"].encode() in path.read_bytes() for path in searched)
    for file in [*searched, *stack.folder.logs.glob("*.log")]:
        content = file.read_bytes().lower()
        assert canary.lower().encode() not in content, file
        assert b"441632960999" not in content, file


@pytest.mark.parametrize("name", ["capture-worker", "gateway", "template", "postgres", "kafka"])
def test_a_killed_process_is_started_again(stack: StackOnDisk, name: str) -> None:
    assert wait_until(stack.all_ready, PATIENCE, every=0.5)
    before = stack.processes()[name]
    killed = kill(before)
    assert wait_until(lambda: stack.processes()[name].restarts == before.restarts + 1, PATIENCE)
    assert not is_alive(killed)
    assert wait_until(stack.all_ready, PATIENCE, every=0.5)
    after = stack.processes()[name]
    assert (after.port, after.management_port) == (before.port, before.management_port)


def test_no_connection_is_refused_while_the_gateway_is_replaced(stack: StackOnDisk) -> None:
    assert wait_until(stack.all_ready, PATIENCE, every=0.5)
    kill(stack.processes()["gateway"])
    assert answers_ok(stack.port, "/", within=60)


def test_a_killed_supervisor_is_followed_by_one_that_finds_the_data(stack: StackOnDisk) -> None:
    assert wait_until(stack.all_ready, PATIENCE, every=0.5)
    status, lead = stack.request("POST", "/capture/v1/leads", {"email": "kept@example.com"})
    assert status == 201
    left = [identify(shown.pid) for shown in stack.processes().values() if shown.pid]
    supervisor = stack.folder.supervisor()
    assert supervisor is not None
    os.kill(supervisor.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(supervisor), 10)

    up = stack.up()
    assert (up.returncode, up.stdout) == (0, f"http://{LOOPBACK}:{stack.port}\n"), up.stderr
    assert not any(is_alive(process) for process in left if process)
    status, kept = stack.request("GET", f"/capture/v1/leads/{lead['lead_id']}")
    assert (status, kept["email"]) == (200, "kept@example.com")


def test_down_leaves_nothing_behind_and_the_data_in_place(stack: StackOnDisk) -> None:
    assert wait_until(stack.all_ready, PATIENCE, every=0.5)
    status, lead = stack.request("POST", "/capture/v1/leads", {"email": "stays@example.com"})
    assert status == 201
    ports = [shown.port for shown in stack.processes().values() if shown.port]
    with ThreadPoolExecutor(2) as hands:  # two at once: each waits for the end, neither ends the other
        downs = list(hands.map(stack.run, ["down", "down"]))
    assert {down.returncode for down in downs} == {0}, downs
    assert {down.stderr for down in downs} <= {
        f"Stopped what ran on {stack.folder.path}.\n",
        f"Nothing runs on {stack.folder.path}.\n",
    }
    assert marked(stack.folder.path) == []
    assert not any(is_listening(port) for port in ports)
    assert not (stack.folder.path / "postgres" / "postmaster.pid").exists()  # it was stopped cleanly
    assert stack.processes() == {}
    assert stack.run("down").stderr == f"Nothing runs on {stack.folder.path}.\n"
    lag = stack.run("lag")
    assert lag.returncode == 78
    assert "start one with `throughline up`" in lag.stderr

    assert stack.up().returncode == 0
    assert stack.request("GET", f"/capture/v1/leads/{lead['lead_id']}")[1]["email"] == "stays@example.com"


def test_ctrl_c_stops_a_stack_in_the_foreground(tmp_path: Path, database_url: str, kafka_server: str) -> None:
    stack = StackOnDisk(tmp_path)
    given = {
        "THROUGHLINE_DATABASE_URL": database_url,
        "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS": kafka_server,
        "THROUGHLINE_TOPIC_PREFIX": f"given{free_port()}.",
        "THROUGHLINE_TOPIC_PARTITIONS": "1",
    }
    words = ("up", "--port", str(stack.port), "--data-dir", str(tmp_path))
    with (
        clean(stack),
        subprocess.Popen(
            [sys.executable, "-m", "throughline", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**PLAIN, **given},
        ) as foreground,
    ):
        assert foreground.stdout is not None
        assert foreground.stdout.readline() == f"http://{LOOPBACK}:{stack.port}\n"
        assert not {"postgres", "kafka"} & stack.processes().keys()  # given servers are used, none are started
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait(60) == 0
        assert marked(tmp_path.resolve()) == []


def test_a_stack_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    stack = StackOnDisk(tmp_path)
    with clean(stack):
        up = stack.up(THROUGHLINE_TOPIC_PARTITIONS="none")
        assert (up.returncode, up.stdout) == (1, "")
        assert "THROUGHLINE_TOPIC_PARTITIONS" in up.stderr
        assert marked(tmp_path.resolve()) == []


def test_a_stack_that_is_stopped_while_it_starts_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with clean(StackOnDisk(tmp_path / "data")) as stack, ThreadPoolExecutor(1) as beside:
        starting = beside.submit(stack.up)
        assert wait_until(lambda: stack.folder.supervisor() is not None, PATIENCE)
        assert stack.run("down").returncode == 0
        up = starting.result()
        assert (up.returncode, up.stdout) == (1, "")
        assert up.stderr == f"The stack on {stack.folder.path} was told to stop while it started.\n"


def test_a_missing_java_is_told_before_anything_is_started(tmp_path: Path) -> None:
    up = StackOnDisk(tmp_path).up(PATH=str(tmp_path))
    assert (up.returncode, up.stdout) == (1, "")
    assert up.stderr.startswith("No Java was found: install Java 17 or newer")
    assert not (tmp_path / "postgres").exists()


def test_lost_secrets_are_not_replaced_by_new_ones(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    up = StackOnDisk(tmp_path).up()
    assert up.returncode == 1
    assert "secrets.json is gone but there is data that was written with it" in up.stderr
