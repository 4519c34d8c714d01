"""Requests as the place of calls: what is read of them, what is not, and the client's life."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from threading import Barrier
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncanalytics import AsyncClient, ConfigurationError, MissingExtra, Sending, bound_context
from asyncanalytics.asgi import AnalyticsMiddleware, Policy, Privacy, RequestSource, bound_client
from asyncanalytics.binding import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from conftest import Lab

    from asyncanalytics.asgi import ASGIApp, Scope
    from asyncanalytics.binding import Binding

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0 Safari/537.36"
BRANDS = '"Chromium";v="140", "Google Chrome";v="140", "Not=A?Brand";v="24"'
BROWSER = {
    "host": "shop.example",
    "user-agent": CHROME,
    "accept-language": "de-AT,de;q=0.9,en;q=0.8",
    "sec-ch-ua": BRANDS,
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "referer": "https://search.example/find?q=my+secret&utm_source=search",
    "cookie": "a=b; ajs_anonymous_id=39ee7ea5; ajs_user_id=%22u1%22; c=d",
}
UTM = "utm_source=news&utm_medium=email&utm_campaign=spring+sale&utm_term=t&utm_content=c"


def a_scope(headers: dict[str, str] | None = None, **members: Any) -> dict[str, Any]:
    """Make the scope of a request to https://shop.example/basket."""
    sent = BROWSER if headers is None else headers
    return {
        "type": "http",
        "scheme": "https",
        "path": "/basket",
        "raw_path": b"/basket",
        "query_string": f"{UTM}&token=secret".encode(),
        "client": ("203.0.113.77", 40_000),
        "server": ("10.0.0.1", 443),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
        **members,
    }


def read(scope: Scope | None = None, **policy: Any) -> Binding:
    """Return what is read of a request."""
    return RequestSource(a_scope() if scope is None else scope, Policy(**policy)).binding()


async def nothing(*_: Any) -> Any:
    """Neither receive nor send."""


@asynccontextmanager
async def sending(
    lab: Lab,
) -> AsyncIterator[tuple[AsyncClient, Callable[[], list[dict[str, Any]]]]]:
    """Open a client, and return it with what lists the calls that its server took."""
    server = lab.script()
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=server))
    made = AsyncClient("key", endpoint="http://127.0.0.1", sending=Sending(http_client=http))
    async with made as client:
        yield client, lambda: [each for one in server.requests for each in one.events]
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered + stats.dropped
    assert stats.delivered == len(server.seen)


async def run(lab: Lab, *scopes: Scope, **settings: Any) -> list[dict[str, Any]]:
    """Send requests to an app whose endpoint makes one call, and return what arrived."""
    async with sending(lab) as (client, arrived):

        async def app(*_: Any) -> None:
            await client.track("Seen")

        wrapped = AnalyticsMiddleware(app, **settings)
        for scope in scopes or [a_scope()]:
            await wrapped(scope, nothing, nothing)
    return arrived()


# ---------------------------------------------------------------------------- what is collected


async def test_a_browsers_request(lab: Lab) -> None:
    """A call made for it has the address, the browser, the page, the campaign and both ids."""
    (event,) = await run(lab)
    assert (event["userId"], event["anonymousId"]) == ("u1", "39ee7ea5")
    context = {name: each for name, each in event["context"].items() if name in read().context}
    assert context == {
        "ip": "203.0.113.77",
        "locale": "de-AT",
        "userAgent": CHROME,
        "userAgentData": {
            "brands": [
                {"brand": "Chromium", "version": "140"},
                {"brand": "Google Chrome", "version": "140"},
                {"brand": "Not=A?Brand", "version": "24"},
            ],
            "mobile": False,
            "platform": "Linux",
        },
        "page": {
            "path": "/basket",
            "search": f"?{UTM}",
            "url": f"https://shop.example/basket?{UTM}",
            "referrer": "https://search.example/find?utm_source=search",
        },
        "campaign": {
            "name": "spring sale",
            "source": "news",
            "medium": "email",
            "term": "t",
            "content": "c",
        },
    }
    assert event["context"]["channel"] == "server"


def test_a_bare_request() -> None:
    """Of a request that says nothing there is nothing but the page's path."""
    assert read({"type": "http"}).context == {"page": {"path": "/"}}
    assert read({"type": "http", "headers": [], "path": "/a"}).context == {"page": {"path": "/a"}}


@pytest.mark.parametrize(
    ("cookies", "anonymous_id", "user_id"),
    [
        ("ajs_anonymous_id=a1; ajs_user_id=u1", "a1", "u1"),
        ("ajs_anonymous_id=%22a1%22", "a1", None),  # as JSON, by older versions
        ('ajs_anonymous_id="a1"', "a1", None),
        ("ajs_user_id=null", None, None),
        ("ajs_user_id=%22null%22", None, None),
        ("ajs_user_id=undefined; ajs_anonymous_id=", None, None),
        ("ajs_user_id=42", None, "42"),
        ("ajs_user_id=%7B%22a%22%3A1%7D; ajs_anonymous_id=%5B1%5D", None, None),
        ("ajs_user_id=a%40b.example", None, "a@b.example"),
        ("ajs_user_id=%E2%82%AC%20a+b", None, "€ a+b"),
        ("ajs_user_id=%22a%5C%22b%22", None, 'a"b'),
        ("ajs_user_id=%22broken", None, None),
        ("ajs_user_id=%22%5Cud800%22", None, None),
        ("ajs_user_id=%FF%FE", None, None),
        ("ajs_user_id=a%00b; ajs_anonymous_id=a%0Ab", None, None),
        ("ajs_user_id=%", None, "%"),
        ("ajs_user_id=first; ajs_user_id=second", None, "first"),
        (" ; ;=; ajs_user_id ; ajs_user_idx=x; xajs_user_id=x;ajs_anonymous_id = a1 ", "a1", None),
        (f"ajs_user_id={'u' * 256}; ajs_anonymous_id={'a' * 257}", None, "u" * 256),
        (f"ajs_user_id={'%E2%82%AC' * 256}; ajs_anonymous_id={'a' * 9_999}", None, "€" * 256),
    ],
)
def test_ids_as_analytics_js_notes_them(
    cookies: str, anonymous_id: str | None, user_id: str | None
) -> None:
    """Percent-encoded, as JSON or not; what cannot be an id is none."""
    found = read(a_scope({"cookie": cookies}))
    assert (found.anonymous_id, found.user_id) == (anonymous_id, user_id)


def test_cookies_in_several_headers() -> None:
    """HTTP/2 may split them."""
    pairs = [
        (b"cookie", b"ajs_user_id=u1"),
        (b"cookie", b"a=b"),
        (b"cookie", b"ajs_anonymous_id=a1"),
    ]
    found = read(a_scope(headers={}) | {"headers": pairs})
    assert (found.anonymous_id, found.user_id) == ("a1", "u1")


@pytest.mark.parametrize(
    ("header", "locale"),
    [
        ("en-GB", "en-GB"),
        ("de;q=0.5, fr;q=0.9, en;q=0.7", "fr"),
        ("*, da;q=0.3", "da"),
        ("en;q=0, de;q=0.1", "de"),
        ("zh-Hant-TW,zh;q=0.9", "zh-Hant-TW"),
        ("de;level=1, <script>, en;q=x, it;q=nan, fr;q=0.2", "fr"),
        ("", None),
        (";;;,,,", None),
    ],
)
def test_the_best_language(header: str, locale: str | None) -> None:
    """The first of those with the highest weight; what is no language is passed over."""
    assert read(a_scope({"accept-language": header})).context.get("locale") == locale


def test_all_client_hints() -> None:
    """Those that a browser sends only when asked are named as in NavigatorUAData."""
    sent = {
        "sec-ch-ua-mobile": "?1",
        "sec-ch-ua-platform": '"Android"',
        "sec-ch-ua-platform-version": '"14.0.0"',
        "sec-ch-ua-model": '"Pixel \\"8\\""',
        "sec-ch-ua-arch": '""',
        "sec-ch-ua-bitness": "64",
        "sec-ch-ua-full-version-list": '"Chromium";v="140.0.1.2", broken, "X";v="1',
    }
    assert read(a_scope(sent)).context["userAgentData"] == {
        "mobile": True,
        "platform": "Android",
        "platformVersion": "14.0.0",
        "model": 'Pixel "8"',
        "bitness": "64",
        "fullVersionList": [{"brand": "Chromium", "version": "140.0.1.2"}],
    }


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://shop.example/basket"),
        ({"raw_path": b"/caf%C3%A9%2Fb"}, "https://shop.example/caf%C3%A9%2Fb"),
        ({"raw_path": None, "path": "/café a"}, "https://shop.example/caf%C3%A9%20a"),
        ({"raw_path": None, "path": "/\ud800\n"}, "https://shop.example/%3F%0A"),
        ({"raw_path": b"*"}, "https://shop.example/*"),
        ({"raw_path": b"/a?b"}, "https://shop.example/a"),
        ({"host": "shop.example:8443"}, "https://shop.example:8443/basket"),
        ({"host": "[2001:db8::1]:8443"}, "https://[2001:db8::1]:8443/basket"),
        ({"host": "evil.example/?a="}, "https://10.0.0.1:443/basket"),
        ({"host": "", "server": ("::1", 80)}, "https://[::1]:80/basket"),
        ({"host": "", "server": ("/run/app.sock", None)}, None),
        ({"host": "", "server": None}, None),
        ({"type": "websocket", "scheme": "wss"}, "wss://shop.example/basket"),
        ({"type": "websocket", "scheme": None}, "ws://shop.example/basket"),
        ({"scheme": None}, "http://shop.example/basket"),
    ],
)
def test_the_pages_address(changes: dict[str, Any], url: str | None) -> None:
    """It is put together from what was sent; a Host that is none is not taken."""
    host = changes.pop("host", "shop.example")
    found = read(a_scope({"host": host}, query_string=b"", **changes)).context["page"]
    assert found.get("url") == url


# -------------------------------------------------------------------------------------- privacy


@pytest.mark.parametrize(
    ("keep", "search", "referrer"),
    [
        ("utm", "?utm_source=a", "https://x.example/?utm_term=c"),
        ("full", "?id=7&utm_source=a", "https://x.example/?q=b&utm_term=c"),
        ("dropped", None, "https://x.example/"),
    ],
)
def test_query_strings(keep: Any, search: str | None, referrer: str) -> None:
    """They are cut alike in the page's address, its search and the referrer."""
    scope = a_scope(
        {"host": "a.example", "referer": "https://x.example/?q=b&utm_term=c#part"},
        query_string=b"id=7&utm_source=a",
    )
    found = read(scope, privacy=Privacy(query=keep)).context
    page = {"path": "/basket", "url": f"https://a.example/basket{search or ''}"}
    assert found["page"] == page | {"referrer": referrer} | ({"search": search} if search else {})
    assert found.get("campaign") == (None if keep == "dropped" else {"source": "a"})


@pytest.mark.parametrize(
    ("host", "full", "truncated"),
    [
        ("203.0.113.77", "203.0.113.77", "203.0.113.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("::ffff:203.0.113.77", "203.0.113.77", "203.0.113.0"),
        ("fe80::1%eth0", "fe80::1", "fe80::"),
        ("2002:cb00:714d::1", "2002:cb00:714d::1", "2002:cb00::"),
        ("2001:0:4136:e378:8000:63bf:34ff:8eb2", "2001:0:4136:e378:8000:63bf:34ff:8eb2", "2001::"),
        ("testclient", None, None),
        ("", None, None),
    ],
)
def test_addresses(host: str, full: str | None, truncated: str | None) -> None:
    """They are known in full, without what tells a household, or not at all."""
    scope = a_scope(client=(host, 1))
    assert read(scope).context.get("ip") == full
    assert read(scope, privacy=Privacy(ip="truncated")).context.get("ip") == truncated
    assert "ip" not in read(scope, privacy=Privacy(ip="dropped")).context


@pytest.mark.parametrize("signal", ["gpc", "dnt"])
@pytest.mark.parametrize("effect", ["ignore", "anonymous", "drop"])
@pytest.mark.parametrize("sent", [True, False])
async def test_signals(lab: Lab, signal: str, effect: Any, sent: bool) -> None:  # noqa: FBT001 - a row
    """A visitor's signal does what the app has chosen, and the app's call never fails by it."""
    header = {"gpc": "sec-gpc", "dnt": "dnt"}[signal]
    scope = a_scope({**BROWSER, header: "1" if sent else "0"})
    chosen: dict[str, Any] = {signal: effect}
    privacy = Privacy(**chosen)
    arrived = await run(
        lab, scope, privacy=privacy, user=lambda _: "u7", consent=lambda _: {"a": True}
    )
    if sent and effect == "drop":
        assert arrived == []
        return
    (event,) = arrived
    context = event["context"]
    assert context["locale"] == "de-AT"
    assert context["consent"] == {"categoryPreferences": {"a": True}}
    if sent and effect == "anonymous":
        assert not {"ip", "userAgent", "userAgentData"} & context.keys()
        assert "userId" not in event
        assert UUID(event["anonymousId"]).version == 4
    else:
        assert context["ip"] == "203.0.113.77"
        assert (event["userId"], event["anonymousId"]) == ("u7", "39ee7ea5")


async def test_the_stronger_signal_counts(lab: Lab) -> None:
    """Where both are sent, what drops wins; the call is counted as opted out."""
    scope = a_scope({**BROWSER, "sec-gpc": "1", "dnt": "1"})
    for privacy in (Privacy(gpc="drop", dnt="anonymous"), Privacy(gpc="anonymous", dnt="drop")):
        async with sending(lab) as (client, _):

            async def app(*_: Any) -> None:
                receipt = await client.track("Seen")
                assert receipt.outcome is not None
                assert receipt.outcome.reason == "opted_out"

            await AnalyticsMiddleware(app, privacy=privacy)(scope, nothing, nothing)
        assert client.stats().dropped == 1


@pytest.mark.parametrize("name", ["ip", "query", "gpc", "dnt"])
def test_a_choice_that_there_is_not(name: str) -> None:
    """It fails where it is written."""
    chosen: dict[str, Any] = {name: "some"}
    with pytest.raises(ConfigurationError, match=name):
        Privacy(**chosen)


# ------------------------------------------------------------------------------------- proxies


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "ip"),
    [
        # A stranger's word has no effect.
        ([], "203.0.113.77", "198.51.100.1", "203.0.113.77"),
        (["10.0.0.0/8"], "203.0.113.77", "198.51.100.1", "203.0.113.77"),
        (["10.0.0.7"], "10.0.0.8", "198.51.100.1", "10.0.0.8"),
        (["unix"], "203.0.113.77", "198.51.100.1", "203.0.113.77"),
        (["10.0.0.7"], "testclient", "198.51.100.1", None),
        # A proxy's has: what it has added is to the right of what it was sent.
        (["10.0.0.7"], "10.0.0.7", "198.51.100.1", "198.51.100.1"),
        (["10.0.0.7"], "10.0.0.7", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.7", "6.6.6.6, 198.51.100.1, 10.9.9.9", "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.7", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.7", "", "10.0.0.7"),
        (["10.0.0.0/8"], "10.0.0.7", "6.6.6.6, unknown, 10.9.9.9", None),
        (["10.0.0.0/8"], "::ffff:10.0.0.7", "198.51.100.1:4711", "198.51.100.1"),
        (["fd00::/8", "10.0.0.7"], "fd00::1", '"[2001:db8::1]:4711"', "2001:db8::1"),
        (["fd00::/8"], "fd00::1", "2001:db8::1", "2001:db8::1"),
        (["10.0.0.7"], "10.0.0.7", "6.6.6.6," + "x" * 9_999, None),
        (["10.0.0.7"], "10.0.0.7", "6.6.6.6," + "10.0.0.7," * 40 + "10.0.0.7", "10.0.0.7"),
        (["*"], "203.0.113.77", "6.6.6.6, 198.51.100.1", "6.6.6.6"),
        ("*", None, "6.6.6.6", "6.6.6.6"),
        ("*", "testclient", "6.6.6.6", "6.6.6.6"),
        (["unix"], None, "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        (["unix"], "", "198.51.100.1", "198.51.100.1"),
        ([], None, "198.51.100.1", None),
    ],
)
def test_forwarded_addresses(
    trusted: list[str], peer: str | None, forwarded: str, ip: str | None
) -> None:
    """Only trusted proxies are believed, and what they were sent themselves is not."""
    client = None if peer is None else (peer, 1)
    scope = a_scope({"x-forwarded-for": forwarded}, client=client)
    assert read(scope, trusted_proxies=trusted).context.get("ip") == ip


def test_forwarded_addresses_in_several_headers() -> None:
    """They count in their order, however many a forger has sent before."""
    forged = [(b"x-forwarded-for", b"6.6.6.6, 10.0.0.7")] * 2_000
    scope = a_scope({}) | {"headers": [*forged, (b"x-forwarded-for", b"198.51.100.1")]}
    scope["client"] = ("10.0.0.7", 1)
    assert read(scope, trusted_proxies=["10.0.0.7"]).context["ip"] == "198.51.100.1"


@pytest.mark.parametrize(
    ("peer", "own", "forwarded", "scheme"),
    [
        ("10.0.0.7", "http", "https", "https"),
        ("10.0.0.7", "https", "HTTP", "http"),
        ("10.0.0.7", "ws", "https", "wss"),
        ("10.0.0.7", "ws", "wss", "wss"),
        ("10.0.0.7", "http", "javascript", "http"),
        ("10.0.0.7", "http", "http, https", "https"),
        ("203.0.113.77", "http", "https", "http"),
    ],
)
def test_the_forwarded_scheme(peer: str, own: str, forwarded: str, scheme: str) -> None:
    """A trusted proxy tells how the client came to it."""
    scope = a_scope({"host": "a.example", "x-forwarded-proto": forwarded}, client=(peer, 1))
    page = read(scope | {"scheme": own}, trusted_proxies=["10.0.0.7"]).context["page"]
    assert page["url"].startswith(f"{scheme}://a.example/")


@pytest.mark.parametrize("wrong", [["10.0.0.256"], ["10.0.0.7/8"], ["localhost"], "ten", [b"*"]])
def test_a_proxy_that_is_none(wrong: Any) -> None:
    """A text that names no address fails where it was written."""
    with pytest.raises(ConfigurationError, match="trusted_proxies"):
        AnalyticsMiddleware(nothing, trusted_proxies=wrong)


def test_a_mapped_network_of_proxies() -> None:
    """Whichever way a network of IPv4 is written, its addresses are in it."""
    scope = a_scope({"x-forwarded-for": "198.51.100.1"}, client=("10.0.0.7", 1))
    found = read(scope, trusted_proxies=["::ffff:10.0.0.0/104"])
    assert found.context["ip"] == "198.51.100.1"


def test_a_password_in_a_referrer() -> None:
    """It is left out with the user's name."""
    scope = a_scope({"referer": "https://user:secret@x.example/a@b?utm_term=c"})
    assert read(scope).context["page"]["referrer"] == "https://x.example/a@b?utm_term=c"


def test_one_proxy_as_a_plain_text() -> None:
    """A text alone is a list of one, not of its characters."""
    scope = a_scope({"x-forwarded-for": "198.51.100.1"}, client=("10.0.0.7", 1))
    assert read(scope, trusted_proxies="10.0.0.7").context["ip"] == "198.51.100.1"


# ------------------------------------------------------------------------------ consent and user


async def test_consent_and_user_are_asked_once(lab: Lab) -> None:
    """They are asked when a first call is made, and what they say is in all calls."""
    asked: list[str] = []

    def consent(scope: Scope) -> dict[str, bool]:
        asked.append(f"consent {scope['path']}")
        return {"advertising": False, "functional": True}

    def user(scope: Scope) -> UUID:
        asked.append(f"user {scope['path']}")
        return UUID(int=7)

    async with sending(lab) as (client, arrived):

        async def app(scope: Any, *_: Any) -> None:
            for _each in range(scope["calls"]):
                await client.track("Seen")

        wrapped = AnalyticsMiddleware(app, consent=consent, user=user)
        await wrapped(a_scope(calls=0), nothing, nothing)
        assert asked == []
        await wrapped(a_scope(calls=3), nothing, nothing)
    assert sorted(asked) == ["consent /basket", "user /basket"]
    for event in arrived():
        preferences = {"advertising": False, "functional": True}
        assert event["context"]["consent"] == {"categoryPreferences": preferences}
        assert (event["userId"], event["anonymousId"]) == (str(UUID(int=7)), "39ee7ea5")


async def test_threads_of_a_request_ask_once() -> None:
    """Threads that make a request's first calls at the same moment get the same binding."""
    asked: list[int] = []
    start = Barrier(8)
    source = RequestSource(a_scope(), Policy(user=lambda _: asked.append(1)))

    def first() -> Binding:
        start.wait(timeout=10)
        return source.binding()

    with ThreadPoolExecutor(8) as pool:
        found = [each.result() for each in [pool.submit(first) for _ in range(8)]]
    assert asked == [1]
    assert len(set(map(id, found))) == 1


def test_the_app_alone_names_the_user() -> None:
    """Where it is asked and knows none, a cookie does not name one either."""
    assert read(user=lambda _: None).user_id is None
    assert read(user=lambda _: None).anonymous_id == "39ee7ea5"
    assert "consent" not in read(consent=lambda _: None).context
    assert read(consent=lambda _: {}).context["consent"] == {"categoryPreferences": {}}


@pytest.mark.parametrize("hook", ["consent", "user"])
async def test_a_hook_that_fails(lab: Lab, logged: pytest.LogCaptureFixture, hook: str) -> None:
    """The calls go on without it; each kind of failure is logged once, without its text."""
    answers: list[Any] = [
        KeyError("secret"),
        KeyError("secret"),
        OSError("secret"),
        True,
        ["secret"],
        {"a": "secret"},
    ]

    def fails(_: Scope) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    events = await run(lab, *[a_scope() for _ in answers], **{hook: fails})
    assert len(events) == 6
    assert all("consent" not in event["context"] for event in events)
    assert all(event["anonymousId"] == "39ee7ea5" for event in events)
    texts = [each.getMessage() for each in logged.records if hook in each.getMessage()]
    assert len(texts) == {"consent": 4, "user": 3}[hook]
    assert "secret" not in "".join(texts)


async def test_a_hook_that_makes_a_call_itself(lab: Lab) -> None:
    """Its call finds what is known so far, and asks nobody again."""
    async with sending(lab) as (client, arrived):

        def user(_: Scope) -> str:
            client.track_nowait("Asked")
            return "u7"

        async def app(*_: Any) -> None:
            await client.track("Seen")

        await AnalyticsMiddleware(app, user=user)(a_scope({}), nothing, nothing)
    asked, seen = sorted(arrived(), key=lambda event: str(event["event"]))
    assert asked["context"]["ip"] == "203.0.113.77"
    assert "userId" not in asked
    assert seen["userId"] == "u7"


async def _later(_: Scope) -> None:
    """A hook of the wrong kind."""


@pytest.mark.parametrize(
    "wrong",
    [{"consent": _later}, {"user": _later}, {"user": 7}, {"privacy": "all"}, {"client": "key"}],
)
def test_settings_of_the_wrong_kind(wrong: dict[str, Any]) -> None:
    """They fail where they are written."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        AnalyticsMiddleware(nothing, **wrong)


# -------------------------------------------------------------------------------- hostile input

NAMES = sorted(
    {
        *BROWSER,
        "dnt",
        "sec-gpc",
        "sec-ch-ua-arch",
        "sec-ch-ua-full-version-list",
        "sec-ch-ua-model",
        "x-forwarded-for",
        "x-forwarded-proto",
    }
)
WORDS = rb'" \ ; , = % %22 v= q= ajs_user_id= [ ] : :: 10.0.0.7 utm_source= & ? # 1 a'
PIECES = st.sampled_from([*WORDS.split(), b"\xff", b"\x00", b"\r\n"])
VALUES = st.one_of(
    st.binary(max_size=300),
    st.lists(PIECES, max_size=40).map(b"".join),
    PIECES.map(lambda p: p * 9_999),
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), VALUES), max_size=12)
STRICT = Policy(trusted_proxies="*", privacy=Privacy(query="full", ip="truncated"))


@settings(max_examples=150, deadline=None)
@given(headers=HEADERS, query=VALUES, path=st.text(max_size=50), raw=st.none() | VALUES)
async def test_whatever_is_sent_the_call_is_accepted(
    new_lab: type[Lab], headers: Any, query: bytes, path: str, raw: bytes | None
) -> None:
    """No header makes a call fail, and none makes it large."""
    scope = a_scope({}) | {"headers": headers, "query_string": query, "path": path, "raw_path": raw}
    with new_lab() as lab:
        async with lab.client(lab.script()) as client:
            for policy in (Policy(), STRICT):
                token = current.set(RequestSource(scope, policy))
                receipt = await client.track("Seen")
                current.reset(token)
                assert len(receipt.body) < 32_768
                for text in _texts(policy, scope):
                    assert len(text) <= 2_048
                    assert not any(ord(each) < 32 for each in text)


def _texts(policy: Policy, scope: Scope) -> list[str]:
    found: list[str] = []

    def gather(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                gather(each)
        elif isinstance(value, str):
            found.append(value)

    gather(RequestSource(scope, policy).binding().context)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("piece", [b"a", b"a,", b'"', b'"\\', b"; ajs_user_id=%22", b"\xe2\x82"])
def test_megabytes(name: str, piece: bytes) -> None:
    """A header of a megabyte is cut, and takes no time to speak of."""
    scope = a_scope({}) | {"headers": [(name.encode(), piece * (1_000_000 // len(piece)))]}
    assert all(len(text) <= 2_048 for text in _texts(STRICT, scope))


# ----------------------------------------------------------------------------------- middleware


async def test_nothing_is_read_unless_a_call_is_made() -> None:
    """A request for which no call is made costs next to nothing: not even its headers are seen."""

    class Unread(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError

    seen: list[Any] = []

    async def app(*_: Any) -> None:
        seen.append(current.get())

    await AnalyticsMiddleware(app)(a_scope() | {"headers": Unread()}, nothing, nothing)
    assert isinstance(seen[0], RequestSource)


@pytest.mark.parametrize("fails", [False, True])
async def test_what_was_bound_before_is_bound_again(fails: bool) -> None:  # noqa: FBT001 - a row
    """After a request, failed or not, neither the context variable nor the scope holds it."""

    async def app(*_: Any) -> None:
        assert current.get() is not before
        if fails:
            raise LookupError

    scope = a_scope()
    with bound_context(user_id="outer"):
        before = current.get()
        try:
            await AnalyticsMiddleware(app)(scope, nothing, nothing)
        except LookupError:
            assert fails
        assert current.get() is before
    assert scope == a_scope()


async def test_a_request_leaves_nothing_for_the_collector() -> None:
    """Scope and source do not hold each other: both go when the request does."""
    left: list[weakref.ref[Any]] = []

    class Weak(dict[str, Any]):
        pass

    async def app(scope: Any, *_: Any) -> None:
        left.append(weakref.ref(scope))
        source = current.get()
        assert source is not None
        source.binding()

    gc.disable()
    try:
        await AnalyticsMiddleware(app)(Weak(a_scope()), nothing, nothing)
        assert left[0]() is None
    finally:
        gc.enable()


async def test_requests_do_not_see_each_other(lab: Lab) -> None:
    """Calls of requests that run at the same time have their own request's ids and address."""
    gate = asyncio.Barrier(20)
    async with sending(lab) as (client, arrived):

        async def app(scope: Any, *_: Any) -> None:
            await gate.wait()
            await client.track("Seen", properties={"n": scope["n"]})
            await gate.wait()
            task = asyncio.create_task(client.track("Seen", properties={"n": scope["n"]}))
            await task

        wrapped = AnalyticsMiddleware(app)
        scopes = [
            a_scope({"cookie": f"ajs_user_id=u{n}"}, n=n, client=(f"203.0.113.{n}", 1))
            for n in range(20)
        ]
        await asyncio.gather(*(wrapped(scope, nothing, nothing) for scope in scopes))
    events = arrived()
    assert len(events) == 40
    for event in events:
        n = event["properties"]["n"]
        assert event["userId"] == f"u{n}"
        assert event["context"]["ip"] == f"203.0.113.{n}"


async def test_a_visitor_without_ids_has_one_for_the_request(lab: Lab) -> None:
    """What works with cookies works without: the calls of a request share an id of its own."""
    async with sending(lab) as (client, arrived):

        async def app(*_: Any) -> None:
            await client.track("Seen")
            await client.track("Seen")
            await client.track("Named", user_id="u7")
            await client.bind(context={"locale": "de"}).track("Seen")
            with bound_context(context={"locale": "de"}):
                await client.track("Seen")
            await client.bind(user_id="u7").track("Named")

        wrapped = AnalyticsMiddleware(app)
        await wrapped(a_scope({}), nothing, nothing)
        await wrapped(a_scope({}), nothing, nothing)
    seen = [event["anonymousId"] for event in arrived() if event["event"] == "Seen"]
    assert len(seen) == 8
    assert len(set(seen)) == 2
    assert all("anonymousId" not in event for event in arrived() if event["event"] == "Named")


async def test_what_is_around_the_request_fills_in(lab: Lab) -> None:
    """A server that runs inside `bound_context` says what its requests do not."""
    with bound_context(context={"app": {"name": "shop"}, "locale": "xx"}):
        (event, bare) = await run(lab, a_scope(), a_scope({}))
    assert event["context"]["app"] == {"name": "shop"}
    assert event["context"]["locale"] == "de-AT"
    assert bare["context"]["locale"] == "xx"
    assert bare["anonymousId"]


async def test_of_two_middlewares_the_inner_one_decides(lab: Lab) -> None:
    """What the inner one withholds does not come through from the outer one."""
    async with sending(lab) as (client, arrived):

        async def app(*_: Any) -> None:
            await client.track("Seen")

        async def both(*given: Any) -> None:
            await AnalyticsMiddleware(app, privacy=Privacy(ip="dropped"))(*given)
            await app(*given)

        with bound_context(context={"app": {"name": "shop"}}):
            await AnalyticsMiddleware(both)(a_scope(), nothing, nothing)
    inner, outer = arrived()
    assert "ip" not in inner["context"]
    assert outer["context"]["ip"] == "203.0.113.77"
    assert inner["context"]["app"] == outer["context"]["app"] == {"name": "shop"}


async def test_other_scopes_pass() -> None:
    """What is neither a request nor a lifespan with a client is the app's own business."""
    seen: list[str] = []

    async def app(scope: Any, *_: Any) -> None:
        assert current.get() is None
        seen.append(scope["type"])

    wrapped = AnalyticsMiddleware(app)
    await wrapped({"type": "lifespan"}, nothing, nothing)
    await wrapped({"type": "telepathy"}, nothing, nothing)
    assert seen == ["lifespan", "telepathy"]


# --------------------------------------------------------------------------------- bound_client


@pytest.mark.parametrize("where", ["state", "middleware", "state only"])
async def test_the_client_of_a_request(lab: Lab, where: str) -> None:
    """It is in the lifespan's state, or the middleware's; without one the request is read too."""
    async with sending(lab) as (client, arrived):
        scope = a_scope(state={} if where == "middleware" else {"analytics": client})

        async def app(scope: Any, *_: Any) -> None:
            with bound_context(context={"app": {"name": "shop"}}):
                await bound_client(scope).track("Seen")
            await bound_client(scope).with_user("u7").track("Seen")

        given = client if where == "middleware" else None
        wrapped: ASGIApp = app
        if where != "state only":
            wrapped = AnalyticsMiddleware(app, client=given)
        await wrapped(scope, nothing, nothing)
    seen, known = arrived()
    assert (seen["userId"], seen["anonymousId"]) == ("u1", "39ee7ea5")
    assert (known["userId"], known["anonymousId"]) == ("u7", "39ee7ea5")
    assert seen["context"]["app"] == {"name": "shop"}
    assert "app" not in known["context"]
    assert seen["context"]["ip"] == known["context"]["ip"] == "203.0.113.77"


@pytest.mark.parametrize("state", [None, {}, {"analytics": "another thing"}])
async def test_no_client(state: Any) -> None:
    """What is missing, and how it comes there, is said."""

    async def app(scope: Any, *_: Any) -> None:
        bound_client(scope)

    for each in (app, AnalyticsMiddleware(app)):
        with pytest.raises(ConfigurationError, match=r"lifespan=client\.lifespan"):
            await each(a_scope(state=state), nothing, nothing)


@pytest.mark.parametrize("name", ["fastapi", "starlette"])
def test_a_framework_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its integration says which extra brings it."""
    module = f"asyncanalytics.integrations.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"asyncanalytics\[{name}\]"):
        importlib.import_module(module)


# ------------------------------------------------------------------------------------- lifespan


class Server:
    """A server's side of one lifespan."""

    def __init__(self, app: ASGIApp, **scope: Any) -> None:
        self.scope: dict[str, Any] = {"type": "lifespan", **scope}
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.ensure_future(app(self.scope, self._to_app.get, self._from_app.put))

    async def tell(self, what: str) -> str:
        """Send an event, and return the answer's kind; the failure's, if the app raises instead."""
        self._to_app.put_nowait({"type": f"lifespan.{what}"})
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait({answer, self.task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            return repr(self.task.exception())
        self.last = answer.result()
        return str(self.last["type"]).removeprefix("lifespan.")


def an_app(kind: str) -> ASGIApp:
    """Make an app that treats its lifespan in some way; what is up and then ends, ends early."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        _end_early(kind, "", "raises", "returns")
        if kind == "answers with http":
            await send({"type": "http.response.start", "status": 404})
        assert (await receive())["type"] == "lifespan.startup"
        _end_early(kind, " at startup", "raises")
        if kind == "fails at startup":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            raise ValueError
        if "state" in scope:
            scope["state"]["own"] = 7
        await send({"type": "lifespan.startup.complete"})
        _end_early(kind, " once it is up", "raises", "returns")
        assert (await receive())["type"] == "lifespan.shutdown"
        _end_early(kind, " at shutdown", "raises", "returns")
        done = "failed" if kind == "fails at shutdown" else "complete"
        await send({"type": f"lifespan.shutdown.{done}"})

    async def ending(*given: Any) -> None:
        with suppress(_Returned):
            await app(*given)

    return ending


class _Returned(Exception):
    """The app ends here, without a failure."""


def _end_early(kind: str, when: str, *ways: str) -> None:
    if kind == f"raises{when}" and "raises" in ways:
        raise ValueError("secret")
    if kind == f"returns{when}" and "returns" in ways:
        raise _Returned


@pytest.mark.parametrize(
    ("kind", "startup", "shutdown"),
    [
        ("has one", "startup.complete", "shutdown.complete"),
        ("raises", "startup.complete", "shutdown.complete"),
        ("returns", "startup.complete", "shutdown.complete"),
        ("answers with http", "startup.complete", "shutdown.complete"),
        ("raises at startup", "startup.complete", "shutdown.complete"),
        ("fails at startup", "startup.failed", None),
        ("returns once it is up", "startup.complete", "shutdown.complete"),
        ("raises once it is up", "startup.complete", "ValueError('secret')"),
        ("raises at shutdown", "startup.complete", "ValueError('secret')"),
        ("returns at shutdown", "startup.complete", "shutdown.complete"),
        ("fails at shutdown", "startup.complete", "shutdown.failed"),
    ],
)
async def test_lifespans(
    lab: Lab, logged: pytest.LogCaptureFixture, kind: str, startup: str, shutdown: str | None
) -> None:
    """Whatever an app does, the client is open while it is up and closed when it is not."""
    script = lab.script()
    client = lab.client(script)
    server = Server(AnalyticsMiddleware(an_app(kind), client=client), state={})
    assert await server.tell("startup") == startup
    if shutdown is None:
        assert client.stats().state == "closed"
        assert server.last["message"] == "no database"
    else:
        assert server.scope["state"]["analytics"] is client
        await client.track("Seen", user_id="u1")
        assert await server.tell("shutdown") == shutdown
        assert client.stats().state == "closed"
        assert client.stats().delivered == 1
    await asyncio.wait({server.task})
    assert (server.task.exception() is None) == (shutdown not in (None, "ValueError('secret')"))
    assert "secret" not in logged.text


async def test_the_apps_state_is_passed_on(lab: Lab) -> None:
    """What the app puts into the lifespan's state is there beside the client."""
    client = lab.client(lab.script())
    server = Server(AnalyticsMiddleware(an_app("has one"), client=client), state={"before": 1})
    await server.tell("startup")
    assert server.scope["state"] == {"before": 1, "analytics": client, "own": 7}
    await server.tell("shutdown")


async def test_a_server_without_state(lab: Lab) -> None:
    """The client is then found by way of the middleware."""
    client = lab.client(lab.script())
    server = Server(AnalyticsMiddleware(an_app("has one"), client=client))
    assert await server.tell("startup") == "startup.complete"
    assert "state" not in server.scope
    await server.tell("shutdown")


async def test_a_client_that_does_not_start(lab: Lab) -> None:
    """The server is told so, with the reason, and the app is not started."""
    client = lab.client(lab.script())
    async with client:
        server = Server(AnalyticsMiddleware(an_app("has one"), client=client), state={})
        assert await server.tell("startup") == "startup.failed"
        assert "started already" in server.last["message"]
        assert server.scope["state"] == {}
        await server.task


async def test_a_lifespan_that_is_cancelled(lab: Lab) -> None:
    """A server that gives up waiting still gets a closed client."""
    client = lab.client(lab.script())
    server = Server(AnalyticsMiddleware(an_app("has one"), client=client))
    await server.tell("startup")
    server.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.task
    assert client.stats().state == "closed"


async def test_one_app_runs_twice(lab: Lab) -> None:
    """As under a test client, or a server that restarts in its process."""
    client = lab.client(lab.script())
    wrapped = AnalyticsMiddleware(an_app("has one"), client=client)
    for count in (1, 2):
        server = Server(wrapped, state={})
        assert await server.tell("startup") == "startup.complete"
        await client.track("Seen", user_id="u1")
        assert await server.tell("shutdown") == "shutdown.complete"
        assert client.stats().delivered == count
