"""A TCP proxy between an api and PostgreSQL that can swallow replies and then cut the connection."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from deploy.embedded.ports import free_port
from deploy.embedded.processes import wait_until
from tests.faults.cluster import Cluster, environment_of, is_ready


@contextmanager
def cut_replies(cluster: Cluster) -> Iterator[tuple[str, threading.Event]]:
    """A second capture api behind the proxy; while the event is set, a commit's reply is lost and the line cut."""
    cut = threading.Event()
    over = threading.Event()
    target = urlsplit(cluster.postgres.url)
    listener = socket.create_server(("127.0.0.1", free_port()))
    listener.settimeout(0.2)
    threading.Thread(target=_accept, args=(listener, target.port, cut, over), daemon=True).start()
    url = cluster.postgres.url.replace(f":{target.port}/", f":{listener.getsockname()[1]}/")
    port, management = free_port(), free_port()
    environment = environment_of(cluster, port, management) | {"THROUGHLINE_DATABASE_URL": url}
    process = subprocess.Popen([sys.executable, "-m", "throughline", "run", "capture", "api"], env=environment)
    try:
        assert wait_until(lambda: is_ready(management), 60)
        yield f"http://127.0.0.1:{port}", cut
    finally:
        process.kill()
        process.wait()
        over.set()
        listener.close()


def _accept(listener: socket.socket, port: int | None, cut: threading.Event, over: threading.Event) -> None:
    assert port is not None
    while not over.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=_pump, args=(client, server, None), daemon=True).start()
        threading.Thread(target=_pump, args=(server, client, cut), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, cut: threading.Event | None) -> None:
    """Pass bytes on; replies are dropped, and the line cut, while the event is set."""
    with suppress(OSError):
        while data := source.recv(65_536):
            if cut is not None and cut.is_set():
                break
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.close()
