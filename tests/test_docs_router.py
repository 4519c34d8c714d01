"""docs/router.md: its configurations and programs work for a reader, and it is whole."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jmespath")
pytest.importorskip("tree_sitter_toml")

from pydantic import BaseModel

from asyncanalytics import Track
from asyncanalytics.cli.app import run
from asyncanalytics.collector import router
from asyncanalytics.collector.pipelines import config as models
from asyncanalytics.collector.pipelines.loading import load
from asyncanalytics.collector.pipelines.metrics import _FAMILIES
from asyncanalytics.collector.pipelines.transforms import Transform
from asyncanalytics.destinations.webhook import signature
from asyncanalytics.stats import DropReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Live

PAGE = (Path(__file__).parents[1] / "docs" / "router.md").read_text(encoding="utf-8")


def toml(name: str, folder: Path, **changes: str) -> Path:
    """Write one of the page's configurations to its file."""
    (block,) = [each for each in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if name in each]
    for old, new in changes.items():
        block = block.replace(old, new)
    path = folder / name
    path.write_text(block, encoding="utf-8")
    return path


async def program(path: Path, live: Live) -> str:
    """Run a program of the page's, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", path),
        cwd=path.parent,
        env=live.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return said.decode()


async def test_try_it(live: Live, example: Callable[..., Path], tmp_path: Path) -> None:
    """The collector has what curl and a program send, and the file has the orders, renamed."""
    path = tmp_path / "pipelines.toml"
    text = toml("# pipelines.toml", tmp_path).read_text().replace("http://127.0.0.1:8010", live.url)
    path.write_text(text)
    script = example("router", "shop.py")
    (curl,) = re.findall(r"\ncurl (.*?)\n```", PAGE, re.DOTALL)
    words = shlex.split(curl.replace("\\\n", ""))
    user, header, url, body = words[1], words[3], words[4], words[6]
    assert url.startswith("http://127.0.0.1:8020/")
    made = router(path)
    async with made.serve(port=0) as base:
        script.write_text(script.read_text().replace("http://127.0.0.1:8020", base))
        async with httpx.AsyncClient(mounts={"all://": None}) as http:
            basic = base64.b64encode(user.encode()).decode()
            headers = {
                "authorization": f"Basic {basic}",
                header.split(": ")[0]: header.split(": ")[1],
            }
            place = url.replace("http://127.0.0.1:8020", base)
            assert (await http.post(place, headers=headers, content=body)).status_code == 200
        await program(script, live)
    assert made.stats().is_balanced
    assert [each["type"] for each in live.events] == ["track", "track", "identify"]
    assert live.events[0]["properties"] == {"total": 25.0}
    lines = (tmp_path / "orders.jsonl").read_text().splitlines()
    assert [json.loads(each)["properties"] for each in lines] == [{"revenue": 25.0}] * 2


def test_the_whole_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one, and each of its clients can be made."""
    for name in ("SHOP_KEY", "SEGMENT_KEY", "OWN_KEY"):
        monkeypatch.setenv(name, f"the {name}")
    monkeypatch.setenv("HASH_KEY", "sixteen bytes or more")
    monkeypatch.setenv("ALERTS_URL", "https://alerts.example.com/in")
    loaded = load(toml("# whole.toml", tmp_path))
    made = router(toml("# whole.toml", tmp_path))
    (pipeline,) = loaded.config.pipelines
    assert [each.name for each in pipeline.enabled] == ["warehouse", "alerts", "own", "archive"]
    assert [len(each.middleware()) for each in pipeline.enabled] == [7, 1, 0, 0]
    assert "the SHOP_KEY" not in repr(made)


async def test_a_function_of_ones_own(
    live: Live, example: Callable[..., Path], tmp_path: Path
) -> None:
    """It changes track calls, and drops those of the test user."""
    example("router", "rules.py")
    made = router(toml("# function.toml", tmp_path))
    async with made.serve(port=0) as url, httpx.AsyncClient(mounts={"all://": None}) as http:
        events: list[dict[str, Any]] = [
            {"type": "track", "event": "E", "userId": "u1"},
            {"type": "track", "event": "E", "userId": "test"},
            {"type": "identify", "userId": "u1"},
        ]
        body = {"batch": events, "writeKey": "any-key"}
        assert (await http.post(f"{url}/v1/batch", json=body)).status_code == 200
    lines = [json.loads(each) for each in (tmp_path / "orders.jsonl").read_text().splitlines()]
    assert [(each["type"], each.get("properties")) for each in lines] == [
        ("track", {"channel": "shop"}),
        ("identify", None),
    ]
    assert live.events == []


async def test_middleware_of_a_client(live: Live, example: Callable[..., Path]) -> None:
    """The same steps, in a program."""
    await program(example("router", "clean.py"), live)
    (got,) = live.events
    assert got["properties"] == {"revenue": 25.0}
    assert len(got["userId"]) == 64


def test_verifying_a_webhook(example: Callable[..., Path]) -> None:
    """What we sign it takes, and neither what is changed nor what is old."""
    names: dict[str, Any] = {}
    exec(example("router", "verify.py").read_text(), names)  # noqa: S102 - the page's own text
    secret, body = names["new_secret"](), Track(event="E", user_id="u").model_dump_json().encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))

    def headers(moment: str) -> dict[str, str]:
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": moment,
            "webhook-signature": signature(key, "msg_1", moment, body),
        }

    now = str(int(names["time"].time()))
    assert names["verify"](headers(now), body, secret)
    assert not names["verify"](headers(now), body + b" ", secret)
    assert not names["verify"](headers(now), body, names["new_secret"]())
    assert not names["verify"](headers(str(int(now) - 301)), body, secret)


async def test_in_python(live: Live, example: Callable[..., Path]) -> None:
    """It prints what it should."""
    assert await program(example("router", "routing.py"), live) == "['pipelines']\n1 True\n"


def test_what_a_check_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines are those of the page."""
    path = tmp_path / "pipelines.toml"
    head = '\n\n[server]\nprot = 80\n\n[[pipelines]]\nname = "shop"\nwrite_key = "k"\n'
    path.write_text(head + '\n[[pipelines.integrations]]\nname = "crm"\nto = "segmnt"\n')
    assert run(["route", str(path), "--check"]) == 3
    said = capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert said in PAGE


# ------------------------------------------------------------------------------------ it is whole


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """Yield the names that a table may have, and those of the tables in it."""
    for name, field in model.model_fields.items():
        yield name
        for inner in _models(field.annotation):
            yield from _fields(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def test_every_setting_is_in_the_page() -> None:
    """By its name, as code."""
    names = set(_fields(models.Config))
    assert {"max_wait", "hash_key", "key_in_event", "drain_timeout", "linger"} <= names
    code = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))
    assert names - code - {"folder"} == set()
    assert set(Transform.model_fields) <= code


def test_every_metric_and_reason_is_in_the_page() -> None:
    """What a dashboard may show is explained."""
    for name, _, _ in _FAMILIES:
        assert f"`{name}`" in PAGE
    elsewhere = {"disabled", "opted_out", "unserialisable"}  # of those who make calls
    for reason in set(get_args(DropReason)) - elsewhere:
        assert f"`{reason}`" in PAGE, reason
