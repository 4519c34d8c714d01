"""What a place binds its calls to, and what a call's own fields do against it."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anyio.from_thread
import anyio.to_thread
import pytest

from asyncanalytics import ConfigurationError, Queueing, Track, bound_context
from asyncanalytics.binding import Binding, current, wire_context
from asyncanalytics.calls import Library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Lab

looptime = pytest.mark.looptime
BROWSER = {"ip": "192.0.2.7", "page": {"url": "https://shop.example/a", "path": "/a"}}


def arrived(server: Any) -> list[dict[str, Any]]:
    """Return the calls a server took, in order."""
    return [event for request in server.requests for event in request.events]


@looptime
@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ({}, {"userId": "bound", "anonymousId": "browser"}),
        ({"user_id": "own"}, {"userId": "own"}),
        ({"anonymous_id": "own"}, {"anonymousId": "own"}),
        ({"user_id": "own", "anonymous_id": "mine"}, {"userId": "own", "anonymousId": "mine"}),
    ],
)
async def test_a_call_that_names_an_id_gets_no_other(
    lab: Lab, given: dict[str, str], ids: dict[str, str]
) -> None:
    """An id at the call means that user: the place's ids are for calls that name none."""
    server = lab.script()
    async with lab.client(server) as client:
        with bound_context(user_id="bound", anonymous_id="browser"):
            await client.track("Added File", **given)
    (event,) = arrived(server)
    assert {name: event[name] for name in ("userId", "anonymousId") if name in event} == ids


@looptime
@pytest.mark.parametrize("way", ["awaited", "nowait", "model", "middleware", "waiting"])
async def test_every_way_of_a_call_is_bound(lab: Lab, way: str) -> None:
    """Awaited or not, as a model, through middleware, after waiting for room."""
    server = lab.script()
    settings: dict[str, Any] = {}
    if way == "middleware":
        settings["middleware"] = [lambda call: call]
    if way == "waiting":
        settings["queueing"] = Queueing(max_events=1)
    async with lab.client(server, **settings) as client:
        if way == "waiting":
            await client.track("Added File", user_id="before")
        with bound_context(user_id="bound", context=BROWSER):
            if way == "nowait":
                client.track_nowait("Added File")
            elif way == "model":
                await client.send(Track(event="Added File", user_id="own"))
            else:
                await client.track("Added File")
    event = arrived(server)[-1]
    assert event["userId"] == ("own" if way == "model" else "bound")
    assert event["context"]["ip"] == "192.0.2.7"
    assert event["context"]["library"]["name"] == "asyncanalytics"


@looptime
async def test_the_calls_own_context_wins(lab: Lab) -> None:
    """It wins field by field, at any depth and in either spelling; nothing passed is changed."""
    server = lab.script()
    own = {"page": {"title": "A"}, "user_agent": "own", "locale": "en"}
    kept = {"page": dict(own["page"]), "user_agent": "own", "locale": "en"}  # type: ignore[call-overload]
    around = {**BROWSER, "userAgent": "bound", "consent": {"category_preferences": {"a": True}}}
    async with lab.client(server) as client:
        with bound_context(user_id="u1", context=around):
            await client.track("Added File", context=own)
            await client.track("Added File")
    first, second = (event["context"] for event in arrived(server))
    assert first["page"] == {"url": "https://shop.example/a", "path": "/a", "title": "A"}
    assert (first["userAgent"], first["locale"], first["ip"]) == ("own", "en", "192.0.2.7")
    assert second["userAgent"] == "bound"
    assert second["consent"] == {"categoryPreferences": {"a": True}}
    assert own == kept


@looptime
async def test_a_wrong_context_at_a_bound_call_is_named(lab: Lab) -> None:
    """The call's own check says what is wrong with what the call gave."""
    async with lab.client(lab.script()) as client:
        with bound_context(user_id="u1", context=BROWSER):
            for wrong in ({"page": 7}, 7):
                with pytest.raises(ValueError, match=r"track: context"):
                    await client.track("Added File", context=wrong)
        await lab.track(client)


@looptime
async def test_blocks_nest(lab: Lab) -> None:
    """The inner block wins where both say something, and ends where it ends."""
    server = lab.script()
    async with lab.client(server) as client:
        with bound_context(user_id="outer", anonymous_id="browser", context=BROWSER):
            with bound_context(user_id="inner", context={"locale": "de"}):
                await client.track("Added File")
            await client.track("Added File")
        assert current.get() is None
    inner, outer = arrived(server)
    assert (inner["userId"], inner["anonymousId"]) == ("inner", "browser")
    assert (inner["context"]["locale"], inner["context"]["ip"]) == ("de", "192.0.2.7")
    assert outer["userId"] == "outer"
    assert "locale" not in outer["context"]


@looptime
async def test_a_bound_client(lab: Lab) -> None:
    """It fills in what it is bound to, and `with_user` keeps the browser's anonymous id."""
    server = lab.script()
    async with lab.client(server) as client:
        bound = client.bind(anonymous_id="browser", context=BROWSER)
        await bound.track("Added File")
        known = bound.with_user("u1")
        await known.identify(traits={"plan": "pro"})
        known.bind(context={"locale": "de"}).track_nowait("Added File")
        await client.track("Added File", user_id="plain")
    first, second, third, plain = arrived(server)
    assert (first["anonymousId"], "userId" in first) == ("browser", False)
    assert (second["userId"], second["anonymousId"]) == ("u1", "browser")
    assert (third["context"]["locale"], third["context"]["ip"]) == ("de", "192.0.2.7")
    assert "ip" not in plain["context"]
    assert "browser" not in repr(known)


@looptime
async def test_a_bound_client_in_a_later_block(lab: Lab) -> None:
    """A block that is entered after it was made fills in what the bound client does not say."""
    server = lab.script()
    async with lab.client(server) as client:
        with bound_context(anonymous_id="browser", context=BROWSER):
            nobody, somebody = client.bind(), client.bind(user_id="u1")
            await nobody.track("Added File")
            with bound_context(user_id="u2", context={"locale": "de"}):
                await nobody.track("Added File")
                await somebody.track("Added File")
        await nobody.track("Added File")
    ids = [(each.get("userId"), each["anonymousId"]) for each in arrived(server)]
    assert ids == [(None, "browser"), ("u2", "browser"), ("u1", "browser"), (None, "browser")]
    assert [each["context"].get("locale") for each in arrived(server)] == [None, "de", "de", None]
    assert all(each["context"]["ip"] == "192.0.2.7" for each in arrived(server))


@looptime
async def test_a_client_bound_anew_in_another_place(lab: Lab) -> None:
    """What is bound anew somewhere has that place's context, and its opting out."""
    server = lab.script()
    async with lab.client(server) as client:
        shop = client.bind(context={"app": {"name": "shop"}})
        with bound_context(anonymous_id="browser", context=BROWSER):
            await shop.with_user("u1").track("Added File")
        token = current.set(Binding(anonymous_id="browser", opted_out=True))
        receipt = await shop.with_user("u1").track("Added File")
        current.reset(token)
    assert receipt.outcome is not None
    assert receipt.outcome.reason == "opted_out"
    (event,) = arrived(server)
    assert (event["userId"], event["anonymousId"]) == ("u1", "browser")
    assert (event["context"]["ip"], event["context"]["app"]) == ("192.0.2.7", {"name": "shop"})


def test_a_block_in_a_generator_that_is_closed_elsewhere() -> None:
    """It ends quietly, as frameworks close generators in other threads and tasks."""

    def block() -> Iterator[None]:
        with bound_context(user_id="u1"):
            yield

    generator = block()
    Context().run(next, generator)
    generator.close()
    assert current.get() is None


@looptime
async def test_calls_that_are_opted_out_let_the_loop_run(lab: Lab) -> None:
    """However many there are in a row, others have their turns."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with lab.client(lab.script()) as client:
        beside = asyncio.create_task(other())
        token = current.set(Binding(user_id="u1", opted_out=True))
        for _ in range(4_000):
            await client.track("Added File")
        current.reset(token)
        beside.cancel()
    assert turns >= 5


@looptime
async def test_a_bound_client_waits_for_room(lab: Lab) -> None:
    """Backpressure is felt at a bound client too, and what waited is bound."""
    server = lab.script()
    async with lab.client(server, queueing=Queueing(max_events=1)) as client:
        bound = client.bind(user_id="u1")
        for _ in range(5):
            await bound.track("Added File")
    assert [event["userId"] for event in arrived(server)] == ["u1"] * 5


@looptime
async def test_tasks_do_not_see_each_other(lab: Lab) -> None:
    """Each task has the binding of the place that it was made in."""
    server = lab.script()
    async with lab.client(server) as client:

        async def job(number: int) -> None:
            with bound_context(user_id=f"u{number}"):
                await asyncio.sleep(0.01 * (number % 3))
                await client.track("Added File", properties={"n": number})

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(job(number))
    assert len(arrived(server)) == 20
    for event in arrived(server):
        assert event["userId"] == f"u{event['properties']['n']}"


async def test_a_thread_of_anyio_is_bound(lab: Lab) -> None:
    """A call from a worker thread has the binding of the task that started the thread."""
    server = lab.script()
    async with lab.client(server) as client:
        with bound_context(user_id="u1", context=BROWSER):
            await anyio.to_thread.run_sync(
                lambda: anyio.from_thread.run(lambda: client.track("Added File"))
            )
    (event,) = arrived(server)
    assert (event["userId"], event["context"]["ip"]) == ("u1", "192.0.2.7")


@looptime
async def test_opting_out_is_counted(lab: Lab) -> None:
    """A place that has opted out gets its calls dropped under that name; bad ones still raise."""
    server = lab.script()
    async with lab.client(server, queueing=Queueing(max_events=1)) as client:
        await lab.track(client)
        token = current.set(Binding(user_id="u1", opted_out=True))
        receipt = await client.track("Added File")
        client.track_nowait("Added File")
        with pytest.raises(ValueError, match="event"):
            await client.track("")
        current.reset(token)
        assert receipt.outcome is not None
        assert receipt.outcome.reason == "opted_out"
        stats = client.stats()
    assert stats.destinations["custom"].dropped_by == {"opted_out": 2}
    assert len(arrived(server)) == 1


@pytest.mark.parametrize(
    ("context", "where"),
    [
        ({"traits": 5}, "traits"),
        ({"groupId": True}, "group_id"),
        ({"consent": {"category_preferences": 4}}, "consent.category_preferences"),
        ({"new": 1, "app": {"new": 1, "name": []}}, "app.name"),
    ],
    ids=["object", "id", "within", "beside unknown ones"],
)
def test_a_wrong_field_of_a_binding_is_named(context: dict[str, Any], where: str) -> None:
    """As a Python caller writes it, and nothing is said of its value."""
    with pytest.raises(ConfigurationError) as caught, bound_context(context=context):
        pass
    assert str(caught.value) == f"context has a wrong value at {where}"


def test_a_binding_is_a_copy() -> None:
    """Changing a model that was bound changes no call, wherever in the context it was."""
    library = Library(name="a")
    found = wire_context({"library": library, "mine": library, "app": {"mine": library}})
    library.name = "b"
    a = {"name": "a"}
    assert found == {"library": a, "mine": a, "app": {"mine": a}}


@looptime
async def test_a_binding_that_makes_no_sense(lab: Lab) -> None:
    """A wrong context is said where it is bound, with the field and without the value."""
    async with lab.client(lab.script()) as client:
        with pytest.raises(ConfigurationError, match=r"at page$"):
            client.bind(context={"page": "secret"})
        with pytest.raises(ConfigurationError, match="mapping"), bound_context(context=7):  # type: ignore[arg-type]
            pass
