"""The gateway, as its own process, before a real service and before sockets that misbehave."""

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.embedded.ports import LOOPBACK, free_port
from deploy.embedded.processes import Running, running, wait_until
from deploy.embedded.programs import PythonProgram, gateway_program


@pytest.fixture(scope="module")
def echo_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real service, `echo`, on uvicorn."""
    port = free_port()
    words = (
        "uvicorn",
        "tests.service.echo_service:app",
        "--port",
        str(port),
        "--log-level",
        "error",
        "--no-access-log",
    )
    program = PythonProgram("echo", words, port, "/echo")
    with running(program, tmp_path_factory.mktemp("echo") / "log"):
        yield port


class Gateway:
    """A running gateway: `echo` is there, `away` is not, `odd` is whatever a test makes of it."""

    def __init__(self, process: Running, port: int, odd_port: int) -> None:
        self.process = process
        self.port = port
        self.odd_port = odd_port
        self._clients: list[HTTPConnection] = []

    def connect(self) -> HTTPConnection:
        """A client's connection."""
        self._clients.append(HTTPConnection(LOOPBACK, self.port, timeout=20))
        return self._clients[-1]

    def disconnect(self) -> None:
        """Close what `connect` opened."""
        for client in self._clients:
            client.close()
        self._clients.clear()

    def socket(self) -> socket.socket:
        """A client's connection, bare."""
        return socket.create_connection((LOOPBACK, self.port), timeout=20)

    def raw(self, request: bytes) -> bytes:
        """What is answered to these bytes until the connection is closed."""
        with self.socket() as client:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            return everything(client)


@contextmanager
def gateway_before(echo_port: int, folder: Path) -> Iterator[Gateway]:
    away, odd = free_port(), free_port()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((LOOPBACK, free_port())))
        program = gateway_program(listener, {"echo": echo_port, "away": away, "odd": odd})
        process = stack.enter_context(running(program, folder / "log"))
        made = Gateway(process, listener.getsockname()[1], odd)
        yield made
        made.disconnect()
        assert (folder / "log").read_text() == ""  # nothing went wrong unseen, and nothing about a request was logged


@pytest.fixture(scope="module")
def running_gateway(echo_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(echo_port, tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture
def gateway(running_gateway: Gateway) -> Iterator[Gateway]:
    yield running_gateway
    running_gateway.disconnect()


def everything(client: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    got = b""
    while part := client.recv(65536):
        got += part
    return got


def until(client: socket.socket, end: bytes) -> bytes:
    """All bytes until they end in a certain way."""
    got = b""
    while not got.endswith(end):
        part = client.recv(65536)
        assert part, got
        got += part
    return got


def told(response: HTTPResponse) -> dict[str, Any]:
    """What the echo service says it was asked."""
    assert response.status == 200
    answer: dict[str, Any] = json.loads(response.read())
    return answer


def fields(answer: dict[str, Any]) -> dict[str, str]:
    """The header fields it was asked with, by name."""
    return dict(answer["headers"])


@contextmanager
def behaving(port: int, behaviour: Callable[[socket.socket], None]) -> Iterator[list[socket.socket]]:
    """A service whose every connection is handled by a function; the list has each that was accepted."""
    accepted: list[socket.socket] = []
    with socket.create_server((LOOPBACK, port)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                accepted.append(connection)
                threading.Thread(target=behaviour, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in accepted:
                connection.close()


def read_head(connection: socket.socket) -> bytes:
    """One request head."""
    got = b""
    while b"\r\n\r\n" not in got and (part := connection.recv(65536)):
        got += part
    return got


def test_a_request_reaches_its_service_with_prefix_query_and_body(gateway: Gateway) -> None:
    client = gateway.connect()
    client.request("POST", "/echo/v1/things%20here?a=b&c=%2F", b'{"x": 1}', {"Content-Type": "application/json"})
    answer = told(client.getresponse())
    assert (answer["method"], answer["path"], answer["query"]) == ("POST", "/echo/v1/things%20here", "a=b&c=%2F")
    assert answer["body"] == '{"x": 1}'
    assert fields(answer)["content-type"] == "application/json"
    assert fields(answer)["host"] == f"{LOOPBACK}:{gateway.port}"
    assert fields(answer)["x-forwarded-for"] == LOOPBACK
    assert fields(answer)["x-forwarded-proto"] == "http"


def test_a_proxy_in_front_is_believed_about_the_client(gateway: Gateway) -> None:
    client = gateway.connect()
    client.request("GET", "/echo/", headers={"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"})
    answer = fields(told(client.getresponse()))
    assert answer["x-forwarded-for"] == f"203.0.113.7, {LOOPBACK}"
    assert answer["x-forwarded-proto"] == "https"


def test_fields_of_one_connection_are_not_passed_on(gateway: Gateway) -> None:
    client = gateway.connect()
    sent = {
        "Connection": "keep-alive, X-Hop, Upgrade",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "Proxy-Connection": "keep-alive",
        "TE": "trailers",
        "Upgrade": "websocket",
        "X-End-To-End": "2",
    }
    client.request("GET", "/echo/", headers=sent)
    answer = fields(told(client.getresponse()))
    assert answer["x-end-to-end"] == "2"
    assert not answer.keys() & {"connection", "x-hop", "keep-alive", "proxy-connection", "te", "upgrade"}


def test_an_offer_of_http_2_with_a_body_is_read_as_http_1(gateway: Gateway) -> None:
    client = gateway.connect()
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
    for body in (b"first", b"second"):
        client.request("POST", "/echo/", body, offer)
        assert told(client.getresponse())["body"] == body.decode()


def test_connections_are_kept_on_both_sides(gateway: Gateway) -> None:
    client = gateway.connect()
    upstream = set()
    for number in range(50):
        client.request("POST", f"/echo/{number}", b"x" * number)
        answer = told(client.getresponse())
        assert (answer["path"], len(answer["body"])) == (f"/echo/{number}", number)
        upstream.add(answer["connection"])
    assert len(upstream) == 1


def test_requests_sent_at_once_are_answered_in_their_order(gateway: Gateway) -> None:
    requests = b"".join(b"POST /echo/%d HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" % n for n in range(5))
    answers = gateway.raw(requests + b"GET /echo/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    paths = [json.loads(part.partition(b"\r\n\r\n")[2])["path"] for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert paths == ["/echo/0", "/echo/1", "/echo/2", "/echo/3", "/echo/4", "/echo/last"]


def test_bodies_flow_both_ways_as_they_come(gateway: Gateway) -> None:
    with gateway.socket() as client:
        client.sendall(b"POST /echo/stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"5;ext=1\r\nfirst\r\n")
        got = until(client, b"first\r\n")  # it comes back before the next piece is sent
        client.sendall(b"6\r\nsecond\r\n0\r\nTrailer: x\r\n\r\n")
        got += until(client, b"0\r\n\r\n")
        assert got.partition(b"\r\n\r\n")[2] == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"


def test_a_connection_goes_on_after_chunked_bodies(gateway: Gateway) -> None:
    with gateway.socket() as client:
        for _ in range(3):
            client.sendall(b"POST /echo/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\n")
            client.sendall(b"b\r\n0\r\n\r\n")
            assert b'"body": "ab"' in until(client, b"}")


def test_a_large_body_arrives_whole(gateway: Gateway) -> None:
    client = gateway.connect()
    body = os.urandom(1 << 20) * 3
    client.request("POST", "/echo/stream", body)
    assert client.getresponse().read() == body


def test_a_body_waits_in_the_client_while_its_service_does_not_read(gateway: Gateway) -> None:
    before = psutil.Process(gateway.process.pid).memory_info().rss
    sent = 0
    with behaving(gateway.odd_port, lambda connection: None), gateway.socket() as client:
        client.sendall(b"POST /odd/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            while True:
                sent += client.send(b"x" * 1_000_000)
        grown = psutil.Process(gateway.process.pid).memory_info().rss - before
    assert sent < 32_000_000
    assert grown < 4_000_000


def test_a_head_request_gets_no_body_and_the_connection_goes_on(gateway: Gateway) -> None:
    client = gateway.connect()
    for path in ("/echo/", "/echo/stream", "/", "/away/", "/nowhere/"):
        client.request("HEAD", path)
        response = client.getresponse()
        assert response.read() == b""
    client.request("GET", "/echo/empty")
    response = client.getresponse()
    assert (response.status, response.read()) == (204, b"")
    client.request("GET", "/echo/next")
    assert told(client.getresponse())["path"] == "/echo/next"


def test_a_client_that_asks_before_it_sends_is_told_by_the_service(gateway: Gateway) -> None:
    with gateway.socket() as client:
        client.sendall(b"POST /echo/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"body")
        assert b'"body": "body"' in until(client, b"}")
    with gateway.socket() as client:
        client.sendall(b"POST /away/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_service_that_is_away_is_503_and_never_404(gateway: Gateway, method: str) -> None:
    client = gateway.connect()
    client.request(method, "/away/hooks/1?token=x", b"x" * 100 if method in ("POST", "PUT") else None)
    response = client.getresponse()
    assert (response.status, response.headers["content-type"]) == (503, "application/problem+json")
    assert int(response.headers["retry-after"]) > 0
    problem = json.loads(response.read())
    assert (problem["type"], problem["status"]) == ("urn:throughline:problem:dependency-unavailable", 503)
    client.request("GET", "/echo/")
    assert told(client.getresponse())["method"] == "GET"


def test_the_answer_to_a_large_body_that_nobody_takes_still_arrives(gateway: Gateway) -> None:
    for path, status in (("/away/", 503), ("/nowhere/", 404), ("/echo/early", 413)):
        client = gateway.connect()
        client.request("POST", path, b"x" * 3_000_000)
        response = client.getresponse()
        assert response.status == status


def test_paths_outside_every_service(gateway: Gateway) -> None:
    client = gateway.connect()
    for path in ("/nowhere", "/echoes/", "/ECHO/", "//echo/", "/%65cho/", "/echo.", "/.."):
        client.request("GET", path)
        response = client.getresponse()
        assert (response.status, response.headers["content-type"]) == (404, "application/problem+json"), path
        response.read()
    client.request("GET", "/?x=1")
    response = client.getresponse()
    assert json.loads(response.read())["services"]["echo"]["docs"] == "/echo/docs"
    client.request("POST", "/", b"x")
    assert client.getresponse().status == 405


def test_a_post_whose_service_dies_before_answering_is_not_sent_again(gateway: Gateway) -> None:
    def die(connection: socket.socket) -> None:
        read_head(connection)
        connection.close()

    with behaving(gateway.odd_port, die) as accepted:
        client = gateway.connect()
        client.request("POST", "/odd/", b"once")
        response = client.getresponse()
        assert (response.status, response.headers["retry-after"]) == (503, "2")
        assert len(accepted) == 1


def test_a_kept_connection_that_its_service_has_closed_costs_a_read_nothing(gateway: Gateway) -> None:
    def answer_once_and_die_at_the_second(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        read_head(connection)
        connection.close()

    with behaving(gateway.odd_port, answer_once_and_die_at_the_second) as accepted:
        client = gateway.connect()
        for _ in range(3):
            client.request("GET", "/odd/")
            assert client.getresponse().read() == b"ok"
        client.request("POST", "/odd/", b"x")
        response = client.getresponse()
        assert (response.status, len(accepted)) == (503, 3)


def test_an_answer_that_is_cut_off_does_not_look_whole(gateway: Gateway) -> None:
    def cut(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        connection.close()

    with behaving(gateway.odd_port, cut):
        client = gateway.connect()
        client.request("GET", "/odd/")
        with pytest.raises(IncompleteRead):
            client.getresponse().read()


def test_an_answer_that_ends_with_its_connection_gets_an_end_of_its_own(gateway: Gateway) -> None:
    def until_close(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        connection.close()

    with behaving(gateway.odd_port, until_close):
        client = gateway.connect()
        for _ in range(2):
            client.request("GET", "/odd/")
            assert client.getresponse().read() == b"all of it"


def test_a_service_that_speaks_no_http_is_503(gateway: Gateway) -> None:
    def babble(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(b"220 mail ready\r\n\r\n")

    with behaving(gateway.odd_port, babble):
        client = gateway.connect()
        client.request("POST", "/odd/", b"x")
        assert client.getresponse().status == 503


def test_an_old_client_gets_a_plain_answer(gateway: Gateway) -> None:
    answer = gateway.raw(b"POST /echo/stream HTTP/1.0\r\nContent-Length: 5\r\n\r\nplain")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"plain"
    assert b"transfer-encoding" not in head.lower()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /odd/ HTTP/1.1\r\nHost: a\r\nX: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /odd/ HTTP/1.1\nHost: a\nContent-Length: 1\n\r\n\r\na",
        b"GET /odd/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /odd/ HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[::1/odd/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /odd/ HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"GET /odd/ x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_a_request_that_two_servers_could_read_differently_is_refused(gateway: Gateway, request_bytes: bytes) -> None:
    with behaving(gateway.odd_port, lambda connection: None) as accepted:
        answer = gateway.raw(request_bytes)
        assert answer.split(b" ")[1] in (b"400", b"501"), answer
        assert b"connection: close" in answer
        assert not accepted


def test_a_chunk_that_is_none_ends_the_request(gateway: Gateway) -> None:
    answer = gateway.raw(b"POST /echo/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_a_second_request_hidden_behind_a_body_is_not_read(gateway: Gateway) -> None:
    hidden = b"GET /echo/hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    chunked = b"POST /echo/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    answer = gateway.raw(chunked + hidden)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /echo/ HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET /echo/ HTTP/2.0\r\nHost: a\r\n\r\n", b"505"),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: a\r\n\r\n", b"501"),
        (b"POST /echo/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"501"),
    ],
)
def test_what_is_not_done_here_is_said(gateway: Gateway, request_bytes: bytes, status: bytes) -> None:
    assert gateway.raw(request_bytes).split(b" ")[1] == status


def test_what_is_under_way_is_finished_at_a_stop(echo_port: int, tmp_path: Path) -> None:
    with gateway_before(echo_port, tmp_path) as gateway, gateway.socket() as client, gateway.socket() as idle:
        client.sendall(b"POST /echo/stream HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
        until(client, b"half\r\n")
        os.kill(gateway.process.pid, signal.SIGTERM)
        assert idle.recv(1) == b""
        client.sendall(b"half")
        assert everything(client).endswith(b"4\r\nhalf\r\n0\r\n\r\n")
        assert gateway.process.wait(60) == 0


def test_a_killed_service_is_503_until_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    words = ("uvicorn", "tests.service.echo_service:app", "--port", str(port), "--log-level", "error")
    service = PythonProgram("echo", words, port, "/echo")
    with gateway_before(port, tmp_path) as gateway:
        client = gateway.connect()

        def status() -> int:
            client.request("POST", "/echo/", b"x")
            response = client.getresponse()
            response.read()
            return response.status

        with running(service, tmp_path / "service") as process:
            assert status() == 200
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert status() == 503
        with running(service, tmp_path / "service"):
            assert wait_until(lambda: status() == 200, 60)
