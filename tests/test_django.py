"""Django: requests are bound in sync and async views, in process and under real servers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("django")

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient as AsyncBrowser
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.test import Client as Browser
from django.urls import path
from django.utils.functional import SimpleLazyObject

import asyncanalytics
from asyncanalytics import AsyncClient, Client, ConfigurationError, bound_context
from asyncanalytics.asgi import AnalyticsMiddleware as AroundDjango
from asyncanalytics.binding import current
from asyncanalytics.integrations.django import AnalyticsMiddleware, Privacy, get_analytics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asyncanalytics import Stats

MIDDLEWARE = "asyncanalytics.integrations.django.AnalyticsMiddleware"
SIGNED_IN = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@pytest.fixture(scope="module", autouse=True)
def django(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set Django up, once for the process, with a table of users in a file."""
    import django

    settings.configure(
        SECRET_KEY="secret",
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": tmp_path_factory.mktemp("django") / "users.sqlite3",
            }
        },
    )
    django.setup()
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.contenttypes.models import ContentType
    from django.db import connections

    with connections["default"].schema_editor() as editor:
        for model in (ContentType, Permission, Group, User):
            editor.create_model(model)
    yield
    connections.close_all()


@pytest.fixture
async def threads() -> AsyncIterator[None]:
    """Close, at the end, the connections of the thread that Django's sync code runs in."""
    from django.db import connections

    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
def analytics(live: Any) -> Iterator[Client]:
    """A sync client whose calls all arrive."""
    with Client() as client:
        yield client
    check(client.stats(), live)
    assert current.get() is None


def check(stats: Stats, live: Any) -> None:
    """Assert the law over a client that has closed."""
    assert stats.is_balanced
    assert stats.accepted == stats.delivered + stats.dropped
    assert stats.delivered == len(live.events)
    assert len({event["messageId"] for event in live.events}) == stats.delivered


@contextmanager
def site(*views: Any, middleware: Any = (MIDDLEWARE,), **given: Any) -> Iterator[None]:
    """Serve views, each under its own name."""
    urls = tuple(path(view.__name__, view) for view in views)
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=list(middleware), **given):
        yield


def user(name: str = "ada") -> Any:
    """Return a user of the database."""
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username=name)[0]


# --------------------------------------------------------------------------------------- sync views


def test_a_sync_view_has_the_request_s_context(analytics: Client, live: Any) -> None:
    """What WSGI tells is read as ASGI's is: address, browser, page, campaign and cookies."""

    def page(_: HttpRequest) -> HttpResponse:
        analytics.track("Seen", context={"page": {"title": "Basket"}})
        return HttpResponse()

    browser = Browser(REMOTE_ADDR="203.0.113.7")
    browser.cookies["ajs_anonymous_id"] = "visitor"
    with site(page):
        browser.get(
            "/page?utm_source=news&q=secret",
            headers={
                "Host": "shop.example",
                "User-Agent": "Browser/1",
                "Accept-Language": "de-CH",
                "Referer": "https://example.com/?q=secret",
                "X-Forwarded-For": "198.51.100.1",
            },
        )
    (event,) = analytics.flush(5) and live.events
    context = event["context"]
    assert event["anonymousId"] == "visitor"
    assert context["ip"] == "203.0.113.7"
    assert context["userAgent"] == "Browser/1"
    assert context["locale"] == "de-CH"
    assert context["campaign"] == {"source": "news"}
    assert context["page"] == {
        "title": "Basket",
        "path": "/page",
        "search": "?utm_source=news",
        "url": "http://shop.example/page?utm_source=news",
        "referrer": "https://example.com/",
    }


def test_nothing_stays_in_the_thread(analytics: Client, live: Any) -> None:
    """A request that raises, and one after another, leave nothing bound to their thread."""

    def page(request: HttpRequest) -> HttpResponse:
        analytics.track("Seen", user_id=request.GET["n"])
        raise LookupError

    browser = Browser(raise_request_exception=False)
    with site(page):
        for n in range(3):
            answer = browser.get(f"/page?n={n}", headers={"User-Agent": f"Browser/{n}"})
            assert answer.status_code == 500
            assert current.get() is None
    analytics.track("Outside", user_id="u1")
    *seen, outside = analytics.flush(5) and live.events
    assert [event["context"]["userAgent"] for event in seen] == [f"Browser/{n}" for n in range(3)]
    assert "userAgent" not in outside["context"]


def test_a_request_without_calls_is_not_read() -> None:
    """No call, no query and nothing asked of the app."""

    def page(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(type(request.__dict__["user"]._wrapped)))

    def asked(_: HttpRequest) -> None:
        raise AssertionError

    rules = {"CONSENT": asked}
    with site(page, middleware=[MIDDLEWARE, *SIGNED_IN], ASYNCANALYTICS=rules):
        answer = Browser().get("/page")
    assert answer.content == b"<class 'object'>"
    assert "Vary" not in answer.headers


def test_a_stream_is_bound_while_it_is_made(analytics: Client, live: Any) -> None:
    """The parts of a stream are made after the view, one by one, and each with the context."""

    def stream(_: HttpRequest) -> StreamingHttpResponse:
        def parts() -> Iterator[str]:
            for n in range(2):
                analytics.track(f"part {n}")
                yield str(n)

        return StreamingHttpResponse(parts())

    with site(stream):
        answer = Browser().get("/stream", headers={"User-Agent": "Browser/1"})
        for part, expected in zip(answer.streaming_content, (b"0", b"1"), strict=True):
            assert part == expected
            assert current.get() is None
    first, second = analytics.flush(5) and live.events
    assert first["context"]["userAgent"] == second["context"]["userAgent"] == "Browser/1"
    assert first["anonymousId"] == second["anonymousId"]


def test_a_file_stays_a_file(tmp_path: Path) -> None:
    """A server can still send a file by its own means."""
    (tmp_path / "file").write_bytes(b"content")
    middleware = AnalyticsMiddleware(lambda _: FileResponse((tmp_path / "file").open("rb")))
    answer = middleware(RequestFactory().get("/"))
    assert answer.file_to_stream is not None
    assert answer.getvalue() == b"content"
    answer.close()


# ----------------------------------------------------------------------------------------- the user


def test_the_user_who_is_signed_in_is_the_calls_user(analytics: Client, live: Any) -> None:
    """In sync code `request.user` is asked, after every middleware; a cookie is not believed."""

    def page(_: HttpRequest) -> HttpResponse:
        analytics.track("Seen")
        analytics.track("Invited", user_id="friend")
        return HttpResponse()

    browser, stranger = Browser(), Browser()
    stranger.cookies["ajs_user_id"] = "forged"
    with site(page, middleware=[MIDDLEWARE, *SIGNED_IN]):
        browser.force_login(user())
        assert browser.get("/page").headers["Vary"] == "Cookie"
        stranger.get("/page")
    events = analytics.flush(5) and live.events
    assert [event.get("userId") for event in events] == [str(user().pk), "friend", None, "friend"]


def test_a_login_changes_the_calls_after_it(analytics: Client, live: Any) -> None:
    """Calls before a login, after it, and after the logout speak of who was there."""
    from django.contrib.auth import login, logout

    def page(request: HttpRequest) -> HttpResponse:
        analytics.track("before")
        analytics.track("still before")
        login(request, user(), "django.contrib.auth.backends.ModelBackend")
        analytics.track("within")
        logout(request)
        analytics.track("after")
        return HttpResponse()

    with site(page, middleware=[*SIGNED_IN, MIDDLEWARE]):
        assert Browser().get("/page").status_code == 200
    events = analytics.flush(5) and live.events
    assert [event.get("userId") for event in events] == [None, None, str(user().pk), None]
    assert events[0]["anonymousId"] == events[1]["anonymousId"]


def test_a_user_that_cannot_be_had_fails_no_call(
    analytics: Client, live: Any, logged: pytest.LogCaptureFixture
) -> None:
    """What the lookup raises is logged without its text, and the call goes on."""

    def broken(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
        def middleware(request: HttpRequest) -> HttpResponse:
            def find() -> None:
                raise LookupError("a secret of the database")

            request.user = SimpleLazyObject(find)  # type: ignore[attr-defined]
            return get_response(request)

        return middleware

    def page(_: HttpRequest) -> HttpResponse:
        analytics.track("Seen")
        return HttpResponse()

    sys.modules["broken_middleware"] = type(sys)("broken_middleware")
    sys.modules["broken_middleware"].broken = broken  # type: ignore[attr-defined]
    with site(page, middleware=["broken_middleware.broken", MIDDLEWARE]):
        assert Browser().get("/page").status_code == 200
    del sys.modules["broken_middleware"]
    (event,) = analytics.flush(5) and live.events
    assert "userId" not in event
    assert "LookupError" in logged.text
    assert "secret" not in logged.text


@pytest.mark.usefixtures("threads")
async def test_async_code_never_loads_the_user(live: Any) -> None:
    """In an async view a user is known once the view has awaited it, and then in later calls."""

    async def page(request: HttpRequest) -> HttpResponse:
        await client.track("before")
        await request.auser()  # type: ignore[attr-defined]
        await client.track("after")
        return HttpResponse()

    browser = AsyncBrowser()
    with site(page, middleware=[*SIGNED_IN, MIDDLEWARE]):
        await browser.aforce_login(await sync_to_async(user)())
        async with AsyncClient() as client:
            assert (await browser.get("/page")).status_code == 200
    check(client.stats(), live)
    before, after = live.events
    assert "userId" not in before
    assert after["userId"] == str((await sync_to_async(user)()).pk)


# -------------------------------------------------------------------------------------- async views


async def test_async_views_at_the_same_time_are_told_apart(live: Any) -> None:
    """Each call has its own request's context, also between sync middleware and in threads."""
    sync_only = "django.middleware.gzip.GZipMiddleware"

    async def page(request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        await client.track(request.GET["n"])
        await sync_to_async(thread)(request)
        return HttpResponse()

    def thread(request: HttpRequest) -> HttpResponse:
        async_to_sync(client.track)(request.GET["n"])
        return HttpResponse()

    with site(page, thread, middleware=[only_sync(), MIDDLEWARE, only_sync(), sync_only]):
        async with AsyncClient() as client:
            browser = AsyncBrowser()
            # Not headers=: Django before the late 5.2s misnames those in its async test client.
            await asyncio.gather(
                *(
                    browser.get(f"/{name}?n={n}", **{"User-Agent": str(n)})
                    for n in range(10)
                    for name in ("page", "thread")
                )
            )
    check(client.stats(), live)
    assert len(live.events) == 30
    assert all(event["context"]["userAgent"] == event["event"] for event in live.events)
    assert current.get() is None


def only_sync() -> str:
    """Return the path of a middleware that knows no async."""
    return f"{__name__}.sync_middleware"


def sync_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    """A middleware as they have always been."""

    def middleware(request: HttpRequest) -> HttpResponse:
        return get_response(request)

    return middleware


async def test_the_middleware_costs_no_thread(live: Any) -> None:
    """In front of an async view, all stays on the loop's own thread and task."""
    seen: list[Any] = []

    async def page(_: HttpRequest) -> HttpResponse:
        seen.append(asyncio.current_task())
        return HttpResponse()

    with site(page):
        await AsyncBrowser().get("/page")
    assert seen == [asyncio.current_task()]
    assert live.events == []


async def test_an_async_stream_is_bound(live: Any) -> None:
    """The parts of an async stream are made with the context, and it stays with them."""

    async def stream(_: HttpRequest) -> StreamingHttpResponse:
        async def parts() -> AsyncIterator[str]:
            for n in range(2):
                await client.track(f"part {n}")
                yield str(n)

        return StreamingHttpResponse(parts())

    with site(stream):
        async with AsyncClient() as client:
            answer = await AsyncBrowser().get("/stream", **{"User-Agent": "Browser/1"})
            async for _ in answer.streaming_content:
                assert current.get() is None
    check(client.stats(), live)
    assert [event["context"]["userAgent"] for event in live.events] == ["Browser/1"] * 2


def test_async_views_under_wsgi_call_a_client(analytics: Client, live: Any) -> None:
    """There each request has a loop of its own, and the sync client works on any."""

    async def page(_: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        analytics.track("Seen")
        return HttpResponse()

    with site(page):
        assert Browser().get("/page", headers={"User-Agent": "Browser/1"}).status_code == 200
    (event,) = analytics.flush(5) and live.events
    assert event["context"]["userAgent"] == "Browser/1"


# ------------------------------------------------------------------------------- the bound client


async def call(app: Any, where: str, **scope: Any) -> int:
    """Call an ASGI app as a server does, and return the status."""
    path_, _, query = where.partition("?")
    full = {
        "type": "http",
        "method": "GET",
        "path": path_,
        "query_string": query.encode(),
        "headers": [(b"host", b"example.com"), (b"user-agent", b"Browser/1")],
        "client": ("203.0.113.7", 1),
        "state": {},
        **scope,
    }
    asked = asyncio.Event()
    sent: list[Any] = []

    async def receive() -> Any:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(full, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("middleware", [[], [MIDDLEWARE]])
async def test_get_analytics_gives_the_client_bound_to_the_request(
    live: Any, middleware: list[str]
) -> None:
    """It is found with Django's middleware and without it."""

    async def page(request: HttpRequest) -> HttpResponse:
        analytics = get_analytics(request)
        await analytics.track("Seen")
        await analytics.with_user("u1").track("Seen")
        with bound_context(user_id="u2"):
            await get_analytics(request).track("Seen")
        return HttpResponse()

    with site(page, middleware=middleware):
        async with AsyncClient() as client:
            app = AroundDjango(get_asgi_application(), client=client)
            assert await call(app, "/page") == 200
    check(client.stats(), live)
    assert [event.get("userId") for event in live.events] == [None, "u1", "u2"]
    assert {event["context"]["ip"] for event in live.events} == {"203.0.113.7"}


def test_get_analytics_says_what_it_needs() -> None:
    """Under WSGI, and where no client was given, it says what to do."""
    with pytest.raises(ConfigurationError, match="WSGI"):
        get_analytics(RequestFactory().get("/"))
    with pytest.raises(ConfigurationError, match="no AsyncClient"):
        get_analytics(AsyncRequestFactory().get("/"))


async def test_what_one_middleware_withholds_the_other_does_not_tell(live: Any) -> None:
    """Django's settings count; what they do not name is as around Django."""
    hidden = Privacy(ip="dropped")

    async def page(request: HttpRequest) -> HttpResponse:
        await get_analytics(request).track("Seen")
        return HttpResponse()

    async with AsyncClient() as client:
        for around, within in ((hidden, {}), (None, {"PRIVACY": hidden})):
            with site(page, ASYNCANALYTICS=within):
                app = AroundDjango(
                    get_asgi_application(),
                    client=client,
                    privacy=around,
                    user=lambda _: "u1",
                    consent=lambda _: {"ads": False},
                )
                assert await call(app, "/page") == 200
        with site(page, ASYNCANALYTICS={"PRIVACY": hidden}):
            # The client is found in the state, and nothing is around Django.
            state = {"analytics": client}
            assert await call(get_asgi_application(), "/page", state=state) == 200
    check(client.stats(), live)
    assert len(live.events) == 3
    for event in live.events:
        assert "ip" not in event["context"]
        assert event["context"]["userAgent"] == "Browser/1"
    for event in live.events[:2]:
        assert event["userId"] == "u1"
        assert event["context"]["consent"] == {"categoryPreferences": {"ads": False}}


# ----------------------------------------------------------------------------------------- settings


def customer(request: HttpRequest) -> str | None:
    """Say who the user is, by the request."""
    return request.headers.get("X-Customer")


def test_the_settings_are_followed(analytics: Client, live: Any) -> None:
    """Privacy, proxies, consent and user are as the settings say."""

    def page(_: HttpRequest) -> HttpResponse:
        analytics.track("Seen")
        return HttpResponse()

    rules = {
        "PRIVACY": Privacy(ip="truncated", gpc="drop"),
        "TRUSTED_PROXIES": ["10.0.0.0/8"],
        "CONSENT": lambda request: {"ads": request.COOKIES.get("ads") == "yes"},
        "USER": f"{__name__}.customer",
    }
    browser = Browser(REMOTE_ADDR="10.1.2.3")
    browser.cookies["ads"] = "yes"
    sent = {
        "Host": "shop.example",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Proto": "https",
        "X-Customer": "c1",
    }
    with site(page, ASYNCANALYTICS=rules):
        browser.get("/page", headers=sent)
        browser.get("/page", headers={**sent, "Sec-GPC": "1"})
    (event,) = analytics.flush(5) and live.events
    assert event["userId"] == "c1"
    assert event["context"]["ip"] == "203.0.113.0"
    assert event["context"]["page"]["url"] == "https://shop.example/page"
    assert event["context"]["consent"] == {"categoryPreferences": {"ads": True}}
    assert analytics.stats().dropped == 1


def test_without_a_user_hook_cookies_name_the_user(analytics: Client, live: Any) -> None:
    """`USER: None` looks at no `request.user`."""

    def page(_: HttpRequest) -> HttpResponse:
        analytics.track("Seen")
        return HttpResponse()

    browser = Browser()
    browser.cookies["ajs_user_id"] = "cookie"
    with site(page, middleware=[*SIGNED_IN, MIDDLEWARE], ASYNCANALYTICS={"USER": None}):
        browser.force_login(user())
        browser.get("/page")
    (event,) = analytics.flush(5) and live.events
    assert event["userId"] == "cookie"


async def nobody(_: HttpRequest) -> None:
    """Be async, where no async function can be asked."""


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"PRIVATE": 1}, "PRIVATE"),
        ({"PRIVACY": "full"}, "privacy"),
        ({"TRUSTED_PROXIES": ["nowhere"]}, "nowhere"),
        ({"CONSENT": "no.such.function"}, "CONSENT"),
        ({"CONSENT": 7}, "CONSENT"),
        ({"USER": nobody}, "USER"),
    ],
)
def test_a_setting_that_cannot_work_is_said_when_django_starts(rules: Any, said: str) -> None:
    """The name of the setting is in the message."""
    with site(ASYNCANALYTICS=rules), pytest.raises(ConfigurationError, match=said):
        Browser().get("/")


# -------------------------------------------------------------- what the page shows, for real


class Child:
    """A server in a process of its own, and what it prints."""

    def __init__(self, live: Any, folder: Path, *command: str) -> None:
        package = Path(asyncanalytics.__file__).parents[1]
        environ = {**live.environ, "PYTHONPATH": f"{folder}{os.pathsep}{package}"}
        self.process = subprocess.Popen(  # noqa: S603 - the commands are written below
            [sys.executable, *command],
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""

    def hear(self, pattern: str) -> str:
        """Read on until a line has the pattern, and return its first group."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(self.said)

    def stop(self, number: signal.Signals) -> str:
        """Send a signal, and return all that was said."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=20)
        self.said += rest
        return self.said


@contextmanager
def running(live: Any, folder: Path, *command: str) -> Iterator[Child]:
    """Run a server, and leave none behind."""
    child = Child(live, folder, *command)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.communicate()


def order(url: str, count: int) -> None:
    """Order several times, as a browser."""
    with httpx.Client(base_url=url, headers={"User-Agent": "Browser/1"}) as http:
        for _ in range(count):
            assert http.post("/orders").json() == {"status": "ok"}


def ordered(live: Any, count: int) -> None:
    """Assert that so many orders arrived, each once, with their context."""
    assert len(live.events) == count
    assert len({event["messageId"] for event in live.events}) == count
    for event in live.events:
        assert event["event"] == "Order Completed"
        assert event["context"]["userAgent"] == "Browser/1"
        assert event["context"]["ip"] == "127.0.0.1"
        assert event["context"]["page"]["path"] == "/orders"


def law(said: str, count: int, *, workers: int = 1) -> None:
    """Assert the law over the figures that each worker of a child printed at its end."""
    decode = json.JSONDecoder().raw_decode
    figures = [decode(said, each.start())[0] for each in re.finditer(r'\{"state"', said)]
    assert len(figures) == workers, said
    for stats in figures:
        assert stats["accepted"] == stats["delivered"]
        assert stats["rejected"] == stats["dropped"] == stats["pending"] == 0
    assert sum(stats["accepted"] for stats in figures) == count


UVICORN = """
import json, signal, uvicorn, shop

async def stop(*_): ...

class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("port", self.servers[0].sockets[0].getsockname()[1])

    def capture_signals(self):
        import contextlib
        signal.signal(signal.SIGTERM, self.handle_exit)
        return contextlib.nullcontext()

Server(uvicorn.Config(shop.application, port=0, lifespan="on", log_level="warning")).run()
print(json.dumps(shop.client.stats().as_dict()))
"""


@pytest.mark.long
def test_the_page_s_asgi_app_runs_under_uvicorn(live: Any, example: Callable[..., Path]) -> None:
    """The client starts with the server; at SIGTERM what is pending is sent."""
    pytest.importorskip("uvicorn")
    folder = example("django", "shop.py").parent
    with running(live, folder, "-W", "error", "-c", UVICORN) as child:
        order(f"http://127.0.0.1:{child.hear('port ([0-9]+)')}", 3)
        law(child.stop(signal.SIGTERM), 3)
    ordered(live, 3)


WSGIREF = """
import json, sync_shop
from wsgiref.simple_server import make_server

with make_server("127.0.0.1", 0, sync_shop.application) as server:
    print("port", server.server_port)
    for _ in range(3):
        server.handle_request()
print(json.dumps(sync_shop.client.close().as_dict()))
"""


@pytest.mark.long
def test_the_page_s_wsgi_app_runs_under_wsgiref(live: Any, example: Callable[..., Path]) -> None:
    """Requests of one thread each have their own context."""
    folder = example("django", "sync_shop.py").parent
    with running(live, folder, "-W", "error", "-c", WSGIREF) as child:
        url = f"http://127.0.0.1:{child.hear('port ([0-9]+)')}"
        for _ in range(3):
            order(url, 1)
        law(child.process.communicate(timeout=20)[0], 3)
    ordered(live, 3)


# Figures are printed after the interpreter has closed the client, which is what is tested.
FIGURES = """
import atexit, json

def post_worker_init(worker):
    import sync_shop
    atexit.register(lambda: print(json.dumps(sync_shop.client.stats().as_dict())))
    print("worker is ready")
"""


@pytest.mark.skipif(os.name != "posix", reason="gunicorn forks")
def test_the_page_s_wsgi_app_runs_under_gunicorn(live: Any, example: Callable[..., Path]) -> None:
    """Loaded before the fork, each worker has a client of its own, drained at SIGTERM."""
    pytest.importorskip("gunicorn")
    folder = example("django", "sync_shop.py").parent
    (folder / "figures.py").write_text(FIGURES, "utf-8")
    command = "-m gunicorn sync_shop --preload --workers 2 --bind 127.0.0.1:0 --no-control-socket"
    with running(live, folder, *command.split(), "-c", "figures.py") as child:
        url = child.hear("Listening at: ([^ ]+)")
        for _ in range(2):
            child.hear("worker is (ready)")
        order(url, 3)
        law(child.stop(signal.SIGTERM), 3, workers=2)
    ordered(live, 3)


@pytest.mark.long
def test_the_page_s_wsgi_app_runs_under_runserver(live: Any, example: Callable[..., Path]) -> None:
    """Django's own development server drains at Ctrl-C."""
    folder = example("django", "sync_shop.py").parent
    # A test run in the background of a shell ignores SIGINT, and so would its children.
    program = """if True:
        import atexit, json, pathlib, signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        atexit.register(lambda: print(json.dumps(client.stats().as_dict())))
        exec(pathlib.Path("sync_shop.py").read_text())
    """
    command = "runserver --noreload --skip-checks 127.0.0.1:0"
    with running(live, folder, "-c", program, *command.split()) as child:
        order(child.hear("server at ([^ ]+)/"), 3)
        law(child.stop(signal.SIGINT), 3)
    ordered(live, 3)


TESTED = """
import pytest, test_sync_shop, private_settings
with pytest.MonkeyPatch.context() as patch:
    test_sync_shop.test_an_order_is_tracked(patch)
print(sorted(private_settings.ASYNCANALYTICS))
"""


def test_the_page_s_test_passes(live: Any, example: Callable[..., Path]) -> None:
    """What the page says about tests works, and nothing is sent."""
    for name in ("sync_shop.py", "test_sync_shop.py", "private_settings.py"):
        folder = example("django", name).parent
    with running(live, folder, "-W", "error", "-c", TESTED) as child:
        said = child.process.communicate(timeout=20)[0]
        assert said.strip() == "['CONSENT', 'PRIVACY', 'TRUSTED_PROXIES', 'USER']"
    assert live.events == []
