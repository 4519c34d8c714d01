"""Webhooks: what is posted, how it is signed, and what an answer means."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import Batching, ConfigurationError, Retrying, WebhookDestination
from asyncanalytics.destinations import webhook

if TYPE_CHECKING:
    from conftest import Lab

looptime = pytest.mark.looptime
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def hook(lab: Lab, server: Any, **settings: Any) -> WebhookDestination:
    """Make a webhook at a server in this process."""
    return WebhookDestination(f"{lab.endpoint(server).base}/in?to=crm", **settings)


def is_signed(request: Any, secret: str) -> bool:
    """Verify a request as a receiver does."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    head = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
    wanted = hmac.digest(key, head.encode() + request.content, hashlib.sha256)
    version, _, said = request.headers["webhook-signature"].partition(",")
    return version == "v1" and hmac.compare_digest(base64.b64decode(said), wanted)


@looptime
async def test_an_event_a_request(lab: Lab) -> None:
    """Each event is a body of its own, whole, at the URL with its query."""
    server = lab.script()
    async with lab.client(destinations=[hook(lab, server)]) as client:
        receipts = await lab.track(client, 3)
        outcome = await receipts[2].settled()
    assert (outcome.kind, outcome.destination, outcome.status) == ("delivered", "webhook", 200)
    assert [request.path for request in server.requests] == ["/in"] * 3
    bodies = [json.loads(request.content) for request in server.requests]
    assert [each["messageId"] for each in bodies] == [each.message_id for each in receipts]
    assert [each["properties"]["n"] for each in bodies] == [0, 1, 2]
    headers = server.requests[0].headers
    assert headers["content-type"] == "application/json"
    assert not {"authorization", "webhook-signature", "x-retry-count"} & headers.keys()


@looptime
@pytest.mark.parametrize("count", [1, 2, 50])
async def test_an_array_a_request(lab: Lab, count: int) -> None:
    """A batch is an array, and its size is exactly what the limits say."""
    server = lab.script()
    batching = Batching(max_bytes=4_000)
    destination = hook(lab, server, form="batch", batching=batching)
    async with lab.client(destinations=[destination]) as client:
        receipts = lab.burst(client, count)
    sent = [each["messageId"] for request in server.requests for each in request.events]
    assert sent == [each.message_id for each in receipts]
    for request in server.requests:
        assert isinstance(json.loads(request.content), list)
        assert len(request.content) <= 4_000
    limits = destination.limits(batching)
    size = limits.envelope + sum(len(json.dumps(n)) - 1 + limits.per_event for n in range(3))
    assert size == len("[0,1,2]")


@looptime
@pytest.mark.parametrize("form", ["single", "batch"])
async def test_the_signature(lab: Lab, form: Any) -> None:
    """A receiver can verify each request, and a retry has the same id at a later time."""
    server = lab.script(503)
    destination = hook(lab, server, secret=SECRET, form=form, headers={"X-Team": "crm"})
    async with lab.client(destinations=[destination]) as client:
        await (await lab.track(client))[0].settled()
    first, second = server.requests
    assert is_signed(first, SECRET)
    assert is_signed(second, SECRET)
    assert not is_signed(second, SECRET[:-6] + "AAAAA=")
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.headers["x-retry-count"] == "1"
    assert second.headers["x-team"] == "crm"


def test_the_published_example() -> None:
    """The signature of the specification's own example comes out."""
    secret = base64.b64decode("plJ3nmyCDGBKInavdOK15jsl")
    content = b'{"event_type":"ping","data":{"success":true}}'
    said = webhook.signature(secret, "msg_loFOjxBNrRLzqYUf", "1731705121", content)
    assert said == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


@looptime
@pytest.mark.parametrize(
    ("answers", "kind", "attempts"),
    [
        ([200], "delivered", 1),
        ([204], "delivered", 1),
        ([500, 429, 200], "delivered", 3),
        ([302, 200], "delivered", 2),
        ([400], "rejected", 1),
        ([404], "rejected", 1),
        ([403], "rejected", 1),
        ([413], "dropped", 1),
        ([503] * 9, "dropped", 3),
    ],
    ids=str,
)
async def test_what_an_answer_means(lab: Lab, answers: list[int], kind: str, attempts: int) -> None:
    """The rules are those of every endpoint."""
    server = lab.script(*answers)
    retrying = Retrying(max_attempts=2)
    async with lab.client(destinations=[hook(lab, server)], retrying=retrying) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.attempts) == (kind, attempts)


@looptime
async def test_a_2xx_is_a_delivery_whatever_it_says(lab: Lab) -> None:
    """A receiver of one's own does not speak the protocol, and its words mean nothing here."""
    server = lab.script(lab.reply(200, body=b'{"ok": false, "errors": ["no"]}'))
    async with lab.client(destinations=[hook(lab, server)]) as client:
        assert (await (await lab.track(client))[0].settled()).delivered


@looptime
async def test_one_bad_event_of_an_array(lab: Lab) -> None:
    """A 400 takes nobody else along."""

    def refuse(request: Any) -> int:
        return 400 if any(each["properties"]["n"] == 7 for each in request.events) else 200

    server = lab.script(then=refuse)
    async with lab.client(destinations=[hook(lab, server, form="batch")]) as client:
        receipts = lab.burst(client, 20)
    assert [n for n, each in enumerate(receipts) if "delivered" not in repr(each)] == [7]


@looptime
async def test_a_refusal_names_no_write_key(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """The log speaks of what a webhook has."""
    server = lab.script(401)
    async with lab.client(destinations=[hook(lab, server, secret=SECRET)]) as client:
        await (await lab.track(client))[0].settled()
    (said,) = [each.getMessage() for each in logged.records if each.levelname == "ERROR"]
    assert "check its URL, headers and secret" in said
    assert "write key" not in said


async def test_a_server_that_is_not_there(lab: Lab) -> None:
    """No answer is tried again, and given up when its time has come."""
    async with lab.listening(lambda *_: asyncio.sleep(0)) as peer:
        url = f"{peer.url}/in"
    retrying = Retrying(max_attempts=1, base=0.01, cap=0.01)
    destination = WebhookDestination(url, retrying=retrying)
    async with lab.client(peer, destinations=[destination]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.reason, outcome.attempts) == ("expired", 2)


@pytest.mark.parametrize(
    ("url", "settings", "problem"),
    [
        ("", {}, "give a URL"),
        ("example.com/in", {}, "give a URL"),
        ("https://exa mple.com", {}, "give a URL"),
        ("https://example.com/ö", {}, "give a URL"),
        ("https://[::1", {}, "give a URL"),
        ("ftp://example.com", {}, "its scheme"),
        ("http://example.com/in", {}, "in the clear"),
        ("https://user:w0rd@example.com/in", {}, "scheme, host and path only"),
        ("https://example.com", {"headers": {"a": "b\nc"}}, "ASCII text without line breaks"),
        ("https://example.com", {"headers": {"a b": "c"}}, "a header's name is letters"),
        ("https://example.com", {"headers": {"": "c"}}, "a header's name is letters"),
        ("https://example.com", {"form": "array"}, "'single' or 'batch'"),
        ("https://example.com", {"secret": "short"}, "whsec_"),
        ("https://example.com", {"secret": "whsec_c2hvcnQ="}, "24 to 64 bytes"),
        ("https://example.com", {"secret": "whsec_" + "ä" * 40}, "24 to 64 bytes"),
        (7, {}, "give a URL"),
    ],
    ids=str,
)
def test_what_cannot_work(url: Any, settings: Any, problem: str) -> None:
    """It is said where it is written, and shows neither a URL nor a secret."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        WebhookDestination(url, **settings)
    assert "w0rd" not in str(caught.value)
    assert "c2hvcnQ" not in str(caught.value)


def test_http_to_elsewhere_is_a_choice() -> None:
    """`insecure` allows it."""
    made = WebhookDestination("http://example.com/in", insecure=True, secret=SECRET)
    assert repr(made) == "<WebhookDestination 'webhook'>"
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(made)
