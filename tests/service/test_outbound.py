"""The client for addresses that users name, against real servers: what it reaches, and what it refuses."""

import asyncio
import gzip
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from shared.outbound import AddressRefused, NoAnswer, Outbound, PrivateHosts, Resolve, check_url, is_public
from shared.webhooks import post
from tests.service.local_server import Asked, LocalServer, authority, reply, serving

HERE = "127.0.0.1"
WRITTEN = """
10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.100.100.200 168.63.129.16 0.0.0.0 224.0.0.1 240.0.0.1 192.0.2.1
255.255.255.255 198.18.0.1 :: ::1 fe80::1 fc00::1 fd00:ec2::254 ff02::1 ::ffff:10.0.0.1 ::10.0.0.1 64:ff9b::a00:1
2002:a00:1:: 2001:0:a00:1::
"""
PRIVATE = WRITTEN.split()
NO_ADDRESSES = (
    "",
    "x",
    "//a.com",
    "https://",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "https://example.com:22/",
    "https://example.com/\r\nx: y",
    "https://exa mple.com/",
    "https://a.com\\@b.com/",
    "https://①.com/",
    "http://2130706433/",
    "http://[fe80::1%25eth0]/",
    "https://" + "a" * 9_000,
)


def answering(*rounds: Sequence[str]) -> tuple[list[str], Resolve]:
    """A resolver that answers something else each time it is asked, and the hosts it was asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return rounds[min(len(asked), len(rounds)) - 1]

    return asked, resolve


async def test_a_listed_host_is_called_and_answers() -> None:
    server = LocalServer([reply(201, {"ok": True}, x_its="own")])
    async with serving(server) as address, Outbound([HERE]) as outbound:
        answer = await outbound.call("POST", f"{address}/a?b=c", headers={"x-key": "1"}, content=b"body")
    assert (answer.status, answer.json(), answer.headers["x-its"]) == (201, {"ok": True}, "own")
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body, asked.headers["x-key"]) == ("POST", "/a?b=c", b"body", "1")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "user@127.0.0.1",
        "example.com@127.0.0.1",
        "example.com:80@127.0.0.1",
    ],
)
async def test_no_spelling_of_this_machine_is_reached(host: str) -> None:
    server = LocalServer()
    async with serving(server), Outbound() as outbound:
        with pytest.raises((AddressRefused, NoAnswer)):
            await outbound.call("GET", f"http://{host}:8080/")
        with pytest.raises(AddressRefused):
            await outbound.call("GET", f"http://{host}:{server.port}/")
    assert server.asked == []


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_to_a_private_address_is_refused_also_beside_a_public_one(address: str) -> None:
    assert not is_public(ip_address(address))
    for found in ([address], ["93.184.215.14", address]):
        _, resolve = answering(found)
        async with Outbound(resolve=resolve) as outbound:
            with pytest.raises(AddressRefused, match="leads to"):
                await outbound.call("GET", "https://crm.example.com/")


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public_is_not_refused(address: str) -> None:
    assert is_public(ip_address(address))


async def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """DNS that answers something public and then this machine: each connection is checked by the answer it uses."""
    server = LocalServer()
    async with serving(server):
        asked, resolve = answering(["192.0.2.7"], [HERE])
        async with Outbound(["192.0.2.0/24"], resolve=resolve) as outbound:
            with pytest.raises(NoAnswer):
                await outbound.call("GET", "http://rebinding.example.com/", timeout_s=0.3)
            with pytest.raises(AddressRefused):
                await outbound.call("GET", "http://rebinding.example.com/")
    assert (len(asked), server.asked) == (2, [])


async def test_a_name_is_asked_for_once_a_connection_and_host_and_certificate_keep_it(tmp_path: Path) -> None:
    ca, tls = authority(tmp_path, "crm.intranet")
    server = LocalServer([reply(200, {"n": 1})])
    async with serving(server, tls):
        asked, resolve = answering([HERE])
        async with Outbound(["crm.intranet"], ca_file=ca, resolve=resolve) as outbound:
            answer = await outbound.call("GET", f"https://crm.intranet:{server.port}/")
    assert (answer.json(), asked, server.names) == ({"n": 1}, ["crm.intranet"], ["crm.intranet"])
    assert server.asked[0].headers["host"] == f"crm.intranet:{server.port}"


async def test_a_certificate_for_another_name_does_not_do(tmp_path: Path) -> None:
    ca, tls = authority(tmp_path, "other.intranet")
    server = LocalServer()
    async with serving(server, tls):
        _, resolve = answering([HERE])
        async with Outbound(["crm.intranet"], ca_file=ca, resolve=resolve) as outbound:
            with pytest.raises(NoAnswer):
                await outbound.call("GET", f"https://crm.intranet:{server.port}/")
    assert server.asked == []


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    inner, outer = LocalServer(), LocalServer()
    async with serving(inner) as secret, serving(outer) as address, Outbound([HERE]) as outbound:
        outer.answers = [reply(302, b"", location=f"{secret}/metadata")]
        answer = await outbound.call("GET", address)
    assert (answer.status, answer.is_success, inner.asked) == (302, False, [])


async def test_an_answer_is_bounded_in_size_packed_or_not() -> None:
    packed = gzip.compress(b"0" * 5_000_000)
    server = LocalServer([reply(200, b"0" * 3_000), reply(200, packed, content_encoding="gzip")])
    async with serving(server) as address, Outbound([HERE]) as outbound:
        for _ in range(2):
            with pytest.raises(NoAnswer, match="more than 2000 bytes"):
                await outbound.call("GET", address, largest=2_000)
        server.answers = [reply(200, gzip.compress(b'{"a":1}'), content_encoding="gzip")]
        assert (await outbound.call("GET", address)).json() == {"a": 1}
        server.answers = [reply(200, b"x", content_encoding="br")]
        with pytest.raises(NoAnswer):
            await outbound.call("GET", address)


async def test_an_answer_that_drips_is_bounded_in_time() -> None:
    stop = asyncio.Event()

    async def never(_: Asked) -> bytes:
        await stop.wait()
        return b""

    async with serving(LocalServer(respond=never)) as address, Outbound([HERE]) as outbound:
        with pytest.raises(NoAnswer, match=r"within 0\.3 seconds"):
            await outbound.call("GET", address, timeout_s=0.3)
        stop.set()


async def test_where_the_status_is_all_that_is_asked_for_no_body_keeps_it_from_being_heard() -> None:
    large, broken = reply(200, b"0" * 3_000_000), reply(202, b"x", content_encoding="br")
    cut = reply(201, b"12345")[:-3]
    async with serving(LocalServer([large, broken, cut])) as address, Outbound([HERE]) as outbound:
        answers = [await outbound.call("POST", address, content=b"", status_alone=True) for _ in range(3)]
        verdict = await post(outbound, address, {}, b"", 1, "one")
    assert [(answer.status, answer.body) for answer in answers] == [(200, b""), (202, b""), (201, b"")]
    assert verdict.is_success


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = LocalServer(), LocalServer()
    async with serving(proxy) as via, serving(server) as address:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, via)
        async with Outbound([HERE]) as outbound:
            await outbound.call("GET", address)
    assert (len(server.asked), proxy.asked) == (1, [])


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_is_no_address_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url, PrivateHosts())


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "a.localhost", "metadata.google.internal", "nas.local", "db"]
)
def test_names_of_private_networks_are_refused_before_dns_is_asked(host: str) -> None:
    with pytest.raises(AddressRefused, match="private network"):
        check_url(f"https://{host}/", PrivateHosts())
    assert check_url(f"https://{host}/", PrivateHosts([host])).host
    assert check_url(
        f"https://{host}/", PrivateHosts(["10.0.0.0/8"])
    ).host  # where it leads is looked at when it is called


def test_a_network_can_be_listed() -> None:
    private = PrivateHosts(["10.1.0.0/16", "CRM.intranet."])
    assert check_url("http://10.1.2.3:9999/", private).port == 9_999
    assert check_url("http://crm.intranet:9999/", private).host == "crm.intranet"
    with pytest.raises(AddressRefused):
        check_url("http://10.2.0.1/", private)
