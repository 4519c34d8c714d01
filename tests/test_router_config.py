"""Configurations: what they become, and what is said of those that cannot work, and where."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jmespath")
pytest.importorskip("tree_sitter_toml")

from asyncanalytics import Batching, Destination, MissingExtra, Queueing, Retrying
from asyncanalytics.collector import InvalidConfiguration, Problem, router
from asyncanalytics.collector.pipelines import building
from asyncanalytics.collector.pipelines.groups import given as given_in
from asyncanalytics.collector.pipelines.loading import load
from asyncanalytics.collector.pipelines.positions import Positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "a-key-that-opens-nothing"
GOOD = f"""
[server]
port = 0

[[pipelines]]
name = "shop"
write_key = "{KEY}"

[[pipelines.integrations]]
name = "crm"
to = "segment"
key = "{KEY}"
"""


def problems(text: str, tmp_path: Path) -> list[Problem]:
    """Load a text, and return what is wrong with it."""
    path = tmp_path / "pipelines.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidConfiguration) as caught:
        load(path)
    assert KEY not in str(caught.value)
    assert "sesame" not in str(caught.value)
    return list(caught.value.problems)


def said(text: str, tmp_path: Path) -> list[str]:
    """Load a text, and return what is wrong with it in words."""
    return [each.message for each in problems(text, tmp_path)]


# ------------------------------------------------------------------------------------- positions

NAMES = st.one_of(
    st.sampled_from(["a", "b", "name", "x-y", "1"]),
    st.text(max_size=4).filter(lambda text: text.isprintable()),
)
SCALARS = st.one_of(
    st.integers(-5, 5),
    st.booleans(),
    st.text(max_size=8).filter(lambda text: text.isprintable()),
    st.sampled_from(["two\nlines", 'quo"te', "# no comment", "[[no.header]]", "ünï = 1"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(
    NAMES,
    VALUES
    | st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=3)
    | st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=2), max_size=3),
    max_size=4,
)


def key(name: str) -> str:
    """Write a name, with quotes where it needs some."""
    is_bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if is_bare else json.dumps(name, ensure_ascii=False)


def value(of: Any, draw: Callable[..., str]) -> str:
    """Write a value within a line, or over several."""
    if isinstance(of, dict):
        return "{ " + ", ".join(f"{key(n)} = {value(v, draw)}" for n, v in of.items()) + " }"
    if isinstance(of, list):
        comma = draw(st.sampled_from([", ", ",\n  ", ", # ,]\n"]))
        return "[" + comma.join(value(each, draw) for each in of) + "]"
    if isinstance(of, str) and "\n" in of:
        return '"""' + of + '"""'
    return json.dumps(of, ensure_ascii=False)


def table(of: dict[str, Any], path: tuple[str, ...], draw: Any) -> Iterator[str]:
    """Write a table: its plain members, and then those with headers of their own."""
    apart = {n for n, v in of.items() if isinstance(v, dict) or _are_tables(v)}
    apart = {n for n in apart if draw(st.booleans())}
    for name in of.keys() - apart:
        if isinstance(of[name], dict) and of[name] and draw(st.booleans()):
            for inner, each in of[name].items():
                yield f"{key(name)} . {key(inner)} = {value(each, draw)}"
        else:
            yield f"  {key(name)}\t= {value(of[name], draw)} # = 1"
    for name in apart:
        header = ".".join(map(key, (*path, name)))
        for each in of[name] if isinstance(of[name], list) else [None]:
            yield f"[[{header}]]" if each is not None else f"[ {header} ] # [no]"
            yield from table(of[name] if each is None else each, (*path, name), draw)


def _are_tables(given_value: Any) -> bool:
    return (
        isinstance(given_value, list)
        and bool(given_value)
        and all(isinstance(each, dict) for each in given_value)
    )


def leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each member."""
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for name, inner in items:
        yield (*path, name)
        yield from leaves(inner, (*path, name))


@settings(max_examples=60, deadline=None)
@given(data=DOCUMENTS, drawn=st.data(), newline=st.sampled_from(["\n", "\r\n"]))
def test_each_member_has_its_position(data: dict[str, Any], drawn: Any, newline: str) -> None:
    """However it is written: at its key, or at its value in a list."""
    text = newline.join(table(data, (), drawn.draw)) + newline
    parsed = tomllib.loads(text)
    positions = Positions(text)
    lines = text.replace("\r\n", "\n").split("\n")
    for path in leaves(parsed):
        position = positions._found[path]
        there = lines[position.line - 1][position.column - 1 :]
        if isinstance(path[-1], str):
            names = [key(each) for each in path if isinstance(each, str)]
            # A dotted key, or a header, is the place of all the names in it.
            assert any(there.startswith(name) for name in names)
        else:
            assert there[:1] in '"-0123456789tf[{' or there.startswith(key(str(path[0])))
    assert positions.of(("nowhere", 1)) is None


def test_the_nearest_position() -> None:
    """What is not in the text has the position of what is around it."""
    positions = Positions("[[a]]\nb = 1\n[[a]]\n[a.c]\nd = { e = 1 }\n")
    assert positions.of(("a", 0, "x")) == (1, 3)
    assert positions.of(("a", 1)) == (3, 3)
    assert positions.of(("a", 1, "c", "x", "y")) == (4, 2)
    assert positions.of(("a", 1, "c", "d", "e", 0)) == (5, 7)


# ---------------------------------------------------------------------------------- what is wrong


def test_all_that_is_wrong_at_once(tmp_path: Path) -> None:
    """In the order of the file, each with its line, its column and its path."""
    text = f"""[server]
prot = 80
mode = "strikt"
[[pipelines]]
name = "shop"
write_key = "{KEY}"
intergrations = []
[[pipelines.integrations]]
name = "crm"
to = "segmnt"
key = "{KEY}"
[[pipelines.integrations]]
name = "crm"
to = "webhook"
url = "https://example.com"
[[pipelines]]
name = "shop"
integrations = [{{ name = "f", to = "file", path = "x", sampel = 1, sample = 2 }}]
"""
    found = [(each.line, each.column, each.path, each.message) for each in problems(text, tmp_path)]
    assert found == [
        (2, 1, "server.prot", "is not known here: did you mean port?"),
        (3, 1, "server.mode", "should be 'lenient', 'strict' or 'partial'"),
        (7, 1, "pipelines[0].intergrations", "is not known here: did you mean integrations?"),
        (
            *(10, 1, "pipelines[0].integrations[0].to"),
            "is not known here: did you mean segment?",
        ),
        (
            *(13, 1, "pipelines[0].integrations[1].name"),
            "is that of pipelines[0].integrations[0] already: each needs its own",
        ),
        (16, 3, "pipelines[1].write_key", 'is needed: write write_key = "${SHOP_KEY}"'),
        (17, 1, "pipelines[1].name", "is that of pipelines[0] already: each needs its own"),
        (
            *(18, 56, "pipelines[1].integrations[0].sampel"),
            "is not known here: did you mean sample?",
        ),
        (18, 68, "pipelines[1].integrations[0].sample", "should be less than or equal to 1"),
    ]
    assert str(problems(text, tmp_path)[0]) == (
        "line 2, column 1: server.prot: is not known here: did you mean port?"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('calls = ["trak"]', "should be 'identify', 'track', 'page', 'screen', 'group' or 'alias'"),
        ("events = []", "needs at least one, and is empty"),
        ('when = "a >"', "no JMESPath expression: Invalid jmespath expression"),
        ('when = "no(a)"', "JMESPath has no function named no"),
        ("consent = []", "needs at least one, and is empty"),
        ('consent_unknown = "maybe"', "should be 'drop' or 'pass'"),
        ("sample = -1", "should be greater than or equal to 0"),
        ('key = ""', 'is empty: write key = "${SEGMENT_KEY}"'),
        ('key = " sesame"', "white space around it"),
        ("queueing = { max_events = 0 }", "Queueing: max_events must be at least 1"),
        ("queueing = { max_event = 1 }", "did you mean max_events?"),
        ('queueing = { when_full = "weit" }', "should be 'wait', 'raise', 'drop_newest'"),
        ('queueing = { when_full = "raise", max_wait = 1 }', "goes with when_full='wait' only"),
        ('consent = [""]', "is empty"),
        ("retrying = { base = 100 }", "Retrying: base must be between 0 and cap seconds"),
        ('batching = { linger = "long" }', "should be a valid number"),
        ("endpoint = { gzip = true }", "describes a system that is given as a URL"),
        ("table = 1", "is not known here"),
        ("transform = [{}]", "a step is one of rename, keep, drop, set, hash, cast"),
        ('transform = [{ drop = ["a"], keep = ["b"] }]', "a step is one of"),
        ('transform = [{ dorp = ["a"] }]', "did you mean drop?"),
        ('transform = [{ drop = ["user_id"] }]', "write userId, as it is on the wire"),
        ('transform = [{ drop = ["type"] }]', "cannot be changed"),
        ('transform = [{ rename = { a = "" } }]', "a path is text such as"),
        ('transform = [{ hash = ["a"] }]', "hash and hash_key go together"),
        ('transform = [{ hash_key = "sesame" }]', "at least 16 bytes"),
        ('transform = [{ drop = ["a"], hash_key = "sixteen bytes, or more" }]', "go together"),
        ('transform = [{ hash = ["a"], hash_key = "sesame" }]', "at least 16 bytes"),
        (
            'transform = [{ cast = { a = "integer" } }]',
            "should be 'text', 'int', 'float' or 'bool'",
        ),
        ('transform = [{ template = { a = "{" } }]', "a template is text with paths in braces"),
        ('transform = [{ function = "shop" }]', "is named as module:function"),
        ('transform = [{ function = "no_such:f" }]', "there is no module no_such"),
        ('transform = [{ function = "json:no" }]', "has no function of that name"),
        ('transform = [{ function = "asyncio:sleep" }]', "the function is async"),
        ('transform = [{ set = { "properties.a" = nan } }]', "JSON has no such value"),
        ('transform = [{ set = { "properties.a" = [2026-11-01] } }]', "JSON has no such value"),
        ('consent_unknown = "pass"', "goes with consent"),
        ('key = "${NOT_THERE}"', "the environment has no variable NOT_THERE"),
    ],
)
def test_an_integration_that_cannot_work(more: str, message: str, tmp_path: Path) -> None:
    """It is said what is wrong, without a value that may be a key."""
    text = GOOD.removesuffix(f'key = "{KEY}"\n') if more.startswith("key") else GOOD
    (found,) = problems(text + more + "\n", tmp_path)
    assert message in found.message
    assert found.line == text.count("\n") + 1


@pytest.mark.parametrize(
    ("table_of", "message"),
    [
        ('to = "webhook"', "is needed"),
        ('to = "webhook"\nurl = "example.com/sesame"', "give a URL"),
        ('to = "webhook"\nurl = "http://example.com/sesame"', "in the clear"),
        ('to = "webhook"\nurl = "https://example.com"\nsecret = "sesame"', "whsec_"),
        ('to = "webhook"\nurl = "https://example.com"\nform = "array"', "'batch' or 'single'"),
        ('to = "file"', "is needed"),
        ('to = "file"\npath = 5', "should be text, the path of a file or folder"),
        ('to = "sqlite"\npath = "x"\ntable = "a b"', "letters, digits and underscores"),
        ('to = "http://example.com"\nkey = "k"', "in the clear"),
        ('to = "https://example.com?x"\nkey = "k"', "scheme, host and path only"),
        ('to = "https://example.com"', 'is needed: write key = "${SEGMENT_KEY}"'),
        ('to = "rudderstack@http://example.com"\nkey = "k"', "in the clear"),
        ('to = "segment"', 'is needed: write key = "${SEGMENT_KEY}"'),
        ('to = "file"\npath = ""', "give the path of a file"),
        ('to = "rudderstack"\nkey = "k"', "name your own host"),
        ('to = "dreamdata@eu"\nkey = "k"', "nothing to choose"),
        ('to = "console"\nkey = "k"', "is not known here"),
        ('too = "console"', "is needed"),
        ("to = 7", "should be text, in quotes"),
    ],
)
def test_a_place_that_cannot_work(table_of: str, message: str, tmp_path: Path) -> None:
    """Each kind of place has its own names and rules."""
    text = GOOD.partition("[[pipelines.integrations]]")[0]
    text += f'[[pipelines.integrations]]\nname = "place"\n{table_of}\n'
    assert message in said(text, tmp_path)[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[pipelines]\n", "no TOML: "),
        ("a = \n", "no TOML: "),
        ("", "is needed"),
        ("x = " + "[" * 3_000 + "]" * 3_000, "it is nested too deeply"),
        ("pipelines = []", "needs at least one, and is empty"),
        ("pipelines = 7", "should be a list: write [[pipelines]]"),
        ("pipelines = [7]", "should be a table"),
        (GOOD.replace("crm", "All"), "must be text other than 'All'"),
        (GOOD + "enabled = false", "at least one of its integrations must be enabled"),
        (GOOD.replace('name = "crm"\n', ""), "is needed"),
        (GOOD.replace("shop", ""), "is empty"),
        (GOOD.replace("port = 0", "port = 70000"), "should be less than or equal to 65535"),
        (GOOD.replace(f'key = "{KEY}"', 'key = "${A:-}"', 1), "is empty: write write_key ="),
        (GOOD.replace("[[pipelines]]", "[[pipelines]]\nspool = 1"), "or a table: { folder ="),
        (GOOD.replace("[[pipelines]]", '[[pipelines]]\nspool = ""'), "give the path of a file"),
        (GOOD.replace("[[pipelines]]", "[[pipelines]]\nspool = {}"), "is needed: write folder ="),
    ],
    ids=lambda text: str(text)[:60],
)
def test_a_file_that_cannot_work(text: str, message: str, tmp_path: Path) -> None:
    """From what is no TOML to what has nothing in it."""
    assert message in said(text, tmp_path)[0]


def test_two_pipelines_share_nothing(tmp_path: Path) -> None:
    """Neither a name, nor a key, nor a spool, whose events would go the other's way."""
    pipelines = GOOD.partition("[[pipelines]]")[2]
    first = GOOD.replace('name = "shop"', 'name = "shop"\nspool = "spool/a"')
    second = "[[pipelines]]" + pipelines.replace(
        '"shop"', '"blog"\nspool = { folder = "spool//a/" }'
    )
    found = problems(first + second, tmp_path)
    assert [each.path for each in found] == ["pipelines[1].spool", "pipelines[1].write_key"]
    assert {each.message for each in found} == {
        "is that of pipelines[0] already: each needs its own"
    }


@pytest.mark.parametrize(
    ("line", "table_of"),
    [
        ('secret = "sesame"', 'to = "webhook"\nurl = "https://example.com"'),
        ('url = "http://example.com/sesame"', 'to = "webhook"'),
        ('table = "a b"', 'to = "sqlite"\npath = "x"'),
        ('key = " sesame"', 'to = "segment"'),
        ('key = "sésame"', 'to = "https://a.example"\nendpoint = { auth = "bearer" }'),
        ('to = "http://a.example"', 'key = "k"'),
        ('to = "https://a.example/?a"', 'key = "k"'),
        ('to = "https://"', 'key = "k"'),
        ('to = "rudderstack@http://a.example"', 'key = "k"'),
        ("endpoint = { gzip = true }", 'to = "segment"\nkey = "k"'),
        ('endpoint.batch_path = "in"', 'to = "https://a.example"\nkey = "k"'),
        ('endpoint.headers = { a = "é" }', 'to = "https://a.example"\nkey = "k"'),
        ("endpoint.max_event_bytes = 0", 'to = "https://a.example"\nkey = "k"'),
        ('headers = { a = "é" }', 'to = "webhook"\nurl = "https://a.example"'),
        ('consent_unknown = "pass"', 'to = "console"'),
        ("queueing.max_events = 0", 'to = "console"\nqueueing.max_bytes = 100_000'),
        ("retrying.base = 100", 'to = "console"\nretrying.max_attempts = 1'),
        ("batching.linger = -1", 'to = "console"'),
    ],
    ids=lambda text: str(text).partition("=")[0].strip(),
)
def test_what_is_wrong_with_a_member_is_said_there(
    line: str, table_of: str, tmp_path: Path
) -> None:
    """Not at the header of its integration."""
    text = f'{GOOD}[[pipelines.integrations]]\nname = "place"\n{table_of}\n{line}\n'
    (found,) = problems(text, tmp_path)
    name = line.partition(" ")[0]
    assert found.path == f"pipelines[0].integrations[1].{name}"
    assert found.line == text.count("\n")


def test_a_spool_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    """By its name in the file's folder, and by its whole path."""
    pipelines = GOOD.partition("[[pipelines]]")[2]
    first = GOOD.replace('name = "shop"', 'name = "shop"\nspool = "a"')
    second = "[[pipelines]]" + pipelines.replace('"shop"', f'"blog"\nspool = "{tmp_path}/b/../a"')
    found = problems(first + second.replace(KEY, "another", 1), tmp_path)
    assert [each.path for each in found] == ["pipelines[1].spool"]


@pytest.mark.parametrize(
    ("of_pipeline", "of_integration", "at"),
    [
        ('queueing = { when_full = "drop_oldest" }', "queueing.max_wait = 1", "queueing.max_wait"),
        ("retrying = { cap = 7 }", "retrying.base = 8", "retrying.base"),
        ("retrying = { base = 8 }", "retrying.cap = 7", "retrying"),
    ],
    ids=["queueing", "retrying", "the other member"],
)
def test_tables_that_do_not_go_together(
    of_pipeline: str, of_integration: str, at: str, tmp_path: Path
) -> None:
    """Each is sound for itself: it is said at the integration's, before anything starts."""
    text = GOOD.replace('name = "shop"\n', f'name = "shop"\n{of_pipeline}\n')
    (found,) = problems(f"{text}{of_integration}\n", tmp_path)
    assert (found.path, found.line) == (f"pipelines[0].integrations[0].{at}", text.count("\n") + 1)
    assert (
        "goes with when_full='wait' only" in found.message or "between 0 and cap" in found.message
    )


def test_a_configuration_in_python_is_checked_as_a_file_is(tmp_path: Path) -> None:
    """What two pipelines share is found in models, too."""
    path = tmp_path / "pipelines.toml"
    path.write_text(GOOD)
    made = load(path).config
    with pytest.raises(InvalidConfiguration, match="each needs its own") as caught:
        router(made.model_copy(update={"pipelines": made.pipelines * 2}))
    assert [each.path for each in caught.value.problems] == [
        "pipelines[1].name",
        "pipelines[1].write_key",
    ]
    assert KEY not in str(caught.value)
    assert router(made).config is made


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """The reason is the system's."""
    (tmp_path / "latin").write_bytes(b'a = "\xff"')
    for name, message in (("missing", "No such file"), (".", "directory"), ("latin", "not UTF-8")):
        with pytest.raises(InvalidConfiguration, match=message):
            load(tmp_path / name)


def test_without_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which extra brings them; data in Python need none."""
    monkeypatch.setitem(sys.modules, "tree_sitter_toml", None)
    path = tmp_path / "pipelines.toml"
    path.write_text(GOOD)
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[router\]"):
        router(path)
    assert router(tomllib.loads(GOOD)).config.pipelines[0].name == "shop"


@settings(max_examples=60, deadline=None)
@given(
    data=st.recursive(
        SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=8
    ),
    where=st.sampled_from(["", "pipelines", "server", "integrations", "transform", "to", "key"]),
)
def test_any_data_is_a_configuration_or_has_named_problems(data: Any, where: str) -> None:
    """Nothing but that comes out, whatever goes in."""
    config: Any = tomllib.loads(GOOD)
    if where in {"", "pipelines", "server"}:
        config = {**config, where or "more": data}
    elif where == "integrations":
        config["pipelines"][0]["integrations"] = data
    else:
        config["pipelines"][0]["integrations"][0][where] = data
    try:
        load(config)
    except InvalidConfiguration as error:
        found = error.problems
    else:
        return
    assert found
    assert all(each.message for each in found)


# ----------------------------------------------------------------------------- what it becomes


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are filled into any text; one that is not set is a problem, once."""
    monkeypatch.setenv("SHOP_KEY", "open sesame")
    monkeypatch.setenv("EVENTS", "7")
    monkeypatch.delenv("NOBODY", raising=False)
    text = GOOD.replace(f'write_key = "{KEY}"', 'write_key = "${SHOP_KEY}"')
    text += 'queueing = { max_events = "${EVENTS}" }\n'
    text += 'transform = [{ set = { "properties.a" = "$${EVENTS} ${NOBODY:-else} ${EVENTS}" } }]\n'
    path = tmp_path / "pipelines.toml"
    path.write_text(text)
    pipeline = load(path).config.pipelines[0]
    assert pipeline.write_key.get_secret_value() == "open sesame"
    assert "sesame" not in repr(load(path).config)
    (integration,) = pipeline.enabled
    assert integration.transform[0].set == {"properties.a": "${EVENTS} else 7"}
    assert given_in(integration.queueing) == {"max_events": 7}
    missing = text.replace("${SHOP_KEY}", "x${NOBODY}y")
    assert said(missing, tmp_path) == [
        "the environment has no variable NOBODY: set it before the start"
    ]


def test_what_is_off_needs_no_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what such a variable would have filled in have to be right."""
    monkeypatch.delenv("NOBODY", raising=False)
    off = '[[pipelines.integrations]]\nname = "hook"\nto = "webhook"\nurl = "${NOBODY}"\n'
    path = tmp_path / "pipelines.toml"
    path.write_text(GOOD + off + "enabled = false\n")
    (pipeline,) = load(path).config.pipelines
    assert [each.name for each in pipeline.enabled] == ["crm"]
    assert said(GOOD + off, tmp_path) == [
        "the environment has no variable NOBODY: set it before the start"
    ]


def test_settings_of_an_integration_go_before_the_pipelines(tmp_path: Path) -> None:
    """What neither says is the client's default; nobody waits for ever."""
    text = GOOD.replace(
        'name = "shop"\n',
        'name = "shop"\nqueueing = { max_events = 7, max_wait = 1 }\n'
        "batching = { linger = 2 }\nretrying = { cap = 7 }\nsending = { max_in_flight = 3 }\n"
        'spool = { folder = "spool", max_bytes = 20_000_000 }\nshutdown_timeout = 3\n',
    )
    text += 'queueing = { max_bytes = 70_000, when_full = "drop_oldest" }\n'
    text += "retrying = { max_attempts = 2 }\n"
    text += '[[pipelines.integrations]]\nname = "file"\nto = "file"\npath = "x"\n'
    text += '[[pipelines.integrations]]\nname = "off"\nto = "console"\nenabled = false\n'
    path = tmp_path / "pipelines.toml"
    path.write_text(text)
    loaded = load(path)
    client = building.client(loaded.config.pipelines[0], loaded.config.server, loaded.folder)
    crm, file = client._flushers
    assert crm.queueing == Queueing(max_events=7, max_bytes=70_000, when_full="drop_oldest")
    assert file.queueing == Queueing(max_events=7, max_wait=1)
    assert crm.retrying == Retrying(cap=7, max_attempts=2)
    assert file.retrying == Retrying(cap=7)
    assert crm.batching == file.batching == Batching(linger=2)
    assert client._sending.max_in_flight == 3
    assert client._journal is not None
    assert client._journal.spooling.max_bytes == 20_000_000
    assert Path(client._journal.spooling.folder) == tmp_path / "spool"
    bare = load(tomllib.loads(GOOD))
    plain = building.client(bare.config.pipelines[0], bare.config.server, bare.folder)
    assert plain._flushers[0].retrying == Retrying(max_attempts=1_000_000)  # time is the bound
    assert plain._flushers[0].queueing.max_wait == bare.config.server.max_wait == 5.0


def test_systems_and_how_they_are_spoken_to(tmp_path: Path) -> None:
    """A name is one of ours; a URL may say how it wants to be spoken to."""
    text = GOOD.replace('"segment"', '"segment@eu"')
    text += """[[pipelines.integrations]]
name = "own"
to = "http://10.0.0.1/in"
[pipelines.integrations.endpoint]
insecure = true
auth = "none"
batch_path = "/events"
headers = { X-Team = "sesame" }
"""
    path = tmp_path / "pipelines.toml"
    path.write_text(text)
    crm, own = load(path).config.pipelines[0].enabled
    segment, custom = crm.destination(tmp_path), own.destination(tmp_path)
    assert isinstance(segment, Destination)
    assert isinstance(custom, Destination)
    assert (segment.name, segment.endpoint.name) == ("crm", "segment")
    assert "eu1" in segment.endpoint.base
    assert custom.endpoint.batch_url == "http://10.0.0.1/in/events"
    assert custom.endpoint.headers == {"x-team": "sesame"}
    assert "sesame" not in repr(own)


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are imported when the configuration is read; what breaks then is said."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_rules.py").write_text("class Rules:\n    clean = staticmethod(lambda c: c)\n")
    (tmp_path / "own_broken.py").write_text("raise RuntimeError('sesame')\n")
    text = GOOD + 'transform = [{ function = "own_rules:Rules.clean" }]\n'
    path = tmp_path / "pipelines.toml"
    path.write_text(text)
    (integration,) = load(path).config.pipelines[0].enabled
    assert len(integration.middleware()) == 1
    (message,) = said(text.replace("own_rules", "own_broken"), tmp_path)
    assert message == "own_broken cannot be imported: RuntimeError at own_broken.py:1"
    (tmp_path / "own_ending.py").write_text("raise SystemExit('sesame')\n")
    (message,) = said(text.replace("own_rules", "own_ending"), tmp_path)
    assert message == "own_ending cannot be imported: SystemExit at own_ending.py:1"
