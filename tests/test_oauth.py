"""OAuth: what is asked of the authorization server, when, and what its answers lead to."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

pytest.importorskip("jwt")
pytest.importorskip("cryptography")

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from asyncanalytics import (
    AsyncClient,
    Client,
    ConfigurationError,
    Destination,
    MissingExtra,
    OAuth,
    analytics,
    endpoints,
)
from asyncanalytics._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from canaries import Watch
    from conftest import Lab, Live, Reply, Request, Script

looptime = pytest.mark.looptime
SERVER = "https://auth.example.com"
HOUR = 3_600


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """A key pair: the app's."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def pem_of(key: Any) -> str:
    """Return a private key as it is kept in files."""
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, plain).decode()  # type: ignore[no-any-return]


@pytest.fixture
def pem(key: rsa.RSAPrivateKey, no_canary_shows: Watch) -> str:
    """The private key as text; each of its lines is a canary."""
    text = pem_of(key)
    for line in text.splitlines()[1:-2]:
        no_canary_shows.add(line)
    return text


class Authority:
    """An authorization server: checks each statement by the public key, and gives out tokens."""

    def __init__(self, lab: Lab, key: rsa.RSAPrivateKey, watch: Watch) -> None:
        self.script: Script = lab.script(then=self._answer)
        self.script.note = self._note  # type: ignore[method-assign]
        self.script.take = lambda _: None  # type: ignore[method-assign]
        self.claims: list[dict[str, Any]] = []
        self.heads: list[dict[str, Any]] = []
        self.forms: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.life: object = HOUR
        self.ahead = 0.0
        self.url = lab.endpoint(self.script, name="authority").base
        self._lab, self._key, self._watch = lab, key.public_key(), watch

    def _note(self, path: str, headers: dict[str, str], content: bytes) -> Request:
        assert path == "/token"
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        assert "authorization" not in headers
        assert headers["user-agent"] == f"asyncanalytics/{__version__}"
        self.forms.append({name: value[0] for name, value in parse_qs(content.decode()).items()})
        return content  # type: ignore[return-value]

    def _answer(self, _: object) -> Reply:
        date = {"date": formatdate(time.time() + self.ahead, usegmt=True)}
        try:
            self._check(self.forms[-1]["client_assertion"])
        except jwt.InvalidTokenError:
            return self._lab.reply(400, headers=date, body=b'{"error": "invalid_request"}')
        self.tokens.append(f"token-{len(self.tokens)}-of-the-authority")
        self._watch.add(self.tokens[-1])
        told = {"access_token": self.tokens[-1], "expires_in": self.life, "token_type": "Bearer"}
        return self._lab.reply(headers=date, body=json.dumps(told).encode())

    def _check(self, statement: str) -> None:
        claims = jwt.decode(
            statement,
            self._key,
            algorithms=["RS256"],
            audience=self.url,
            options={"verify_exp": False, "verify_iat": False},
        )
        now = time.time() + self.ahead
        if not claims["iat"] <= now < claims["exp"]:
            raise jwt.ExpiredSignatureError
        self.claims.append(claims)
        self.heads.append(jwt.get_unverified_header(statement))


@pytest.fixture
def authority(
    lab: Lab, key: rsa.RSAPrivateKey, no_canary_shows: Watch, wall: Callable[[float], str]
) -> Authority:
    """An authorization server in this process; the wall clock goes with the loop's."""
    del wall
    return Authority(lab, key, no_canary_shows)


@pytest.fixture
def app(authority: Authority, pem: str) -> OAuth:
    """The app as a user sets it."""
    return OAuth(client_id="an-app", key_id="a-key", private_key=pem, server=authority.url)


def signed(server: Script) -> list[str]:
    """Return the tokens that came with calls, in order."""
    return [each.headers["authorization"].removeprefix("Bearer ") for each in server.requests]


# ------------------------------------------------------------------------------------- what is sent


@looptime
async def test_a_token_goes_where_the_key_went(lab: Lab, authority: Authority, app: OAuth) -> None:
    """The statement is signed and says what it must; the key names the source in the body."""
    server = lab.script()
    async with lab.client(server, oauth=app) as client:
        await lab.track(client, 3)
        await client.flush()
    assert signed(server) == authority.tokens * len(server.requests)
    assert [each.body["writeKey"] for each in server.requests] == [lab.KEY] * len(server.requests)
    assert len(authority.tokens) == 1
    assert authority.heads == [{"alg": "RS256", "typ": "JWT", "kid": "a-key"}]
    claims, form = authority.claims[0], authority.forms[0]
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("an-app", "an-app", authority.url)
    assert claims["exp"] - claims["iat"] == 60
    assert len(claims["jti"]) == 36
    assert form["grant_type"] == "client_credentials"
    assert form["client_assertion_type"].endswith(":jwt-bearer")
    assert form["scope"] == "tracking_api:write"


@looptime
async def test_requests_in_flight_share_one_token(
    lab: Lab, authority: Authority, app: OAuth
) -> None:
    """Each of them waits for the same answer."""
    authority.script.replies = [lambda _: dataclasses.replace(authority._answer(_), delay=2.0)]
    server = lab.script()
    async with lab.client(server, oauth=app, batching=None) as client:
        for _ in range(4):
            await lab.track(client)
            await asyncio.sleep(0.6)
        await client.flush()
    assert len(authority.forms) == 1
    assert set(signed(server)) == {authority.tokens[0]}


# ------------------------------------------------------------------------------------- renewal


@looptime
async def test_a_token_is_renewed_ahead_of_its_end(
    lab: Lab, authority: Authority, app: OAuth
) -> None:
    """Between half and three quarters of its life, with the batch that comes then."""
    server = lab.script()
    async with lab.client(server, oauth=app) as client:
        for _ in range(10):
            await lab.track(client)
            await client.flush()
            await asyncio.sleep(HOUR / 8)
    used = [authority.tokens.index(each) for each in signed(server)]
    assert used == sorted(used)
    assert set(used[:5]) == {0}
    assert used[7] == 1
    assert len(authority.tokens) <= 3


@looptime
async def test_a_renewal_that_fails_does_no_harm(
    lab: Lab, authority: Authority, app: OAuth
) -> None:
    """The token that there is goes on to be used to its end."""
    authority.script.replies = [authority._answer, 503]
    server = lab.script()
    async with lab.client(server, oauth=app) as client:
        await lab.track(client)
        await client.flush()
        await asyncio.sleep(HOUR * 0.8)
        for _ in range(3):
            await lab.track(client)
            await client.flush()
        await asyncio.sleep(40)
        await lab.track(client)
        await client.flush()
    assert client.stats().delivered == 5
    assert signed(server) == [*authority.tokens[:1] * 4, authority.tokens[1]]
    assert len(authority.forms) == 3


@looptime
@pytest.mark.parametrize("life", [None, 0, "soon"])
async def test_a_life_that_is_not_told_is_short(
    lab: Lab, authority: Authority, app: OAuth, life: object
) -> None:
    """Two minutes, and so renewed after one or a little more."""
    authority.life = life
    async with lab.client(lab.script(), oauth=app) as client:
        for _ in range(2):
            await lab.track(client)
            await client.flush()
            await asyncio.sleep(100)
    assert len(authority.tokens) == 2


# ------------------------------------------------------------------------------------- refusals


@looptime
@pytest.mark.parametrize("status", [401, 403, 511])
async def test_a_token_that_is_refused_is_replaced_once(
    lab: Lab, authority: Authority, app: OAuth, status: int
) -> None:
    """A token that was withdrawn costs one more request, at once."""
    server = lab.script(200, status)
    async with lab.client(server, oauth=app) as client:
        for _ in range(2):
            receipt = (await lab.track(client))[0]
            outcome = await receipt.settled()
    assert (outcome.kind, outcome.attempts) == ("delivered", 2)
    assert signed(server) == [*authority.tokens[:1] * 2, authority.tokens[1]]


@looptime
async def test_a_second_token_that_is_refused_halts(
    lab: Lab, authority: Authority, app: OAuth, logged: pytest.LogCaptureFixture
) -> None:
    """It is not the token then: what to check is said once, and it is tried again later."""
    server = lab.script(401, 401)
    async with lab.client(server, oauth=app) as client:
        outcome = await (await lab.track(client))[0].settled()
        assert (outcome.kind, outcome.status, outcome.attempts) == ("rejected", 401, 2)
        await asyncio.sleep(61)
        outcome = await (await lab.track(client))[0].settled()
    assert outcome.delivered
    assert len(authority.tokens) == 3
    errors = [each.getMessage() for each in logged.records if each.levelname == "ERROR"]
    assert len(errors) == 1
    assert "the token is refused (status 401): check the OAuth app's scope" in errors[0]


@looptime
@pytest.mark.parametrize("status", [400, 401, 403, 404, 415])
async def test_a_statement_that_is_refused_halts(
    lab: Lab, authority: Authority, app: OAuth, logged: pytest.LogCaptureFixture, status: int
) -> None:
    """The app's settings are wrong: no call is sent, and what to check is said."""
    authority.script.replies = [status] * 2
    server = lab.script()
    async with lab.client(server, oauth=app) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.status) == ("rejected", status)
    assert server.requests == []
    assert f"gives no token (status {status}): check the OAuth app" in logged.text


@looptime
@pytest.mark.parametrize(
    "bad",
    [
        {"status": 503},
        {"status": 429},
        {"status": 302, "headers": {"location": "http://127.0.0.9"}},
        {"status": 200, "drop": True},
        {"status": 200, "delay": 60.0},
        {"status": 200, "body": b"no JSON"},
        {"status": 200, "body": b"[]"},
        {"status": 200, "body": b'{"access_token": 1}'},
        {"status": 200, "body": b'{"access_token": "two\\nlines"}'},
    ],
)
async def test_a_server_that_cannot_answer_is_tried_again(
    lab: Lab, authority: Authority, app: OAuth, bad: dict[str, Any]
) -> None:
    """Nothing is lost by it: the calls wait, and arrive."""
    authority.script.replies = [lab.reply(**bad)] * 3
    server = lab.script()
    async with lab.client(server, oauth=app) as client:
        await lab.track(client, 5)
        stats = await client.flush()
    assert (stats.delivered, stats.accepted) == (5, 5)
    assert len(authority.forms) >= 4
    assert set(signed(server)) == set(authority.tokens)


@looptime
@pytest.mark.parametrize("header", ["retry-after", "x-ratelimit-reset"])
async def test_a_limit_of_the_server_s_is_kept(
    lab: Lab, authority: Authority, app: OAuth, header: str
) -> None:
    """It says in one of two headers how long to wait."""
    authority.script.replies = [lab.reply(429, headers={header: "120"})]
    began = asyncio.get_running_loop().time()
    async with lab.client(lab.script(), oauth=app) as client:
        await lab.track(client)
        await client.flush()
    assert 120 <= asyncio.get_running_loop().time() - began < 125


@looptime
@pytest.mark.parametrize("ahead", [-900.0, 900.0])
async def test_a_wrong_clock_is_set_right(
    lab: Lab, authority: Authority, app: OAuth, ahead: float
) -> None:
    """The server's own date says by how much, and the second statement is good."""
    authority.ahead = ahead
    async with lab.client(lab.script(), oauth=app) as client:
        await lab.track(client)
        stats = await client.flush()
    assert stats.delivered == 1
    assert (len(authority.forms), len(authority.claims)) == (2, 1)
    assert stats.rejected == 0


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"client_id": ""}, "client_id"),
        ({"key_id": None}, "key_id"),
        ({"scope": ""}, "scope"),
        ({"private_key": "no key"}, "private_key"),
        ({"private_key": None}, "private_key"),
        ({"private_key": "EC"}, "private_key"),
        ({"private_key": "PUBLIC"}, "private_key"),
        ({"server": "http://auth.example.com"}, "https://"),
        ({"server": "nowhere"}, "URL"),
    ],
)
def test_settings_that_cannot_work(
    key: rsa.RSAPrivateKey, pem: str, wrong: dict[str, Any], problem: str
) -> None:
    """What is wrong is said where it was written, and the key is not shown."""
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keys = {"EC": pem_of(ec.generate_private_key(ec.SECP256R1())), "PUBLIC": public.decode()}
    given = {"client_id": "an-app", "key_id": "a-key", "private_key": pem, **wrong}
    given["private_key"] = keys.get(given["private_key"], given["private_key"])
    with pytest.raises(ConfigurationError, match=problem):
        OAuth(**given)


def test_an_app_shows_no_key(pem: str, no_canary_shows: Watch) -> None:
    """Not in a repr, as a dict or in a copy; and it is not pickled."""
    app = OAuth(client_id="an-app", key_id="a-key", private_key=pem)
    no_canary_shows.look_through(app)
    assert "<Secret>" in repr(dataclasses.asdict(app))
    assert dataclasses.replace(app, scope="other").private_key.text() == pem
    with pytest.raises(TypeError, match="OAuth holds a key"):
        pickle.dumps(app)
    with pytest.raises(ConfigurationError, match=r"oauth must be an OAuth\(\.\.\.\)"):
        Destination("KEY", oauth="an-app")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not both"):
        AsyncClient(oauth=app, destinations=[Destination("KEY")])


def test_the_server_is_that_of_the_region(pem: str) -> None:
    """A token is good in one region only."""
    app = OAuth(client_id="an-app", key_id="a-key", private_key=pem)
    own = dataclasses.replace(app, server=f"{SERVER}/")
    assert app.server_for(endpoints.segment().base) == "https://oauth2.segment.io"
    eu = endpoints.segment(region="eu").base
    assert app.server_for(eu) == "https://oauth2.eu1.segmentapis.com"
    assert own.server_for(eu) == SERVER


def test_a_missing_extra_is_named(pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what signs, the extra that brings it is named."""
    monkeypatch.setitem(sys.modules, "jwt.algorithms", None)
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[oauth\]"):
        OAuth(client_id="an-app", key_id="a-key", private_key=pem)


# ------------------------------------------------------------------------------------- other doors


class ForAll(BaseHTTPRequestHandler):
    """An authorization server for clients of other threads: everyone gets the same token."""

    def do_POST(self) -> None:
        """Give it."""
        form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        assert form["grant_type"] == ["client_credentials"]
        body = b'{"access_token": "a-token-for-all", "expires_in": 86400}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def for_all(no_canary_shows: Watch) -> Iterator[str]:
    """The address of that server, on a socket."""
    no_canary_shows.add("a-token-for-all")
    with ThreadingHTTPServer(("127.0.0.1", 0), ForAll) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_sync_client_and_the_drop_in(live: Live, lab: Lab, pem: str, for_all: str) -> None:
    """They take the same app; the drop-in by the names of Segment's package."""
    app = OAuth(client_id="an-app", key_id="a-key", private_key=pem, server=for_all)
    with Client(lab.KEY, oauth=app) as client:
        client.track("Ordered", user_id="u")
    drop_in = analytics.Client(
        lab.KEY,
        host=live.url,
        oauth_client_id="an-app",
        oauth_client_key=pem,
        oauth_key_id="a-key",
        oauth_auth_server=for_all,
    )
    drop_in.track("u", "Ordered")
    drop_in.shutdown()
    assert client.stats().delivered == drop_in.stats().delivered == 1
    assert len(live.wait_for(2)) == 2


def test_the_drop_in_wants_all_three(pem: str) -> None:
    """A part of an app is a slip of the pen."""
    with pytest.raises(AssertionError, match="together"):
        analytics.Client("KEY", oauth_client_key=pem)


def test_the_page_s_program(  # noqa: PLR0917 - fixtures
    live: Live,
    example: Callable[..., Path],
    tmp_path: Path,
    pem: str,
    for_all: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reads the key from a file and sends with a token."""
    (tmp_path / "private.pem").write_text(pem, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OAUTH_SERVER", for_all)
    path = example("oauth", "send.py")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)  # noqa: S102 - the page's own
    assert [each["event"] for each in live.wait_for(1)] == ["Signed Up"]
