"""Reloads: what is new is taken up, what is the same goes on, and no event is lost on the way."""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jmespath")
pytest.importorskip("tree_sitter_toml")

from asyncanalytics import Batching, LifecycleError, Retrying
from asyncanalytics.collector import InvalidConfiguration
from asyncanalytics.collector.pipelines import running
from asyncanalytics.spool import left_in

if TYPE_CHECKING:
    from switchyard import Receiver, Switchyard

KEY = "a-key-that-opens-nothing"
QUICK = {"base": 0.01, "cap": 0.05, "max_attempts": 100_000}


def events(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Make some events."""
    return [
        {"type": "track", "event": "E", "userId": "u", "messageId": f"m{n}", "properties": {"n": n}}
        for n in range(first, first + count)
    ]


async def test_what_has_changed_is_used_and_what_has_not_goes_on(yard: Switchyard) -> None:
    """A pipeline that is the same keeps its client; figures go on for all."""
    one, two = [await yard.receiver() for _ in range(2)]
    config = yard.config({"place": one})
    other = yard.config({"place": two}, name="blog", write_key="other-key")
    config["pipelines"] += other["pipelines"]
    path = yard.file(config)
    async with yard.serving(path) as (made, url), yard.http(url) as http:
        before = dict(made._lines)
        await http.post("/v1/batch", json={"batch": events(1)})
        await http.post("/v1/batch", json={"batch": [{**events(1)[0], "writeKey": "other-key"}]})
        config["pipelines"][1]["integrations"][0]["transform"] = [{"set": {"properties.x": 1}}]
        yard.file(config)
        await made.reload()
        assert made._lines["shop"] is before["shop"]
        assert made._lines["blog"] is not before["blog"]
        await http.post("/v1/batch", json={"batch": events(1, 1)})
        await http.post("/v1/batch", json={"batch": [{**events(1, 1)[0], "writeKey": "other-key"}]})
    assert [each["properties"] for each in one.events] == [{"n": 0}, {"n": 1}]
    assert [each["properties"] for each in two.events] == [{"n": 0}, {"n": 1, "x": 1}]
    stats = made.stats()
    assert {name: each.events for name, each in stats.pipelines.items()} == {"shop": 2, "blog": 2}
    assert stats.pipelines["blog"].integrations["place"].delivered == 2
    assert stats.reloads == {"taken": 1, "refused": 0}


async def test_a_key_is_changed_without_another_client(yard: Switchyard) -> None:
    """The old one is unknown from then on, and the pipeline goes on as it is."""
    place = await yard.receiver()
    config = yard.config({"place": place})
    async with yard.serving(config) as (made, url), yard.http(url) as http:
        before = made._lines["shop"]
        config["pipelines"][0]["write_key"] = "another-key"
        await made.reload(config)
        assert made._lines["shop"] is before
        assert (await http.post("/v1/batch", json={"batch": events(1)})).status_code == 401
        async with yard.http(url, "another-key") as renewed:
            assert (await renewed.post("/v1/batch", json={"batch": events(1)})).status_code == 200
    assert place.ids == {"m0": 1}


async def test_pipelines_come_and_go(yard: Switchyard) -> None:
    """One that is removed drains and takes nothing more; its figures stay."""
    one, two = [await yard.receiver() for _ in range(2)]
    first = yard.config({"place": one})
    second = yard.config({"place": two}, name="blog", write_key="other-key")
    async with yard.serving(first) as (made, url), yard.http(url) as http:
        await http.post("/v1/batch", json={"batch": events(3)})
        await made.reload(second)
        assert (await http.post("/v1/batch", json={"batch": events(1)})).status_code == 401
        async with yard.sender(url, "other-key") as sender:
            await sender.track("E", user_id="u")
        await yard.until(lambda: not made._retiring)
        assert made.stats().pipelines["shop"].integrations["place"].delivered == 3
        await made.reload(first)
        await http.post("/v1/batch", json={"batch": events(1, 3)})
    assert made.stats().pipelines["shop"].integrations["place"].delivered == 4
    assert len(one.ids) == 4
    assert len(two.ids) == 1


async def test_server_settings_are_taken_up(yard: Switchyard) -> None:
    """How bad events are answered, who is let in, and how long a request waits."""
    place = await yard.receiver()
    config = yard.config({"place": place})
    async with yard.serving(config) as (made, url), yard.http(url) as http:
        body = {"batch": [{"type": "track"}]}
        assert (await http.post("/v1/batch", json=body)).status_code == 200
        before = dict(made._lines)
        config["server"] |= {"mode": "strict", "allowed_hosts": ["example.com"], "max_body": 10}
        config["server"]["max_wait"] = 0.5
        await made.reload(config)
        assert (await http.post("/v1/batch", json=body)).status_code == 413
        config["server"]["max_body"] = 10_000
        await made.reload(config)
        assert (await http.post("/v1/batch", json=body)).status_code == 400
        named = await http.get("/ready", headers={"host": "example.com"})
        assert named.status_code == 200
        assert made._lines == before
        (flusher,) = made._lines["shop"].client._flushers
        assert flusher.queueing.max_wait == 0.5


@pytest.mark.parametrize("fault", ["no TOML", "misspelt", "no spool", "missing"])
async def test_a_configuration_that_cannot_work_changes_nothing(
    yard: Switchyard, fault: str
) -> None:
    """The old one goes on, with its clients; the error says what is wrong."""
    place = await yard.receiver()
    config = yard.config({"place": place})
    path = yard.file(config)
    async with yard.serving(path) as (made, url), yard.http(url) as http:
        before = dict(made._lines)
        if fault == "no TOML":
            path.write_text("[[pipelines]\n")
        elif fault == "missing":
            path.unlink()
        elif fault == "no spool":
            (yard.folder / "file").write_text("no folder")
            config["pipelines"][0]["spool"] = "file/spool"
            yard.file(config)
        else:
            config["pipelines"][0]["integrations"][0]["keyy"] = "x"
            yard.file(config)
        with pytest.raises(ValueError, match=r"TOML|did you mean key|spool|cannot be read"):
            await made.reload()
        assert made._lines == before
        assert (await http.post("/v1/batch", json={"batch": events(1)})).status_code == 200
        assert made.stats().reloads == {"taken": 0, "refused": 1}
        assert not made._retiring
    assert place.ids == {"m0": 1}


async def test_a_router_that_is_not_served_has_nothing_to_reload(yard: Switchyard) -> None:
    """It says so."""
    place = await yard.receiver()
    made = yard.router(yard.config({"place": place}))
    with pytest.raises(LifecycleError):
        await made.reload()
    with pytest.raises(InvalidConfiguration):
        yard.router({"pipelines": []})


async def test_who_waits_for_room_goes_on_with_the_new_pipeline(yard: Switchyard) -> None:
    """A request under way is neither lost nor answered before it is taken."""
    down, up = [await yard.receiver() for _ in range(2)]
    down.collector.misbehave(503)
    queueing = {"max_events": 3}
    there = {"to": down, "queueing": queueing, "retrying": QUICK}
    config = yard.config({"place": there}, {"max_wait": 30})
    config["pipelines"][0] |= {"drain_timeout": 0}
    async with yard.serving(config) as (made, url), yard.http(url) as http:
        await http.post("/v1/batch", json={"batch": events(3)})
        waiting = [
            asyncio.create_task(http.post("/v1/batch", json={"batch": events(2, n)}))
            for n in (3, 5, 7)
        ]
        buffer = made._lines["shop"].client._flushers[0].buffer
        await yard.until(lambda: len(buffer._waiters) == 3)
        config["pipelines"][0]["integrations"][0]["to"] = up.url
        await made.reload(config)
        answers = await asyncio.gather(*waiting)
        assert [each.status_code for each in answers] == [200] * 3
        assert made._retiring
        down.collector.behave()
        await yard.until(lambda: not made._retiring)  # it has no spool: it drains till it is empty
    assert down.ids == {f"m{n}": 1 for n in range(3)}
    assert set(up.ids) == {f"m{n}" for n in range(3, 9)}
    figures = made.stats().pipelines["shop"]
    assert figures.events == 9
    assert figures.integrations["place"].dropped == {}


async def test_who_waits_at_a_pipeline_that_goes_is_told(yard: Switchyard) -> None:
    """Its key is unknown then, and nothing of the request was taken."""
    down = await yard.receiver()
    down.collector.misbehave(503)
    config = yard.config({"place": {"to": down, "queueing": {"max_events": 1}}}, {"max_wait": 30})
    other = yard.config({"place": down}, name="blog", write_key="other-key")
    config["pipelines"][0] |= {"drain_timeout": 0, "shutdown_timeout": 0.1}
    async with yard.serving(config) as (made, url), yard.http(url) as http:
        await http.post("/v1/batch", json={"batch": events(1)})
        waiting = asyncio.create_task(http.post("/v1/batch", json={"batch": events(1, 1)}))
        buffer = made._lines["shop"].client._flushers[0].buffer
        await yard.until(lambda: buffer._waiters)
        await made.reload(other)
        assert (await waiting).status_code == 401
    assert made.stats().pipelines["shop"].integrations["place"].accepted == 1


async def test_a_spool_is_handed_over(yard: Switchyard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the old pipeline could not deliver the new one does, with the same ids."""
    monkeypatch.setattr("asyncanalytics.journal._LOOK_AROUND", 0.1)
    down, up = [await yard.receiver() for _ in range(2)]
    down.collector.misbehave(503)
    config = yard.config({"place": down}, spool="spool", drain_timeout=0.2)
    path = yard.file(config)
    async with yard.serving(path) as (made, url), yard.http(url) as http:
        answer = await http.post("/v1/batch", json={"batch": events(30)})
        assert answer.status_code == 200
        config["pipelines"][0]["integrations"][0]["to"] = up.url
        yard.file(config)
        await made.reload()
        answer = await http.post("/v1/batch", json={"batch": events(5, 30)})
        assert answer.status_code == 200
        await yard.until(lambda: len(up.ids) == 35)
        figures = made.stats().pipelines["shop"].integrations["place"]
        assert (figures.accepted, figures.left, figures.recovered) == (35, 30, 30)
    assert up.ids == {f"m{n}": 1 for n in range(35)}
    assert left_in(yard.folder / "spool") == []


async def test_what_a_removed_integration_leaves_stays_in_the_folder(
    yard: Switchyard, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    """Until one of that name is there again: it is nobody else's, and it is told of."""
    monkeypatch.setattr("asyncanalytics.journal._LOOK_AROUND", 0.1)
    up, down = [await yard.receiver() for _ in range(2)]
    down.collector.misbehave(503)
    config = yard.config({"up": up, "down": down}, spool="spool", drain_timeout=0.1)
    path = yard.file(config)
    async with yard.serving(path) as (made, url), yard.http(url) as http:
        await http.post("/v1/batch", json={"batch": events(4)})
        await yard.until(lambda: len(up.ids) == 4)
        gone = config["pipelines"][0]["integrations"].pop()
        yard.file(config)
        await made.reload()
        await yard.until(lambda: not made._retiring)
        assert made.stats().pipelines["shop"].integrations["down"].left == 4
        await yard.until(lambda: made.stats().pipelines["shop"].stranded)
        metrics = (await http.get("/metrics")).text
        assert 'asyncanalytics_stranded{pipeline="shop",integration="down"} 4' in metrics
    async with yard.serving(path) as (made, url):
        await yard.until(lambda: made.stats().pipelines["shop"].stranded == {"down": 4})
        told = [each.getMessage() for each in logged.records if "wait for" in each.getMessage()]
        said = (
            "pipeline 'shop': 4 events in its spool wait for 'down', which is none of its "
            "integrations: give one that name, or purge them (asyncanalytics spool)"
        )
        assert told == [said, said]
        down.collector.behave()
        config["pipelines"][0]["integrations"].append(gone)
        yard.file(config)
        await made.reload()
        await yard.until(lambda: len(down.ids) == 4)
        await yard.until(lambda: not made.stats().pipelines["shop"].stranded)
    assert up.ids == down.ids == {f"m{n}": 1 for n in range(4)}


async def test_a_slow_drain_does_not_hold_up_the_end(yard: Switchyard) -> None:
    """A pipeline that was replaced has the router's own time then, however long it was to drain."""
    down, up = [await yard.receiver() for _ in range(2)]
    down.collector.misbehave(503)
    config = yard.config({"place": down}, drain_timeout=600, shutdown_timeout=0.2)
    async with yard.serving(config) as (made, url), yard.http(url) as http:
        await http.post("/v1/batch", json={"batch": events(2)})
        config["pipelines"][0]["integrations"][0]["to"] = up.url
        await made.reload(config)
        assert len(made._retiring) == 1
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    assert made.stats().pipelines["shop"].integrations["place"].dropped == {"closed": 2}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
async def test_a_reload_that_hangs_does_not_hold_up_the_end(yard: Switchyard) -> None:
    """Nor does it hold up what is served meanwhile."""
    place = await yard.receiver()
    path = yard.file(yard.config({"place": place}))
    async with asyncio.timeout(5):
        async with yard.serving(path) as (made, url), yard.http(url) as http:
            path.unlink()
            os.mkfifo(path)  # reading it hangs until somebody writes
            reload = asyncio.create_task(made.reload())
            await asyncio.sleep(0)
            assert (await http.post("/v1/batch", json={"batch": events(1)})).status_code == 200
        reload.cancel()
        await asyncio.gather(reload, return_exceptions=True)
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    assert made.stats().reloads == {"taken": 0, "refused": 1}


def _rounds(yard: Switchyard, places: list[Receiver], **pipeline: Any) -> list[dict[str, Any]]:
    """Make configurations that differ in their transformation, and in one integration."""
    found = []
    for n in range(3):
        step = [{"set": {"properties.round": n}}]
        there = {
            f"p{number}": {"to": place, "transform": step, "retrying": QUICK}
            for number, place in enumerate(places)
        }
        found.append(yard.config(there, **pipeline))
    return found


@pytest.mark.long
@pytest.mark.parametrize("spool", [None, "spool"], ids=["in memory", "with a spool"])
async def test_reloads_under_traffic_lose_nothing(yard: Switchyard, spool: str | None) -> None:
    """Over and over, while many send and the places fail now and then; no counter goes down."""
    places = [await yard.receiver() for _ in range(2)]
    for place in places:
        place.collector.misbehave(503, share=0.2)
        place.collector.misbehave(None, delay=0.01, share=0.5)
    more = {} if spool is None else {"spool": spool}
    configs = _rounds(yard, places, **more)
    path = yard.file(configs[0])
    done = asyncio.Event()
    seen: list[dict[str, int]] = []
    async with yard.serving(path) as (made, url):

        async def send(number: int) -> list[str]:
            settings: Any = {
                "retrying": Retrying(base=0.01, cap=0.05),
                "batching": Batching(linger=0.01),
            }
            async with yard.sender(url, **settings) as sender:
                sent = []
                while not done.is_set():
                    sent.append(await sender.track("E", user_id=f"u{number}", properties={}))
                    await asyncio.sleep(0.001)
            assert sender.stats().delivered == len(sent)
            return [each.message_id for each in sent]

        senders = [asyncio.create_task(send(n)) for n in range(4)]
        for config in itertools.islice(itertools.cycle(configs), 1, 11):
            yard.file(config)
            await made.reload()
            stats = made.stats()
            assert stats.is_balanced
            figures = stats.pipelines["shop"].integrations
            seen.append(
                {
                    f"{name}.{what}": getattr(each, what)
                    for name, each in figures.items()
                    for what in ("accepted", "delivered", "recovered", "left", "requests")
                }
            )
            await asyncio.sleep(0.05)
        done.set()
        sent = {each for ids in await asyncio.gather(*senders) for each in ids}
        for place in places:
            place.collector.behave()
        await yard.until(lambda: all(sent <= place.ids.keys() for place in places), seconds=30)
    assert sent
    assert made.stats().reloads == {"taken": 10, "refused": 0}
    for place in places:
        assert set(place.ids) == sent
        assert len({each["properties"]["round"] for each in place.events}) == 3
    for before, after in itertools.pairwise(seen):
        assert all(after[name] >= number for name, number in before.items())


@pytest.mark.parametrize("spool", [None, "spool"], ids=["in memory", "with a spool"])
async def test_integrations_come_go_and_change_under_traffic(
    yard: Switchyard, spool: str | None
) -> None:
    """Each request goes by one configuration, whole; nothing is lost, and nothing is doubled."""
    stays, gone, added, changed = [await yard.receiver() for _ in range(4)]
    more = {} if spool is None else {"spool": spool}
    step = [[{"set": {"properties.round": n}}] for n in range(2)]
    old = {"stays": stays, "gone": gone, "changed": {"to": changed, "transform": step[0]}}
    new = {"stays": stays, "added": added, "changed": {"to": changed, "transform": step[1]}}
    configs = [yard.config(places, **more) for places in (old, new)]
    numbers = itertools.count()
    answered: list[int] = []
    done = asyncio.Event()
    async with yard.serving(yard.file(configs[0])) as (made, url), yard.http(url) as http:

        async def send() -> None:
            while not done.is_set():
                number = next(numbers)
                answer = await http.post("/v1/batch", json={"batch": events(5, 5 * number)})
                assert answer.status_code == 200
                answered.append(number)

        senders = [asyncio.create_task(send()) for _ in range(4)]
        for n in range(1, 6):
            await yard.until(lambda n=n: len(answered) > 20 * n)
            yard.file(configs[n % 2])
            await made.reload()
        done.set()
        await asyncio.gather(*senders)
        await yard.until(lambda: not made._retiring)
        await made._lines["shop"].client.flush()
        stats = made.stats().pipelines["shop"]
    assert stays.ids == changed.ids == gone.ids + added.ids
    assert set(stays.ids.values()) == {1}
    assert len(stays.ids) == stats.events == 5 * len(answered)
    assert gone.ids
    rounds = {each["messageId"]: each["properties"]["round"] for each in changed.events}
    assert {each for each, n in rounds.items() if n == 0} == set(gone.ids)
    assert {each for each, n in rounds.items() if n == 1} == set(added.ids)
    wanted = {"stays": stays, "gone": gone, "added": added, "changed": changed}
    assert {name: each.delivered for name, each in stats.integrations.items()} == {
        name: len(each.ids) for name, each in wanted.items()
    }


async def test_a_reload_that_fails_does_not_end_those_after_it(
    logged: pytest.LogCaptureFixture,
) -> None:
    """Whatever it raised is said, without what its text may quote."""
    outcomes: list[Exception | None] = [RuntimeError("sesame"), None]
    asked, done = asyncio.Event(), asyncio.Event()

    class Reloadable:
        serve = None

        async def reload(self) -> None:
            outcome = outcomes.pop(0)
            done.set()
            if outcome is not None:
                raise outcome

    task = asyncio.create_task(running._reload_when(asked, Reloadable()))  # type: ignore[arg-type]
    for _ in range(2):
        asked.set()
        await done.wait()
        done.clear()
    await asyncio.sleep(0)
    task.cancel()
    said = [each.getMessage() for each in logged.records]
    assert said[0].startswith("the reload has failed, and the old configuration goes on: Runtime")
    assert "sesame" not in said[0]
    assert said[1:] == ["the new configuration is in use"]
