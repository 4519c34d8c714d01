"""Beyond loopback a collector demands write keys of who sends, and a token of who reads."""

from __future__ import annotations

import base64
import re
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.access import is_loopback
from asyncanalytics.collector.guard import POLICY
from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-that-opens-nothing"
TOKEN = "a-token-of-one's-own"
BASIC = {"authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()}
EVENT = {"messageId": "m1", "userId": "u1", "event": "E"}
ANYWHERE = "0.0.0.0"  # noqa: S104 - what is tested

CHANGING = ("POST", "DELETE", "PUT")
CLOSED = [
    *("/events", "/events/m1", "/stats", "/stream", "/names", "/schema", "/users/u1", "/rate"),
    *("/requests/1", "/faults", "/", "/nowhere", "//events", "/v1/batch/", "/healthz/"),
]


def client(collector: Collector, **options: Any) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    transport = httpx.ASGITransport(app=collector)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


@pytest.fixture
def guarded() -> Iterator[Collector]:
    """A collector that demands a token, with one event."""
    with Collector(write_keys=[KEY], read_token=TOKEN) as made:
        yield made


@pytest.mark.parametrize(
    ("host", "is_so"),
    [
        *((host, True) for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1")),
        *((host, False) for host in (ANYWHERE, "::", "", "192.168.1.5", "example.org", "[::1]")),
    ],
)
def test_what_is_loopback(host: str, *, is_so: bool) -> None:
    """Only what cannot be reached from elsewhere; of what is not known that it is, it is not."""
    assert is_loopback(host) == is_so


@pytest.mark.parametrize("keys", [None, []])
@pytest.mark.parametrize("host", [ANYWHERE, "::", "", "192.168.1.5", "collector.internal"])
def test_other_machines_need_keys(host: str, keys: list[str] | None) -> None:
    """Without write keys such a host is refused before anything listens, saying what to do."""
    with Collector(write_keys=keys) as collector:
        for serve in (collector.serve, collector.run):
            with pytest.raises(ConfigurationError, match="write_keys"):
                serve(host=host)
        assert collector.read_token is None


async def test_loopback_needs_nothing() -> None:
    """There everything stays open, with keys and without."""
    with Collector(write_keys=[KEY]) as collector:
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/stats")).status_code == 200
        assert collector.read_token is None


async def test_served_to_other_machines() -> None:
    """A token is made by chance; the write key sends and reads nothing; any address is a host."""
    with Collector(write_keys=[KEY]) as collector, Collector(write_keys=[KEY]) as other:
        async with collector.serve(ANYWHERE) as url, other.serve(ANYWHERE):
            token = collector.read_token
            assert token is not None
            assert len(token) >= 40
            assert token != other.read_token
            async with httpx.AsyncClient(base_url=url) as http:
                assert (await http.post("/v1/track", json=EVENT)).status_code == 401
                answer = await http.post("/v1/track", json=EVENT, headers=BASIC)
                assert answer.status_code == 200
                assert (await http.get("/stats", headers=BASIC)).status_code == 401
                assert (await http.get("/healthz")).status_code == 200
                right = {"authorization": f"Bearer {token}"}
                for host, status in (
                    *(("192.168.7.8:8010", 200), ("[fe80::1]:8010", 200), ("[fe80::1]", 200)),
                    *(("collector.internal", 421), ("192.168.7.8.example.org", 421)),
                ):
                    answer = await http.get("/stats", headers=right | {"host": host})
                    assert answer.status_code == status, host
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/stats")).status_code == 401  # once open to others, it stays so
        assert collector.read_token == token


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD", "OPTIONS"])
async def test_everything_else_is_closed(guarded: Collector, method: str, path: str) -> None:
    """What is open is named; neither a path that is not there nor another method opens."""
    async with client(guarded) as http:
        for headers in ({}, BASIC, {"authorization": "Bearer wrong"}):
            answer = await http.request(method, f"http://localhost{path}", headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert answer.json()["reason"] == "read_token_needed"
            assert TOKEN not in answer.text
            assert "default-src 'none'" in answer.headers["content-security-policy"]


BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
EVIL = "<script>evil</script>"


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("query", ["", f"?token=wrong{EVIL}&text={EVIL}"], ids=["none", "wrong"])
async def test_a_browser_is_asked_for_the_token(guarded: Collector, path: str, query: str) -> None:
    """It gets a page that says what is missing, with nothing in it of what was asked or is kept."""
    async with client(guarded) as http:
        answer = await http.get(f"http://localhost{path}{query}", headers=BROWSER)
        head = await http.head(f"http://localhost{path}{query}", headers=BROWSER)
        assert (answer.status_code, head.status_code) == (401, 401)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["cache-control"] == "no-store"
        title = "This is not its read token" if query else "Reading needs the read token"
        assert f"<h1>{title}</h1>" in answer.text
        assert "Authorization: Bearer TOKEN" in answer.text
        assert '<input type="password" name="token"' in answer.text
        for each in (TOKEN, KEY, "evil", "wrong", "<script", "style=", "m1"):
            assert each not in answer.text
        for each in re.findall(r'href="([^"]+)"', answer.text):
            assert (await http.get(each)).status_code == 200


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/event-stream", ""])
async def test_a_program_is_refused_in_json(guarded: Collector, accept: str) -> None:
    """What does not ask for a page gets none, and neither does what changes something."""
    async with client(guarded) as http:
        answers = [await http.get("/", headers={"accept": accept})]
        answers += [await http.request(each, "/events", headers=BROWSER) for each in CHANGING]
    for answer in answers:
        assert (answer.status_code, answer.headers["vary"]) == (401, "Accept")
        assert answer.json()["reason"] == "read_token_needed"


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t", "/v1/batch", "/v1/pixel/track"])
async def test_sending_needs_a_write_key_only(guarded: Collector, path: str) -> None:
    """The token is not asked for, and is no write key."""
    async with client(guarded) as http:
        body = {"batch": [EVENT]} if path.endswith("batch") else EVENT
        data = base64.b64encode(b"{}").decode()
        for headers, status in (
            (BASIC, 200),
            ({"authorization": f"Bearer {TOKEN}"}, 401),
        ):
            if "pixel" in path:
                answer = await http.get(path, params={"data": data}, headers=headers)
            else:
                answer = await http.post(path, json=body, headers=headers)
            assert answer.status_code == status
    kept = guarded._store.request(2)
    assert kept is not None
    assert TOKEN not in str(kept)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN} "},
        {"authorization": "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode()},
        {"authorization": "Basic " + base64.b64encode(f":{TOKEN}".encode()).decode()},
    ],
    ids=["bearer", "lower case", "basic", "password alone"],
)
async def test_the_token_in_a_header(guarded: Collector, headers: dict[str, str]) -> None:
    """Bearer and the password of Basic open everything, deleting and faults too."""
    async with client(guarded, headers=headers) as http:
        assert (await http.get("/events")).status_code == 200
        assert (await http.get("/")).status_code == 200
        assert (await http.post("/faults", json={"count": 1})).status_code == 201
        assert (await http.delete("/events")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": TOKEN},
        {"authorization": f"Token {TOKEN}"},
        {"authorization": "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()},
        {"authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": "Bearer \xe9"},
        {"cookie": f"token={TOKEN}"},
        {"cookie": "=; \xe9; collector-00000000=x"},
    ],
    ids=[str(n) for n in range(8)],
)
async def test_what_is_no_token(guarded: Collector, headers: dict[str, str]) -> None:
    """A token in another place, or another token, opens nothing."""
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    async with client(guarded) as http:
        assert (await http.get("/events", headers=raw)).status_code == 401


async def test_a_browser_opens_it_once(guarded: Collector) -> None:
    """The address with the token gives a cookie, and leads to the address without it."""
    async with client(guarded) as http:
        answer = await http.get("/events", params={"limit": "5", "token": TOKEN, "text": "é&"})
        assert (answer.status_code, answer.content) == (303, b"")
        assert answer.headers["location"] == "/events?limit=5&text=%C3%A9%26"
        (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
        assert cookie["httponly"]
        assert (cookie["samesite"].lower(), cookie["path"], cookie["secure"]) == ("strict", "/", "")
        assert (await http.get(answer.headers["location"])).status_code == 200
        assert (await http.get("/?token=" + TOKEN)).headers["location"] == "/"
        other = {"cookie": f"a=b; {cookie.key}={cookie.value}; broken"}
        http.cookies.clear()
        assert (await http.get("/stats", headers=other)).status_code == 200
        assert (await http.get("/stats")).status_code == 401


async def test_the_cookie_of_an_encrypted_connection(guarded: Collector) -> None:
    """There it is for encrypted connections only."""
    async with client(guarded) as http:
        answer = await http.get("https://localhost/", params={"token": TOKEN})
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("path", ["//evil.example/", "//evil.example", "/\\evil.example/"])
async def test_it_leads_to_no_other_host(guarded: Collector, path: str) -> None:
    """Whatever the path, the way on is within this collector."""
    async with client(guarded) as http:
        answer = await http.get(f"http://localhost{path}?token={TOKEN}")
    location = answer.headers["location"]
    assert location.startswith("/")
    assert location[1] not in "/\\"


async def test_a_token_in_the_address_of_another_method(guarded: Collector) -> None:
    """Only opening a page takes it from there: what changes something does not."""
    async with client(guarded) as http:
        for method in ("POST", "DELETE"):
            answer = await http.request(method, f"/events?token={TOKEN}")
            assert answer.status_code == 401
        assert (await http.get("/events?token=wrong")).status_code == 401


@pytest.mark.parametrize("token", ["", "short", "fifteen letters", "é" * 20])
def test_a_token_must_be_long(token: str) -> None:
    """What could be guessed, or not be written in a header, is refused; its text is not shown."""
    with pytest.raises(ValueError, match="read_token must have at least 16") as raised:
        Collector(read_token=token)
    assert not token or token not in str(raised.value)


async def test_mounted_in_another_app(guarded: Collector) -> None:
    """Below a path of another app the same is open and closed."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app: Any = Starlette(routes=[Mount("/below", app=guarded)])
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost/below") as http:
        assert (await http.post("/v1/track", json=EVENT, headers=BASIC)).status_code == 200
        assert (await http.get("/stats")).status_code == 401
        answer = await http.get("/stats", params={"token": TOKEN})
        assert answer.headers["location"] == "/below/stats"
        assert (await http.get("/stats")).status_code == 200
