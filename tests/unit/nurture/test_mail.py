"""Emails as a real parser reads them, addresses nobody can make, machines told from people."""

from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from importlib import resources
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.nurture.sending.mail import NotMailable, compose, sender_name
from services.nurture.sending.mime import words, written
from services.nurture.templates.rendering import Rendered
from services.nurture.tracking.domain import Asked, Habits, page_of, response_id, why_machine
from services.nurture.tracking.links import Links, Place
from services.nurture.tracking.scanners import Scanners
from shared.ids import MessageId, SequenceId, derived_id
from shared.smtp import Envelope

MESSAGE = MessageId(derived_id("message", "1"))
LINKS = Links(b"k" * 32, "https://leads.example.com/")
AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36"


def composed(**changes: Any) -> Envelope:
    values: dict[str, Any] = {
        "subject": "Hello Änn",
        "text": "plain\n",
        "html": "<p>x</p>",
        "links": (),
        "marker": "m-",
    }
    rendered = Rendered(**{name: changes.pop(name, value) for name, value in values.items()})
    fixed: dict[str, Any] = {
        "message_id": MESSAGE,
        "sequence_id": SequenceId("welcome"),
        "purpose": "marketing",
        "sender": "Acme & Co, Sales <hello@acme.example>",
        "recipient": "ann@example.com",
        "at": AT,
    }
    return compose(rendered, LINKS, **(fixed | changes))


def parsed(envelope: Envelope) -> EmailMessage:
    message = message_from_bytes(envelope.content, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_real_parser_reads_what_was_meant() -> None:
    envelope = composed(html='<p>x <a href="m-0.">y</a></p>', links=("https://a.example",))
    message = parsed(envelope)
    assert (envelope.sender, envelope.recipient) == ("hello@acme.example", "ann@example.com")
    assert message["subject"] == "Hello Änn"
    assert message["from"].addresses[0].display_name == "Acme & Co, Sales"
    assert message["message-id"] == f"<{MESSAGE}@acme.example>"
    assert message["list-id"] == "<welcome.acme.example>"
    assert message["list-unsubscribe"] == f"<{LINKS.address('u', MESSAGE)}>"
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    text, html = message.iter_parts()
    assert isinstance(text, EmailMessage) and text.get_content() == "plain\r\n"
    assert isinstance(html, EmailMessage)
    assert f'href="{LINKS.address("c", MESSAGE, 0)}"' in html.get_content()
    assert LINKS.address("o", MESSAGE) in html.get_content()
    assert not message.defects


def test_the_same_message_has_the_same_message_id() -> None:
    assert parsed(composed())["message-id"] == parsed(composed(subject="other"))["message-id"]


def test_a_transactional_message_has_no_way_to_unsubscribe() -> None:
    assert parsed(composed(purpose="transactional"))["list-unsubscribe"] is None


@pytest.mark.parametrize("breaker", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x00"])
def test_no_header_can_be_injected(breaker: str) -> None:
    with pytest.raises(NotMailable):
        composed(subject=f"Hi{breaker}Bcc: eve@example.com")
    with pytest.raises(NotMailable):
        composed(recipient=f"ann@example.com{breaker}Bcc: eve@example.com")


@pytest.mark.parametrize(
    "recipient",
    [
        "a@example.com, eve@example.com",
        "Eve <eve@example.com>",
        "no-address",
        "@example.com",
        "a@",
        "ä@example.com",
        "",
    ],
)
def test_an_address_is_one_address(recipient: str) -> None:
    with pytest.raises(NotMailable):
        composed(recipient=recipient)


def test_a_domain_with_other_letters_is_written_as_mail_needs_it() -> None:
    assert composed(recipient="ann@bücher.example").recipient == "ann@xn--bcher-kva.example"


def test_long_words_and_lines_arrive_whole() -> None:
    long = "ü" * 3000
    message = parsed(composed(text=f"{long}\n.\n", subject="ü" * 400))
    part = message.get_body(("plain",))
    assert isinstance(part, EmailMessage)
    assert part.get_content() == f"{long}\r\n.\r\n"
    assert message["subject"] == "ü" * 400
    assert all(len(line) <= 998 for line in composed(text=long, subject="ü" * 400).content.split(b"\r\n"))


LINES = st.lists(st.text(st.sampled_from('ab =?_.-\t"<>@,;ä漢🙂'), max_size=90), max_size=5).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", " \r", "\n.\n"]).map(lambda end: end.join(lines))
)


@given(
    subject=st.text(st.sampled_from('ab =?_.-q"<>@,;ä漢🙂'), max_size=120) | st.just("=?utf-8?q?a?= b"),
    text=LINES,
    html=LINES,
)
def test_what_is_written_in_one_pass_reads_as_what_the_library_writes(subject: str, text: str, html: str) -> None:
    subject = subject.strip()
    theirs = EmailMessage(policy=default.clone(linesep="\r\n"))
    theirs["Subject"] = subject
    theirs.set_content(text, cte="quoted-printable")
    theirs.add_alternative(html, subtype="html", cte="quoted-printable")
    wanted = message_from_bytes(theirs.as_bytes(), policy=default)
    content = written([words("Subject", subject)], text, html)
    ours = message_from_bytes(content, policy=default)
    assert ours["subject"] == wanted["subject"] and not ours.defects
    assert [
        (part.get_content_type(), part.get_content()) for part in ours.iter_parts() if isinstance(part, EmailMessage)
    ] == [
        (part.get_content_type(), part.get_content()) for part in wanted.iter_parts() if isinstance(part, EmailMessage)
    ]
    lines = content.split(b"\r\n")
    assert all(len(line) <= 998 and b"\n" not in line and b"\r" not in line for line in lines)


@given(number=st.integers(0, 65535), kind=st.sampled_from(["o", "c", "u"]))
def test_an_address_reads_back(number: int, kind: Any) -> None:
    assert LINKS.read(kind, LINKS.token(kind, MESSAGE, number)) == Place(MESSAGE, number)


@given(st.text(max_size=80))
def test_no_text_is_an_address(text: str) -> None:
    assert LINKS.read("c", text) is None


def test_a_changed_address_and_one_for_another_purpose_count_for_nothing() -> None:
    token = LINKS.token("c", MESSAGE, 1)
    for index in range(len(token) - 1):
        other = "A" if token[index] != "A" else "B"
        assert LINKS.read("c", token[:index] + other + token[index + 1 :]) is None
    assert LINKS.read("u", token) is None
    assert Links(b"x" * 32, "https://leads.example.com").read("c", token) is None


@pytest.mark.parametrize(
    ("method", "agent", "address", "after", "machine"),
    [
        ("GET", BROWSER, "198.51.100.7", 60.0, False),
        ("GET", BROWSER, "no address", 60.0, False),
        ("GET", BROWSER, "198.51.100.7", 1.0, True),
        ("HEAD", BROWSER, "198.51.100.7", 60.0, True),
        ("GET", None, "198.51.100.7", 60.0, True),
        ("GET", "Mozilla/5.0 (compatible; Googlebot/2.1)", "198.51.100.7", 60.0, True),
        ("GET", "Barracuda Sentinel", "198.51.100.7", 60.0, True),
        ("GET", BROWSER, "64.235.150.1", 60.0, True),
        ("GET", BROWSER, "::ffff:64.235.144.0", 60.0, True),
        ("GET", BROWSER, "203.0.113.200", 60.0, True),
        ("GET", BROWSER, "2001:db8::1", 60.0, True),
        ("GET", BROWSER, "64.235.160.0", 60.0, False),
    ],
)
def test_machines_are_told_from_people(
    method: str, agent: str | None, address: str, after: float, machine: bool
) -> None:
    own = [ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")]
    habits = Habits(timedelta(seconds=2), timedelta(seconds=5), timedelta(days=1), Scanners(own))
    asked = Asked(method, agent, address)
    why = why_machine(asked, habits, (), claimed_at=AT, now=AT + timedelta(seconds=after))
    assert (why is not None) is machine, why


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        ("Acme & Co, Sales <hello@acme.example>", "Acme & Co, Sales"),
        ('"Acme" <hello@acme.example>', "Acme"),
        ("<hello@acme.example>", "acme.example"),
        ("hello@acme.example", "acme.example"),
    ],
)
def test_a_sender_that_is_an_address_alone_has_a_name_all_the_same(sender: str, name: str) -> None:
    assert sender_name(sender) == name


def test_every_shipped_network_is_found_by_its_first_and_last_address() -> None:
    scanners = Scanners()
    text = resources.files("services.nurture.tracking").joinpath("scanners.txt").read_text()
    networks = [ip_network(line) for line in text.splitlines() if line[:1].isdigit()]
    assert len(networks) > 30
    for network in networks:
        assert scanners.provider_of(str(network[0]))
        assert scanners.provider_of(str(network[-1]))


def test_a_scanner_does_not_use_up_the_click_of_the_person() -> None:
    ids = {response_id("email_clicked", MESSAGE, 0, automated=automated) for automated in (True, False)}
    assert len(ids) == 2


def test_the_page_of_a_click_holds_no_query() -> None:
    assert page_of("https://site.example/a/b?email=ann%40example.com#x") == "https://site.example/a/b"
