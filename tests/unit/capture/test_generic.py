"""Any sender: every way to carry the secret, every kind of body, every name of a delivery."""

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.capture.adapters import adapters
from services.capture.adapters.adapter import (
    BadSignature,
    Headers,
    HookRequest,
    Ignored,
    LeadFact,
    MappingSettings,
    Unmappable,
)

ADAPTER = adapters()["generic"]
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
SECRET = "a secret/with ünusual & chars+"
FORM = "application/x-www-form-urlencoded"


def request(body: bytes = b"{}", query: str = "", **headers: str) -> HookRequest:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    url = "https://capture.example.com/capture/hooks/src_1" + (f"?{query}" if query else "")
    return HookRequest("POST", url, Headers.of(pairs), body, NOW)


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


def on_the_wire(text: str) -> str:
    """As a server reads the UTF-8 of a header."""
    return text.encode().decode("latin-1")


CARRIERS = {
    "bearer": request(authorization=on_the_wire(f"Bearer {SECRET}")),
    "bearer in lower case": request(authorization=on_the_wire(f"bearer  {SECRET}")),
    "basic, as password": request(authorization=basic(f"hooks:{SECRET}")),
    "query": request(query="token=a+secret%2Fwith+%C3%BCnusual+%26+chars%2B"),
    "query, with a plus as it is": request(query="token=a%20secret%2Fwith%20%C3%BCnusual%20%26%20chars+"),
    "json field": request(json.dumps({"email": "a@acme.com", "key": SECRET}).encode()),
    "form field": request(b"google_key=a+secret%2Fwith+%C3%BCnusual+%26+chars%2B", content_type=FORM),
}


@pytest.mark.parametrize("way", CARRIERS)
def test_the_secret_may_travel_in_any_of_the_ways(way: str) -> None:
    ADAPTER.verify(CARRIERS[way], ["another secret", SECRET], NOW)
    with pytest.raises(BadSignature):
        ADAPTER.verify(CARRIERS[way], ["another secret", "a secret"], NOW)


@pytest.mark.parametrize("way", CARRIERS)
def test_the_secret_is_blanked_before_storing_and_the_body_still_reads(way: str) -> None:
    stored = ADAPTER.stored(CARRIERS[way], [SECRET])
    kept = stored.dump().decode() + stored.raw_body.decode() + stored.url
    for spelling in (SECRET, on_the_wire(SECRET), "with+%C3%BC", base64.b64encode(SECRET.encode()).decode()[4:20]):
        assert spelling not in kept
    assert "\\u00fcnusual" not in kept
    ADAPTER.facts(replace(stored, headers=Headers((*stored.headers.pairs, ("webhook-id", "m1")))))
    with pytest.raises(BadSignature):
        ADAPTER.verify(stored, [SECRET], NOW)


def test_user_and_password_together_may_be_the_secret() -> None:
    ADAPTER.verify(request(authorization=basic("hooks:sesame-open")), ["hooks:sesame-open"], NOW)


@pytest.mark.parametrize(
    "refused",
    [
        request(),
        request(authorization=SECRET),
        request(authorization="Bearer"),
        request(authorization="Basic !!!"),
        request(query="token="),
        request(query="secret=a+secret"),
        request(json.dumps({"deep": {"key": SECRET}}).encode()),
        request(json.dumps([SECRET]).encode()),
        request(f'{{"key": "{SECRET}", "key": "{SECRET}"}}'.encode()),
    ],
)
def test_no_other_way_counts(refused: HookRequest) -> None:
    with pytest.raises(BadSignature):
        ADAPTER.verify(refused, [SECRET], NOW)


def test_a_bad_signature_is_not_made_good_by_a_token() -> None:
    signed = replace(
        CARRIERS["bearer"],
        headers=Headers((*CARRIERS["bearer"].headers.pairs, ("webhook-signature", "v1,AAAA"))),
    )
    with pytest.raises(BadSignature):
        ADAPTER.verify(signed, [SECRET], NOW)


def lead(given: HookRequest, mapping: dict[str, Any] | None = None, **defaults: str) -> LeadFact:
    (fact,) = ADAPTER.facts(given, MappingSettings.of(mapping or {}, defaults))
    assert isinstance(fact, LeadFact)
    return fact


MULTIPART = (
    b'--xyz\r\nContent-Disposition: form-data; name="your-email"\r\n\r\nA@acme.com\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="topics"\r\n\r\nScoring\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="topics"\r\n\r\nRouting\r\n'
    b'--xyz\r\nContent-Disposition: form-data; name="brief"; filename="brief.pdf"\r\n'
    b"Content-Type: application/pdf\r\n\r\n%PDF\x00\xff\r\n--xyz--\r\n"
)
BODIES = {
    "json": request(
        json.dumps({"your-email": "A@acme.com", "topics": ["Scoring", "Routing"], "brief": "brief.pdf"}).encode()
    ),
    "json labelled as a form": request(
        json.dumps({"your-email": "A@acme.com", "topics": ["Scoring", "Routing"], "brief": "brief.pdf"}).encode(),
        content_type=FORM,
    ),
    "form": request(b"your-email=A%40acme.com&topics=Scoring&topics=Routing&brief=brief.pdf", content_type=FORM),
    "multipart": request(MULTIPART, content_type="multipart/form-data; boundary=xyz"),
}


GERMAN = '{"name": "J\u00fcrgen M\u00fcller", "email": "j@acme.com"}'
PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\nContent-Type: text/plain; charset=%s\r\n\r\n%s\r\n'
ENCODED = {
    "json with a byte order mark": request(GERMAN.encode("utf-8-sig"), content_type="application/json"),
    "json with a mark and no label": request(GERMAN.encode("utf-8-sig")),
    "form": request(b"name=J%C3%BCrgen+M%C3%BCller&email=j%40acme.com", content_type=FORM),
    "form in Latin-1": request(
        b"name=J%FCrgen+M%FCller&email=j%40acme.com", content_type=f"{FORM}; charset=ISO-8859-1"
    ),
    "form in Latin-1, unescaped": request(
        b"name=J\xfcrgen+M\xfcller&email=j%40acme.com", content_type=f'{FORM}; charset="windows-1252"'
    ),
    "multipart": request(
        PART % (b"name", b"UTF-8", "J\u00fcrgen M\u00fcller".encode())
        + PART % (b"email", b"x", b"j@acme.com")
        + b"--b--\r\n",
        content_type="Multipart/Form-Data; Boundary=b",
    ),
    "multipart in Latin-1": request(
        PART % (b"name", b"iso-8859-1", b"J\xfcrgen M\xfcller") + PART % (b"email", b"x", b"j@acme.com") + b"--b--\r\n",
        content_type="multipart/form-data; boundary=b",
    ),
}


@pytest.mark.parametrize("way", ENCODED)
def test_a_body_is_read_in_the_encoding_that_it_names(way: str) -> None:
    person = lead(ENCODED[way]).person
    assert (person.first_name, person.last_name, person.email) == ("J\u00fcrgen", "M\u00fcller", "j@acme.com")


@pytest.mark.parametrize("name", ["is_test", "test"])
@pytest.mark.parametrize("mapping", [{}, {"email": "email"}])
def test_what_says_that_it_is_a_test_creates_nothing(name: str, mapping: dict[str, str]) -> None:
    settings = MappingSettings.of(mapping, {})
    for yes in (True, "1", "yes"):
        (fact,) = ADAPTER.facts(request(json.dumps({"email": "a@acme.com", name: yes}).encode()), settings)
        assert isinstance(fact, Ignored)
        assert fact.reason == "test"
    for other in (False, "0", None, "a blood test"):
        body = json.dumps({"email": "a@acme.com", name: other}).encode()
        assert lead(request(body), mapping).person.email == "a@acme.com"


def test_of_an_address_that_a_form_sends_twice_the_first_that_is_one_counts() -> None:
    body = b"email=&email=A%40acme.com&email=b%40acme.com&phone=soon&phone=%2B14155550140&plan=a&plan=b"
    person = lead(request(body, content_type=FORM)).person
    assert (person.email, person.phone, person.attributes) == ("a@acme.com", "+14155550140", {"plan": ["a", "b"]})


@pytest.mark.parametrize(("sent", "consent"), [("0&{}1", "granted"), ("1&{}0", "denied"), ("no", "denied")])
def test_a_box_and_the_hidden_no_before_it_are_one_answer(sent: str, consent: str) -> None:
    body = ("email=a%40acme.com&consent.email=" + sent.format("consent.email=")).encode()
    assert lead(request(body, content_type=FORM)).person.consent == {"email": consent}


@pytest.mark.parametrize("kind", BODIES)
def test_any_kind_of_body_is_mapped_alike(kind: str) -> None:
    mapping = {"email": "your-email", "attributes.topics": "topics", "attributes.file": "brief"}
    person = lead(BODIES[kind], mapping).person
    assert person.email == "a@acme.com"
    assert person.attributes == {"topics": ["Scoring", "Routing"], "file": "brief.pdf"}


def test_without_a_mapping_the_body_has_the_fields_of_the_api() -> None:
    body = {
        "email": "a@acme.com",
        "phone": "+14155550140",
        "external_id": 42,
        "anonymous_id": "anon_1",
        "first_name": "Nora",
        "last_name": "Fieldgate",
        "company": "Acme",
        "title": "CTO",
        "country": "US",
        "region": "CA",
        "industry": "dental",
        "employees": 12,
        "annual_revenue": 1_000_000,
        "use_case": "routing",
        "attributes": {"plan": "pro"},
        "consent": {"email": "granted", "sms": "denied"},
        "touch": {
            "type": "demo_requested",
            "channel": "paid_search",
            "source": "google",
            "medium": "cpc",
            "campaign": "spring",
            "content": "ad-a",
            "url": "https://acme.com/demo",
            "referrer": "https://google.com/",
            "properties": {"seats": 3},
        },
        "occurred_at": "2026-03-04T11:00:00+01:00",
    }
    fact = lead(request(json.dumps(body).encode()))
    person, touch = fact.person, fact.touch
    assert {name: getattr(person, name) for name in body if hasattr(person, name)} == {
        name: str(value) if name == "external_id" else value for name, value in body.items() if hasattr(person, name)
    }
    assert touch is not None
    assert (touch.type, touch.channel, touch.url) == ("demo_requested", "paid_search", "https://acme.com/demo")
    assert touch.utm == {"source": "google", "medium": "cpc", "campaign": "spring", "content": "ad-a"}
    assert (touch.referrer, touch.properties) == ("https://google.com/", {"seats": 3})
    assert (fact.occurred_at, fact.timed_by) == (datetime(2026, 3, 4, 10, tzinfo=UTC), "source")


def test_a_plain_html_form_needs_no_mapping() -> None:
    body = b"Full+Name=Nora+Fieldgate&Email+Address=a%40acme.com&Company+Name=Acme&message=Hi"
    body += b"&utm_source=news&consent.email=on"
    fact = lead(request(body, content_type=FORM))
    person = fact.person
    assert (person.first_name, person.last_name, person.email, person.company) == (
        "Nora",
        "Fieldgate",
        "a@acme.com",
        "Acme",
    )
    assert (person.attributes, person.consent) == ({"message": "Hi"}, {"email": "granted"})
    assert fact.touch is not None
    assert (fact.touch.type, fact.touch.utm) == ("form_submitted", {"source": "news"})
    assert (fact.occurred_at, fact.timed_by) == (NOW, "receipt")


def test_with_a_mapping_only_the_mapped_fields_count_and_the_visit() -> None:
    body = {"email": "boss@acme.com", "title": "Contact us", "mail": "a@acme.com", "utm_source": "news", "gclid": "1"}
    fact = lead(request(json.dumps(body).encode()), {"email": "mail"})
    assert (fact.person.email, fact.person.title, fact.person.attributes) == ("a@acme.com", None, {})
    assert fact.touch is not None
    assert (fact.touch.utm, fact.touch.click_ids) == ({"source": "news"}, {"gclid": "1"})


def test_a_list_needs_a_mapping() -> None:
    body = request(b'[{"mail": "a@acme.com"}]')
    assert lead(body, {"email": "0.mail"}).person.email == "a@acme.com"
    with pytest.raises(Unmappable):
        lead(body)


@pytest.mark.parametrize(
    "odd",
    [
        request(b""),
        request(b"hello", content_type="text/plain"),
        request(b"a=b"),
        request(b"a=%00", content_type=FORM),
        request(b"a=%ff", content_type=FORM),
        request(b"&".join(b"a%d=1" % n for n in range(1_001)), content_type=FORM),
        request(MULTIPART, content_type="multipart/form-data"),
        request(MULTIPART.replace(b"--xyz", b"----xyz"), content_type="multipart/form-data; boundary="),
        request(MULTIPART[:-10], content_type="multipart/form-data; boundary=xyz"),
        request(MULTIPART, content_type="multipart/form-data; boundary=other"),
        request(MULTIPART.replace(b"A@acme", b"A\xff"), content_type="multipart/form-data; boundary=xyz"),
    ],
)
def test_what_is_neither_json_nor_a_form_cannot_be_mapped(odd: HookRequest) -> None:
    with pytest.raises(Unmappable):
        lead(odd)


@pytest.mark.parametrize("name", ["is_test", "test"])
def test_a_try_creates_nothing(name: str) -> None:
    (fact,) = ADAPTER.facts(request(json.dumps({"email": "a@acme.com", name: True}).encode()))
    assert isinstance(fact, Ignored)
    assert fact.reason == "test"


def test_a_byte_order_mark_makes_json_nothing_else() -> None:
    body = request(b'\xef\xbb\xbf {"email": "a@acme.com"}', content_type="application/json")
    assert lead(body).person.email == "a@acme.com"


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO-8859-1", b"Ren%E9"), ("windows-1252", b"Ren%e9"), ("UTF-8", b"Ren%C3%A9"), ("", b"Ren\xc3\xa9")],
)
def test_a_form_may_be_in_another_character_set_if_it_says_so(charset: str, name: bytes) -> None:
    body = b"email=a%40acme.com&first_name=" + name
    assert lead(request(body, content_type=f"{FORM}; charset={charset}")).person.first_name == "Ren\u00e9"
    with pytest.raises(Unmappable):
        lead(request(b"email=a%40acme.com&first_name=Ren%E9", content_type=f"{FORM}; charset=rot13"))


def test_of_a_field_that_a_form_has_twice_the_first_that_fits_counts() -> None:
    body = b"email=&email=a%40acme.com&email=b%40acme.com&phone=none&phone=%2B14155550140&first_name=Ana&first_name=Ana"
    fact = lead(request(body + b"&utm_source=a&utm_source=b&gclid=1&gclid=2", content_type=FORM))
    assert (fact.person.email, fact.person.phone, fact.person.first_name) == ("a@acme.com", "+14155550140", "Ana")
    assert fact.touch is not None
    assert (fact.touch.utm, fact.touch.click_ids) == ({"source": "a"}, {"gclid": "1"})


@pytest.mark.parametrize(
    ("sent", "consent"), [("0 1", {"email": "granted"}), ("0 0", {"email": "denied"}), ("0 x", {})]
)
def test_a_hidden_no_before_a_ticked_box_is_no_refusal(sent: str, consent: dict[str, str]) -> None:
    boxes = "".join(f"&consent.email={box}" for box in sent.split())
    assert lead(request(f"email=a%40acme.com{boxes}".encode(), content_type=FORM)).person.consent == consent


def test_a_delivery_is_named_by_its_id_then_its_mapped_key_then_its_bytes() -> None:
    body = json.dumps({"email": "a@acme.com", "n": 7, "idempotency_key": "k1"}).encode()
    mapped = MappingSettings.of({"email": "email", "idempotency_key": "n"}, {})
    unnamed = MappingSettings.of({"email": "email"}, {})
    assert ADAPTER.delivery_id(request(body, webhook_id="msg_1"), mapped) == "generic:msg_1"
    assert ADAPTER.delivery_id(request(body), mapped) == "generic:7"
    assert ADAPTER.delivery_id(request(body)) == "generic:k1"
    assert ADAPTER.delivery_id(request(body), unnamed) == "generic:" + hashlib.sha256(body).hexdigest()
    assert lead(request(body), {"email": "email", "idempotency_key": "n"}).idempotency_key == "generic:7"


def test_the_name_does_not_depend_on_which_secret_was_echoed() -> None:
    bodies = [
        request(json.dumps({"email": "a@acme.com", "token": secret}).encode())
        for secret in ("old secret", "new secret")
    ]
    names = {ADAPTER.delivery_id(ADAPTER.stored(body, ["old secret", "new secret"])) for body in bodies}
    assert len(names) == 1
    (fact,) = ADAPTER.facts(ADAPTER.stored(bodies[0], ["old secret"]))
    assert isinstance(fact, LeadFact)
    assert fact.person.attributes == {}
