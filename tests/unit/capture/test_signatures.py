"""Who cannot prove a secret is refused, in every way of signing; who can is not, also while secrets are changed."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from services.capture.adapters import adapters
from services.capture.adapters.adapter import BadSignature, Headers, HookRequest
from tests.samples.signed import KINDS, Sample, sample, sign

pytestmark = pytest.mark.slow

SIGNATURE = {
    "typeform": "typeform-signature",
    "stripe": "stripe-signature",
    "shopify": "x-shopify-hmac-sha256",
    "standard_webhooks": "webhook-signature",
    "generic": "webhook-signature",
    "calendly": "calendly-webhook-signature",
    "cal_com": "x-cal-signature-256",
    "mindbody": "x-mindbody-signature",
    "square": "x-square-hmacsha256-signature",
    "woocommerce": "x-wc-webhook-signature",
    "slack": "x-slack-signature",
    "webflow": "x-webflow-signature",
    "tally": "tally-signature",
    "resend": "svix-signature",
    "segment": "x-signature",
}
SIGNERS = sorted(SIGNATURE)  # of the others the secret is in the request, or not everything is signed
TIMED = ["stripe", "standard_webhooks", "generic", "resend"]
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret, and a good one").decode()


def accepts(given: Sample, request: HookRequest, secrets: Sequence[str], later: timedelta = timedelta()) -> bool:
    try:
        adapters()[given.kind].verify(request, secrets, given.now + later)
    except BadSignature:
        return False
    return True


@pytest.mark.parametrize("kind", SIGNERS)
def test_a_changed_body_is_refused(kind: str) -> None:
    given = sample(kind)
    body = given.request.raw_body
    for changed in (body + b" ", body[:-1], body.replace(b"example.com", b"example.org"), b""):
        assert changed != body
        assert not accepts(given, replace(given.request, raw_body=changed), [given.secret])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("secrets", [[], [""], [OTHER_SECRET], ["", OTHER_SECRET]])
def test_another_secret_or_none_is_refused(kind: str, secrets: list[str]) -> None:
    given = sample(kind)
    assert not accepts(given, given.request, secrets)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_secret_never_counts(kind: str) -> None:
    given = sample(kind)
    forged = replace(given, secret="").with_body(given.request.raw_body)
    assert not accepts(given, forged, [""])


@pytest.mark.parametrize("kind", SIGNERS)
def test_both_secrets_count_while_one_is_retired(kind: str) -> None:
    given = sample(kind)
    assert accepts(given, given.request, [OTHER_SECRET, given.secret])
    assert accepts(given, replace(given, secret=OTHER_SECRET).with_body(b"{}"), [OTHER_SECRET, given.secret])


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        " ",
        ",",
        "=",
        "v1",
        "v1,",
        "v1,,",
        "v1,a,b",
        "v1=",
        "t=,v1=",
        "t=1772624070",
        "t=1772624070,v1=",
        "t=1772624070,v1=ü",
        "t=1772624070,t=1772624071,v1=00",
        "sha256=",
        "sha256=ü",
        "sha256=====",
        "v1,\udcff",
        "\x00",
        "a" * 10_000,
    ],
)
def test_a_header_that_does_not_parse_is_a_bad_signature(kind: str, signature: str | None) -> None:
    given = sample(kind)
    assert not accepts(given, given.with_headers(**{SIGNATURE[kind]: signature}), [given.secret])


@pytest.mark.parametrize("kind", ["stripe", "standard_webhooks", "generic"])
def test_a_signature_header_that_comes_twice_is_refused(kind: str) -> None:
    given = sample(kind)
    headers = Headers((*given.request.headers.pairs, (SIGNATURE[kind], "v1,AAAA")))
    assert not accepts(given, replace(given.request, headers=headers), [given.secret])


@pytest.mark.parametrize("kind", TIMED)
@pytest.mark.parametrize(("seconds", "fits"), [(-301, False), (-299, True), (0, True), (299, True), (301, False)])
def test_a_timestamp_may_be_five_minutes_off_on_either_side(kind: str, seconds: int, fits: bool) -> None:
    given = sample(kind)
    fresh = given.with_body(given.request.raw_body)
    assert accepts(given, fresh, [given.secret], later=timedelta(seconds=seconds)) is fits


@pytest.mark.parametrize("kind", ["typeform", "shopify"])
def test_a_source_that_signs_no_time_is_accepted_at_any_time(kind: str) -> None:
    given = sample(kind)
    assert accepts(given, given.request, [given.secret], later=timedelta(days=3))


@pytest.mark.parametrize(
    "timestamp", [None, "", "soon", "1e9", "-1", "+1772625870", "١٧٧٢٦٢٥٨٧٠", "9" * 400, "1772625870.0"]
)
def test_a_timestamp_that_is_no_number_of_seconds_is_refused(timestamp: str | None) -> None:
    given = sample("standard_webhooks")
    assert not accepts(given, given.with_headers(webhook_timestamp=timestamp), [given.secret])
    stripe = sample("stripe")
    fresh = stripe.request.headers.get("stripe-signature") or ""
    changed = fresh.replace("t=1772624070", f"t={timestamp}")
    assert not accepts(stripe, stripe.with_headers(stripe_signature=changed), [stripe.secret])


def test_the_time_is_part_of_what_is_signed() -> None:
    given = sample("standard_webhooks")
    moved = given.with_headers(webhook_timestamp=str(int(given.now.timestamp())))
    assert not accepts(given, moved, [given.secret])
    renamed = given.with_headers(webhook_id="msg_another")
    assert not accepts(given, renamed, [given.secret])
    stripe = sample("stripe")
    signature = stripe.request.headers.get("stripe-signature") or ""
    later = signature.replace("t=1772624070", "t=1772624074")
    assert not accepts(stripe, stripe.with_headers(stripe_signature=later), [stripe.secret])


def test_any_signature_of_several_will_do() -> None:
    given = sample("standard_webhooks")
    fits = given.request.headers.get("webhook-signature") or ""
    listed = f"v1,{base64.b64encode(b'x' * 32).decode()} v2,whatever nonsense v1a,AAAA {fits}"
    assert accepts(given, given.with_headers(webhook_signature=listed), [given.secret])
    stripe = sample("stripe")
    fits = stripe.request.headers.get("stripe-signature") or ""
    listed = fits.replace("v1=", f"v1={'0' * 64},v0=abc,v1=")
    assert accepts(stripe, stripe.with_headers(stripe_signature=listed), [stripe.secret])


def test_a_right_signature_under_another_version_never_counts() -> None:
    stripe = sample("stripe")
    v0 = (stripe.request.headers.get("stripe-signature") or "").replace("v1=", "v0=")
    assert not accepts(stripe, stripe.with_headers(stripe_signature=v0), [stripe.secret])
    given = sample("standard_webhooks")
    for version in ("v0", "v2", "V1", "v1a", ""):
        changed = (given.request.headers.get("webhook-signature") or "").replace("v1,", f"{version},")
        assert not accepts(given, given.with_headers(webhook_signature=changed), [given.secret])


def test_encodings_are_not_mixed_up() -> None:
    given = sample("typeform")
    signature = (given.request.headers.get("typeform-signature") or "").removeprefix("sha256=")
    as_hex = base64.b64decode(signature).hex()
    assert not accepts(given, given.with_headers(typeform_signature=f"sha256={as_hex}"), [given.secret])
    assert not accepts(given, given.with_headers(typeform_signature=signature), [given.secret])


def test_the_secret_of_stripe_is_its_whole_text() -> None:
    given = sample("stripe")
    assert not accepts(given, given.request, [given.secret.removeprefix("whsec_")])


def test_the_secret_of_standard_webhooks_may_lack_prefix_and_padding() -> None:
    given = sample("standard_webhooks")
    bare = given.secret.removeprefix("whsec_").rstrip("=")
    assert accepts(given, given.request, [bare])
    assert not accepts(given, given.request, ["whsec_not base64!"])


def test_svix_signs_the_same_under_names_of_its_own() -> None:
    given = sample("standard_webhooks")
    pairs = tuple((name.replace("webhook-", "svix-"), value) for name, value in given.request.headers.pairs)
    request = replace(given.request, headers=Headers(pairs))
    assert accepts(given, request, [given.secret])
    assert adapters()[given.kind].delivery_id(request) == given.expected["idempotency_key"]


def test_a_public_key_verifies_ed25519_signatures() -> None:
    given = sample("standard_webhooks")
    private = Ed25519PrivateKey.generate()
    public = "whpk_" + base64.b64encode(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
    signed = b"msg_1.1772625874." + given.request.raw_body
    signature = base64.b64encode(private.sign(signed)).decode()
    headers = {"webhook_id": "msg_1", "webhook_timestamp": "1772625874"}
    request = given.with_headers(**headers, webhook_signature=f"v1a,{signature}")
    assert accepts(given, request, [given.secret, public])
    assert not accepts(given, given.with_headers(**headers, webhook_signature=f"v1,{signature}"), [public])
    assert not accepts(given, replace(request, raw_body=b"{}"), [public])
    assert not accepts(given, request, ["whpk_", "whpk_AAAA", given.secret])


def test_a_public_key_is_no_shared_secret() -> None:
    """Whoever knows the public key must not be able to sign with it."""
    given = sample("standard_webhooks")
    key = base64.b64encode(b"p" * 32).decode()
    forged = replace(given, secret=f"whsec_{key}").with_body(b"{}")
    assert not accepts(given, forged, [f"whpk_{key}"])


@pytest.mark.parametrize("kind", SIGNERS)
def test_a_new_secret_is_a_good_one_and_signs(kind: str) -> None:
    given, adapter = sample(kind), adapters()[kind]
    secret, other = adapter.new_secret(), adapter.new_secret()
    assert secret != other
    assert adapter.secret_fault(secret) is None
    headers = sign(kind, b"{}", secret, given.now, url=given.request.url)
    request = replace(given.request, raw_body=b"{}", headers=Headers.of(headers))
    assert accepts(given, request, [secret])


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("typeform", ""),
        ("generic", "short"),
        ("standard_webhooks", "whsec_"),
        ("standard_webhooks", "whsec_c2hvcnQ="),
        ("standard_webhooks", "not base64 at all!"),
        ("standard_webhooks", "whpk_c2hvcnQ="),
    ],
)
def test_a_poor_secret_is_told(kind: str, secret: str) -> None:
    assert adapters()[kind].secret_fault(secret)
