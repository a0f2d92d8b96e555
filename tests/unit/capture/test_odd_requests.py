"""Whatever comes in, an adapter says BadSignature or Unmappable and nothing else, and has a name for the delivery."""

import base64
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture.adapters import adapters
from services.capture.adapters.adapter import BadSignature, Headers, HookRequest, MappingSettings, Unmappable
from tests.samples.signed import KINDS, sample

pytestmark = pytest.mark.slow

SETTINGS = MappingSettings.of(
    {
        "email": "a.b.0",
        "name": {"cel": "body.name"},
        "touch.url": "url",
        "attributes.x": {"cel": "body"},
        "employees": "n",
    },
    {"phone_country": "US"},
)
HEADER_NAMES = st.sampled_from(
    [name for kind in KINDS for name, _ in sample(kind).request.headers.pairs]
    + ["authorization", "content-type", "svix-id", "svix-timestamp", "svix-signature", "x-shopify-topic"]
)
HEADER_VALUES = st.one_of(
    st.text(max_size=60),
    st.text("v01,= t", max_size=40),
    st.binary(max_size=40).map(lambda raw: "Basic " + base64.b64encode(raw).decode()),
    st.binary(max_size=40).map(lambda raw: "v1a," + base64.b64encode(raw).decode()),
    st.sampled_from(
        [
            "Bearer",
            "Bearer x",
            "Basic !",
            "t=1,v1=" + "0" * 64,
            "multipart/form-data",
            "multipart/form-data; boundary=b",
            'multipart/form-data; boundary="',
            "application/x-www-form-urlencoded",
            "orders/paid",
            "refunds/create",
            "customers/redact",
            "1772625870",
        ]
    ),
)
HEADERS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"a": 1, "a": 2}',
            b'{"n": NaN}',
            b'{"n": 1e999}',
            b'{"n": ' + b"9" * 5_000 + b"}",
            b'{"t": "\\u0000"}',
            b'{"t": "\\ud800"}',
            b"[" * 100_000,
            b'{"a":' * 33 + b"1" + b"}" * 33,
            b"\xff\xfe{}",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n',
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx",
            b"a=%00&b=%ff",
        ]
    ),
)


def request_with(headers: list[tuple[str, str]], body: bytes, query: str = "") -> HookRequest:
    return replace(
        sample("generic").request, headers=Headers.of(headers), raw_body=body, url=f"https://x.example/h?{query}"
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(headers=HEADERS, body=BODIES, query=st.text(max_size=40))
def test_no_request_is_accepted_without_proof(
    kind: str, headers: list[tuple[str, str]], body: bytes, query: str
) -> None:
    known = sample(kind)
    request = request_with(headers, body, query)
    with pytest.raises(BadSignature):
        adapters()[kind].verify(request, [known.secret], known.now)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(headers=HEADERS, body=BODIES)
def test_no_body_breaks_an_adapter(kind: str, headers: list[tuple[str, str]], body: bytes) -> None:
    adapter, secret = adapters()[kind], sample(kind).secret
    request = adapter.stored(request_with(headers, body), [secret])
    for mapped in (MappingSettings(), SETTINGS):
        assert adapter.delivery_id(request, mapped).startswith(f"{kind}:")
        assert adapter.delivery_id(request, mapped) == adapter.delivery_id(request, mapped)
        with suppress(Unmappable):
            for fact in adapter.facts(request, mapped):
                assert fact.idempotency_key.startswith(f"{kind}:")


JSON_KINDS = [kind for kind in KINDS if sample(kind).request.raw_body[:1] in (b"{", b"[")]
SIGNED_ELSEWHERE = frozenset({"mailgun", "sendgrid", "ses"})  # in the body, or with a key that only the provider has


def _changed(value: Any, places: list[int], odd: Any) -> Any:
    """The value with something odd at one place in it."""
    if not places:
        return odd
    if isinstance(value, dict) and value:
        name = list(value)[places[0] % len(value)]
        return value | {name: _changed(value[name], places[1:], odd)}
    if isinstance(value, list) and value:
        place = places[0] % len(value)
        return [*value[:place], _changed(value[place], places[1:], odd), *value[place + 1 :]]
    return odd


@pytest.mark.parametrize("kind", JSON_KINDS)
@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.integers(0, 30), max_size=6),
    odd=st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    | st.just([])
    | st.just({})
    | st.just([1])
    | st.just({"a": []}),
)
def test_a_true_body_with_something_odd_in_it_is_mapped_or_not(kind: str, places: list[int], odd: Any) -> None:
    known, adapter = sample(kind), adapters()[kind]
    body = orjson.dumps(_changed(orjson.loads(known.request.raw_body), places, odd))
    request = known.with_body(body)
    in_body = known.secret.encode() in known.request.raw_body
    if kind not in SIGNED_ELSEWHERE and (not in_body or known.secret.encode() in body):
        adapter.verify(request, [known.secret], known.now)
    with suppress(Unmappable):
        for fact in adapter.facts(request, known.settings):
            orjson.dumps(fact, default=dict)


@pytest.mark.parametrize("kind", KINDS)
def test_a_delivery_sent_again_has_the_same_name(kind: str) -> None:
    known, adapter = sample(kind), adapters()[kind]
    again = replace(known.request, received_at=known.now.replace(hour=23))
    assert adapter.delivery_id(again, known.settings) == adapter.delivery_id(known.request, known.settings)
    if len(known.all_expected) == 1:
        assert adapter.delivery_id(again, known.settings) == known.expected["idempotency_key"]


@pytest.mark.parametrize("kind", KINDS)
def test_different_bodies_without_a_name_have_different_names(kind: str) -> None:
    names = {adapters()[kind].delivery_id(request_with([], body)) for body in (b"", b"{}", b"[]", b"{")}
    assert len(names) == 4
