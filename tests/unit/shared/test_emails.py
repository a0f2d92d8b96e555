"""One spelling per address, and what its domain tells."""

import unicodedata

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.emails import Email, company_domain, domain_of, is_disposable, is_free, parse_email, registrable_domain


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("  Nora.Fieldgate@Example.COM ", "nora.fieldgate@example.com"),
        ("o'brien+news@acme.ie", "o'brien+news@acme.ie"),
        ("Müller@Exämple.de", "müller@exämple.de"),
        ("x@xn--exmple-cua.de", "x@exämple.de"),
        ("a@acme.test", "a@acme.test"),
        ("a@acme.example", "a@acme.example"),
        (f"{'a' * 64}@acme.com", f"{'a' * 64}@acme.com"),
    ],
)
def test_spellings_of_an_address_are_one(text: str, email: str) -> None:
    assert parse_email(text) == email


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nora",
        "@acme.com",
        "nora@",
        "nora@acme",
        "nora@@acme.com",
        "a b@acme.com",
        "a..b@acme.com",
        ".a@acme.com",
        "a@acme..com",
        "a@-acme.com",
        "Nora <nora@acme.com>",
        "a@[127.0.0.1]",
        "a@1.2.3.4",
        "a@localhost",
        "a@intranet.local",
        "a\x00@acme.com",
        "a\ud800@acme.com",
        "a@acme.com\nBcc: b@acme.com",
        f"{'a' * 65}@acme.com",
        f"a@{'b' * 64}.com",
        f"a@{'b.' * 130}com",
    ],
)
def test_what_no_mail_can_go_to_is_none(text: str) -> None:
    assert parse_email(text) is None


@given(st.text())
@example("İ@acme.com")
def test_no_text_breaks_it(text: str) -> None:
    email = parse_email(text)
    assert email is None or (email.strip() == email and unicodedata.is_normalized("NFC", email))


_LABEL = st.text("abz019-_.+A", max_size=8)


@given(
    st.builds(
        "{}@{}.{}".format, _LABEL, _LABEL, st.sampled_from(["com", "co.uk", "test", "local", "invalid", "c", "x1"])
    )
)
def test_the_fast_way_and_the_whole_grammar_agree(text: str) -> None:
    try:
        address = validate_email(text.lower(), check_deliverability=False, test_environment=True, strict=True)
        expected = address.normalized.lower()
    except EmailNotValidError:
        expected = None
    assert parse_email(text) == expected


@given(st.emails())
def test_a_result_is_its_own_spelling(text: str) -> None:
    email = parse_email(text)
    assert email is None or parse_email(email) == email


@pytest.mark.parametrize("email", ["a@gmail.com", "a@yahoo.co.uk", "a@gmx.de", "a@hey.com", "a@mailinator.com"])
def test_free_mailboxes_name_no_company(email: str) -> None:
    assert is_free(email)
    assert company_domain(email) is None


def test_a_company_is_known_by_its_registrable_domain() -> None:
    assert company_domain("a@mail.acme.co.uk") == "acme.co.uk"
    assert company_domain("a@acme.com") == "acme.com"
    assert not is_free("a@acme.com")
    assert registrable_domain("co.uk") is None
    assert domain_of("a@mail.acme.co.uk") == "mail.acme.co.uk"


def test_throw_away_mailboxes_are_told() -> None:
    assert is_disposable("a@mailinator.com")
    assert is_disposable("a@sub.mailinator.com")
    assert not is_disposable("a@gmail.com")


def test_the_api_type_normalises_and_refuses() -> None:
    emails: TypeAdapter[str] = TypeAdapter(Email)
    assert emails.validate_python(" A@Acme.com") == "a@acme.com"
    with pytest.raises(ValidationError, match="not an email address"):
        emails.validate_python("nope")
