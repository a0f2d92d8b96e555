"""The data folder of a stack: whose it is, who works on it, and what a crash or a full disk leaves of its files."""

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import psutil
import pytest

from deploy.embedded.child import Child
from deploy.embedded.errors import FolderInUse, FolderUnusable, SecretsLost
from deploy.embedded.folder import DataFolder, ProcessState
from deploy.embedded.ports import kept_ports
from deploy.embedded.processes import wait_until
from throughline import stack


def test_a_folder_with_other_things_in_it_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    tmp_path.chmod(0o755)
    with pytest.raises(FolderUnusable, match=r"is not empty and holds no stack: choose another folder with --data-dir"):
        stack.up(data_dir=tmp_path)
    stack.down(data_dir=tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable, match=r"^The data folder .* cannot be used: .*\.$"):
        stack.up(detach=True, data_dir=tmp_path / "file" / "data")


def test_who_ends_a_stack_is_waited_for_and_is_not_taken_for_its_supervisor(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    entered = Event()

    def come() -> None:
        with DataFolder(folder.path).held(supervising=True, within=60):
            entered.set()

    with ThreadPoolExecutor(1) as beside:
        with folder.held():
            assert folder.supervisor() is None
            coming = beside.submit(come)
            with pytest.raises(FolderInUse, match="Another command is at work"), DataFolder(folder.path).held():
                pass
            assert not entered.is_set()
        coming.result(60)


def test_a_supervisor_is_not_waited_for(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    with folder.held(supervising=True):
        assert folder.supervisor() is not None
        other = DataFolder(folder.path).held(within=1e9)
        with pytest.raises(FolderInUse, match="stop it with `throughline down`"), other:
            pass
    assert folder.supervisor() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how Linux tells when a process was born")
def test_a_supervisor_is_known_after_its_clock_was_set_and_not_after_a_start_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    later = tmp_path / "proc"
    boot_id = later / "sys/kernel/random/boot_id"
    boot_id.parent.mkdir(parents=True)
    boot_id.write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    (later / "stat").write_text(f"btime {int(psutil.boot_time()) - 3_600}\n")
    (later / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    with folder.held(supervising=True, within=0):
        myself = folder.supervisor()
        assert myself is not None
        monkeypatch.setattr(psutil, "PROCFS_PATH", str(later))
        assert folder.supervisor() == myself
        boot_id.write_text("another")
        assert folder.supervisor() is None


def test_files_that_a_crash_cut_off_are_made_anew_but_never_the_secrets(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.make()
    for name in ("state.json", "settings.json", "ports.json", "secrets.json", "lock"):
        (folder.path / name).write_text('{"po')
    assert (folder.read_state(), folder.read_settings(), folder.supervisor()) == (None, None, None)
    assert kept_ports(folder.ports, ["a"]) == kept_ports(folder.ports, ["a"])
    with pytest.raises(SecretsLost, match=r"secrets\.json is damaged"):
        folder.make_secrets()


class Brief:
    """A program that ends at once."""

    name = "brief"
    stop_signal = signal.SIGTERM

    def prepare(self, environment: Mapping[str, str]) -> None:
        """Nothing."""

    def start(self, log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen([sys.executable, "-c", ""], env=dict(environment), start_new_session=True)

    def is_ready(self, pid: int) -> bool:
        """Never."""
        return False


def test_a_program_is_started_again_although_the_disk_is_full(tmp_path: Path) -> None:
    def full(shown: ProcessState) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shown = ProcessState("brief", None, [], None, "starting", 0, None, None)
    child = Child(Brief(), shown, tmp_path / "log", os.environ, full)
    child.start()
    try:
        assert wait_until(lambda: shown.restarts >= 2, 60)
    finally:
        child.ask_to_stop()
        assert child.has_stopped(60)
