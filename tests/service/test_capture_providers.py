"""What comes of providers: batches in part, addresses of regions, certificates, secrets that only they make."""

import base64
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from services.capture.adapters import adapters
from shared.events import LeadCaptured, TouchRecorded
from shared.settings import Settings
from shared.testing import FrozenClock, eventually, harness
from tests.samples.signed import sample, sign
from tests.service.capture_world import Capture
from tests.service.local_server import Asked, LocalServer, authority, reply
from tests.service.local_server import serving as local
from tests.service.test_capture_second_calls import CREDENTIAL, KNOWN, Provider, delivered, delivery, given, serving
from throughline.services import service_code


@dataclass
class Batch:
    """What the provider of a batch has: by a part of the path, a status and a body."""

    known: dict[str, tuple[int, Any]]

    async def respond(self, asked: Asked) -> bytes:
        status, body = next(answer for part, answer in self.known.items() if part in asked.target)
        return reply(status, body)


def meta_batch(*lead_ids: str) -> bytes:
    changes = [{"field": "leadgen", "value": {"leadgen_id": lead_id, "page_id": "1"}} for lead_id in lead_ids]
    return orjson.dumps({"object": "page", "entry": [{"id": "1", "time": 1, "changes": changes}]})


def meta_lead(lead_id: str, email: str) -> dict[str, Any]:
    return {"id": lead_id, "field_data": [{"name": "email", "values": [email]}]}


async def test_of_a_batch_in_which_one_record_vanished_the_others_are_mapped(settings: Settings) -> None:
    batch = Batch(
        {
            "/11?": (200, meta_lead("11", "a@example.com")),
            "/12?": (404, {}),
            "/13?": (200, meta_lead("13", "c@example.com")),
        }
    )
    server = LocalServer(respond=batch.respond)
    clock = FrozenClock(KNOWN.now)
    async with local(server) as address:
        asking = settings.model_copy(update={"providers": {"facebook": address}})
        async with harness(service_code("capture"), asking, clock=clock) as made:
            capture = Capture(made)
            source = await capture.source("facebook", secret=KNOWN.secret)
            await given(capture, source["source_id"], CREDENTIAL)
            body = meta_batch("11", "12", "13")
            headers = {"x-hub-signature-256": "sha256=" + hmac.new(KNOWN.secret.encode(), body, "sha256").hexdigest()}
            assert (await capture.hook(source, body, headers=headers)).status_code == 200
            await capture.map_deliveries()
            path = f"sources/{source['source_id']}/deliveries"
            for _ in range(2):  # tried again it stays as it is, and nobody is told twice
                await capture.harness.run_timers()
                kept = await delivery(capture, path)
                assert (kept["state"], kept["facts"]) == ("quarantined", 2)
                assert "partial: the provider says that 1 of 3 records are gone: /v24.0/12" in kept["reason"]
                assert len(await capture.harness.told(LeadCaptured)) == 2
                await capture.post(f"{path}:retry", None)
            batch.known["/12?"] = (200, meta_lead("12", "b@example.com"))
            await capture.harness.run_timers()
            assert ((await delivery(capture, path))["state"], (await delivery(capture, path))["facts"]) == ("mapped", 3)
            people = [(await capture.get("leads", email=f"{who}@example.com")).json()["items"] for who in "abc"]
            assert [len(found) for found in people] == [1, 1, 1]


async def test_a_batch_of_hubspot_is_mapped_as_far_as_it_goes(settings: Settings) -> None:
    contact = {"id": "7", "properties": {"email": "h@example.com", "firstname": "Hedy"}}
    server = LocalServer(respond=Batch({"contacts/7?": (200, contact), "contacts/8?": (410, {})}).respond)
    async with local(server) as address:
        asking = settings.model_copy(
            update={"providers": {"hubspot": address}, "public_url": "https://crm.example.com/tl"}
        )
        async with harness(service_code("capture"), asking) as made:
            capture = Capture(made)
            source = await capture.source("hubspot", secret="s" * 32)
            await given(capture, source["source_id"], CREDENTIAL)
            told = [
                {
                    "portalId": 1,
                    "subscriptionId": 2,
                    "occurredAt": 1_760_000_000_000,
                    "eventId": n,
                    "objectId": n,
                    "subscriptionType": "contact.creation",
                }
                for n in (7, 8)
            ]
            body = orjson.dumps(told)
            signed = sign("hubspot", body, "s" * 32, made.runtime.clock.now(), url=source["hook_url"])
            assert (await capture.hook(source, body, headers=signed)).status_code == 200
            await capture.map_deliveries()
            await made.run_timers()
            kept = await delivery(capture, f"sources/{source['source_id']}/deliveries")
            assert (kept["state"], kept["facts"], "contacts/8" in kept["reason"]) == ("quarantined", 1, True)
            (lead,) = (await capture.get("leads", email="h@example.com")).json()["items"]
            assert lead["first_name"] == "Hedy"


async def test_a_deal_of_hubspot_is_whose_it_is_tied_to_later(settings: Settings) -> None:
    deal: dict[str, Any] = {"id": "5", "properties": {"dealname": "Acme", "dealstage": "closedwon"}}
    batch = Batch({"deals/5?": (200, deal)})
    moved = {"objectId": 5, "propertyName": "dealstage", "propertyValue": "closedwon"}
    ends = {"fromObjectId": 5, "toObjectId": 77, "associationType": "DEAL_TO_CONTACT"}
    async with local(LocalServer(respond=batch.respond)) as address:
        asking = settings.model_copy(
            update={"providers": {"hubspot": address}, "public_url": "https://crm.example.com/tl"}
        )
        async with harness(service_code("capture"), asking) as made:
            capture = Capture(made)
            source = await capture.source("hubspot", secret="s" * 32)
            await given(capture, source["source_id"], CREDENTIAL)

            async def told(number: int, sort: str, **more: Any) -> None:
                head = {"portalId": 1, "subscriptionId": 2, "occurredAt": 1_760_000_000_000, "eventId": number}
                body = orjson.dumps([head | {"subscriptionType": sort} | more])
                signed = sign("hubspot", body, "s" * 32, made.runtime.clock.now(), url=source["hook_url"])
                assert (await capture.hook(source, body, headers=signed)).status_code == 200
                await capture.map_deliveries()
                await made.run_timers()

            async def stages() -> list[str]:
                return [touch.lead_id for touch in await made.told(TouchRecorded)]

            await told(1, "deal.propertyChange", **moved)
            assert [each["deal_id"] for each in (await capture.get("crm-deals")).json()["items"]] == ["5"]
            deal["associations"] = {"contacts": {"results": [{"id": "77"}]}}
            await told(2, "deal.associationChange", **ends, associationRemoved=False)
            await made.run_timers()
            assert (await capture.get("crm-deals")).json()["items"] == []
            (lead_id,) = await stages()
            del deal["associations"]
            await told(3, "deal.associationChange", **ends, associationRemoved=True)
            assert await stages() == [lead_id]
            await told(4, "deal.propertyChange", **moved | {"propertyValue": "closedlost"})
            assert await stages() == [lead_id] * 2


async def test_a_second_call_goes_to_no_private_address_that_the_settings_do_not_name(settings: Settings) -> None:
    provider = Provider([(200, KNOWN.told["fetch"]["response"])])
    async with serving(provider) as address:
        clock = FrozenClock(KNOWN.now)
        async with harness(service_code("capture"), settings, clock=clock) as made:
            capture = Capture(made)
            path = await delivered(capture, CREDENTIAL)
            async with made.runtime.database.reading() as connection:
                base = {"api_base": address.replace("http://", "https://")}
                await connection.execute("UPDATE sources SET defaults = $1", base)
            await made.run_timers()
            kept = await delivery(capture, path)
            assert (kept["state"], "public internet" in kept["reason"] or "port" in kept["reason"]) == (
                "quarantined",
                True,
            )
        assert provider.asked == []


async def test_the_api_of_a_region_is_one_of_the_providers_own(settings: Settings) -> None:
    async with harness(service_code("capture"), settings) as made:
        capture = Capture(made)
        source = await capture.source("zoho", defaults={"api_base": "https://www.zohoapis.eu"})
        for base in (
            "https://evil.example.com",
            "https://www.zohoapis.eu@evil.com",
            "https://www.zohoapis.eu/x",
            "http://www.zohoapis.eu",
        ):
            refused = await capture.post("sources", {"kind": "zoho", "name": "Z", "defaults": {"api_base": base}})
            assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/defaults/api_base")
            patched = await made.client.patch(
                f"/v1/sources/{source['source_id']}", json={"defaults": {"api_base": base}}
            )
            assert patched.status_code == 422
        other = await capture.post(
            "sources", {"kind": "typeform", "name": "T", "defaults": {"api_base": "https://api.typeform.com"}}
        )
        assert other.status_code == 422
        moved = await made.client.patch(
            f"/v1/sources/{source['source_id']}", json={"defaults": {"api_base": "https://www.zohoapis.in"}}
        )
        assert moved.json()["defaults"] == {"api_base": "https://www.zohoapis.in"}


@pytest.mark.parametrize(
    ("kind", "word"), [("wix", "dev.wix.com"), ("ses", "ARN"), ("sendgrid", "Signature Verification")]
)
async def test_a_secret_that_only_the_provider_can_make_is_asked_for(settings: Settings, kind: str, word: str) -> None:
    async with harness(service_code("capture"), settings) as made:
        capture = Capture(made)
        refused = await capture.post("sources", {"kind": kind, "name": "S"})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/secret")
        assert word in refused.json()["errors"][0]["detail"]
        source = await capture.source(kind, secret=sample(kind).secret)
        again = await capture.post(f"sources/{source['source_id']}/secrets", {})
        assert (again.status_code, word in again.text) == (422, True)


@pytest.mark.parametrize("kind", sorted(adapters()))
def test_a_secret_that_is_made_here_can_be_used_or_is_not_made(kind: str) -> None:
    adapter = adapters()[kind]
    usable = adapter.secret_fault(adapter.new_secret()) is None
    assert usable == (kind not in ("wix", "ses", "sendgrid"))


async def test_a_certificate_is_had_over_https_and_a_subscription_confirmed(settings: Settings, tmp_path: Path) -> None:
    """The provider's own addresses, served here with a certificate that the settings believe."""
    ca, tls = authority(tmp_path, "sns.test")
    topic, key, pem = topic_of_amazon()
    server = LocalServer()

    async def respond(asked: Asked) -> bytes:
        return reply(200, pem.encode()) if asked.target.endswith(".pem") else reply(200, b"<ok/>")

    server.respond = respond
    async with local(server, tls) as address:
        asking = settings.model_copy(update={"providers": {"ses": address}, "outbound_ca_file": ca})
        async with harness(service_code("capture"), asking) as made:
            capture = Capture(made)
            source = await capture.source("ses", secret=topic)
            message = confirmation_of_amazon(topic, key, made.runtime.clock.now())
            headers = {
                "content-type": "text/plain; charset=UTF-8",
                "x-amz-sns-message-type": "SubscriptionConfirmation",
            }
            forged = {**message, "Token": "another"}
            assert (await capture.hook(source, forged, headers=headers)).status_code in (401, 403)
            assert (await capture.hook(source, message, headers=headers)).status_code == 200
            await eventually(lambda: len(server.asked) == 2)
            assert [asked.target for asked in server.asked] == [
                "/SimpleNotificationService-1.pem",
                "/?Action=ConfirmSubscription&Token=t",
            ]


def topic_of_amazon() -> tuple[str, rsa.RSAPrivateKey, str]:
    """A topic, the key that signs its messages, and the certificate of that key."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    return "arn:aws:sns:eu-west-1:123456789012:ses", key, certificate.public_bytes(Encoding.PEM).decode()


def confirmation_of_amazon(topic: str, key: rsa.RSAPrivateKey, now: datetime) -> dict[str, str]:
    """What Amazon sends before anything else, signed."""
    host = "https://sns.eu-west-1.amazonaws.com"
    message = {
        "Type": "SubscriptionConfirmation",
        "MessageId": "m-1",
        "Token": "t",
        "TopicArn": topic,
        "Message": "You have chosen to subscribe",
        "SubscribeURL": f"{host}/?Action=ConfirmSubscription&Token=t",
        "Timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    }
    names = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
    signed = "".join(f"{name}\n{message[name]}\n" for name in names).encode()
    signature = base64.b64encode(key.sign(signed, PKCS1v15(), SHA256())).decode()
    certificate = f"{host}/SimpleNotificationService-1.pem"
    return {**message, "SignatureVersion": "2", "Signature": signature, "SigningCertURL": certificate}
