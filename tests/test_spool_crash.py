"""The spool when its process is killed at any moment, and when several take over what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics.spool import Entry, Sealing, Spool, Verdict, left_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")

COMMON = """
import json, os, random, select, signal, sys, time
from pathlib import Path
from asyncanalytics.spool import Entry, Spool, left_in, visit

folder = Path(sys.argv[1])

def body(name):
    return name.encode() * 30

def entry(name):
    return Entry("crm" if name.endswith("7") else "warehouse", "track", name, body(name), 1.5)

def contents():
    found = {}
    for path in left_in(folder):
        with visit(path) as file:
            assert not file.is_owned and not file.damaged, path
            here = set()
            for destination in file.by_destination:
                last = 0
                while rows := file.read(destination, last):
                    last = rows[-1].seq
                    for row in rows:
                        assert row.message_id not in here, "twice in a file"
                        assert row.body == body(row.message_id)
                        assert row.destination == entry(row.message_id).destination
                        here.add(row.message_id)
            figures = file.by_destination.values()
            assert sum(each.events for each in figures) == len(here), "figures"
            assert sum(each.bytes for each in figures) == sum(len(body(n)) for n in here)
        for name in here:
            found[name] = found.get(name, 0) + 1
    return found
"""

KILLED = (
    COMMON
    + """
rounds, at_once, seed = map(int, sys.argv[2:])
chance = random.Random(seed)

def work(mark, out):
    def say(kind, names):
        os.write(out, (kind + " " + " ".join(names) + "\\n").encode())

    chance = random.Random(mark)
    spool = Spool(folder)
    while spool.adopt().result():
        pass
    known = {}
    for destination in ("crm", "warehouse"):
        rows = spool.read(destination, max_events=40).result()
        known.update((row.message_id, row.seq) for row in rows)
    count = 0
    while True:
        names = [f"{mark}-{count + each}" for each in range(chance.choice((1, 3, 20)))]
        count += len(names)
        say("sent", names)
        future = spool.append(map(entry, names))
        gone = chance.sample(sorted(known), len(known) // 2) if chance.random() < 0.5 else []
        say("ended", gone)
        removal = spool.remove([known.pop(name) for name in gone])
        known.update(zip(names, future.result()))
        say("kept", names)
        removal.result()
        say("gone", gone)

said = {"sent": set(), "kept": set(), "ended": set(), "gone": set()}
for each in range(rounds):
    children = []
    for twin in range(at_once):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                work(f"{each}.{twin}", writing)
            finally:
                os._exit(3)
        os.close(writing)
        children.append((child, reading))
    for child, reading in children:
        if chance.random() < 0.8:  # the others are killed while they start
            select.select([reading], [], [], 10)
        time.sleep(chance.uniform(0.001, 0.06))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        with os.fdopen(reading) as lines:
            for line in lines.read().split("\\n")[:-1]:
                kind, *names = line.split()
                said[kind].update(names)
    if each % 5 == 4 or each == rounds - 1:
        found = contents()
        assert said["kept"] - said["ended"] <= set(found), "lost"
        assert set(found) <= said["sent"], "unknown"
        if at_once == 1:
            assert not said["gone"] & set(found), "removed and there"
            assert set(found.values()) <= {1}
print(json.dumps({"kept": len(said["kept"]), "gone": len(said["gone"]), "left": len(found)}))
"""
)

ADOPTED = (
    COMMON
    + """
files, racing = map(int, sys.argv[2:])
left = {f"{number}-{each}" for number in range(files) for each in range(1_200 - 300 * number)}
ready, done = os.pipe()
leave, hold = os.pipe()
for number in range(files):
    if not os.fork():
        os.close(hold)
        mine = sorted(name for name in left if name.startswith(f"{number}-"))
        Spool(folder).append(map(entry, mine)).result()
        os.write(done, b".")
        os.read(leave, 1)  # until all have a file, so that they do not take over each other's
        os._exit(0)
for _ in range(files):
    assert os.read(ready, 1)
os.close(hold)
for _ in range(files):
    assert os.wait()[1] == 0
assert len(left_in(folder)) == files
start, go = os.pipe()
end, stop = os.pipe()
children = []
for _ in range(racing):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        os.close(stop)
        os.read(start, 1)  # ends for all at once
        spool = Spool(folder)
        while spool.adopt().result():
            pass
        names = []
        for destination in spool.stats().by_destination:
            names += [row.message_id for row in spool.read(destination, max_events=9_999).result()]
        with open(writing, "w") as out:
            json.dump(names, out)
        os.read(end, 1)  # until then what is taken stays owned
        spool.close()
        os._exit(0)
    os.close(writing)
    children.append((child, reading))
os.close(start)
os.close(go)
taken = []
for child, reading in children:
    with open(reading) as out:
        taken += json.load(out)
os.close(stop)
for child, _ in children:
    assert os.waitpid(child, 0)[1] == 0
assert sorted(taken) == sorted(left), (len(taken), len(left))
assert contents() == dict.fromkeys(left, 1)
print(json.dumps({"files": len(left_in(folder)), "taken": len(taken)}))
"""
)


def run(script: str, *arguments: object) -> dict[str, Any]:
    """Run a script in a process of its own, which has no threads and may fork."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    done = subprocess.run(  # noqa: S603 - the command is written above
        command, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """Killed at 30 random moments: all that was kept is there, and nothing else or twice."""
    result = run(KILLED, tmp_path / "spool", 30, 1, 11)
    assert result["kept"] > 10
    assert result["gone"] > 0


def test_adoption_survives_a_kill(tmp_path: Path) -> None:
    """Two at a time take over, work and are killed: nothing is lost between their files."""
    result = run(KILLED, tmp_path / "spool", 15, 2, 12)
    assert result["kept"] > 10


def test_each_file_is_taken_over_by_exactly_one(tmp_path: Path) -> None:
    """Six processes race for three files of dead ones, and have every row once between them."""
    result = run(ADOPTED, tmp_path / "spool", 3, 6)
    assert result["taken"] == 1_200 + 900 + 600


def test_a_file_is_left_to_those_it_is_for(tmp_path: Path) -> None:
    """Of what dead processes left, a spool takes only the calls for its own destinations."""
    folder = tmp_path / "spool"
    with Spool(folder) as other:
        rows = [Entry(name, "track", "m1", b"{}", 1.0) for name in ("crm", "warehouse")]
        other.append(rows).result()
    with Spool(folder, destinations={"crm", "lake"}) as spool:
        assert spool.stats().events == 0
        assert [spool.adopt().result() for _ in range(2)] == [1, 0]
        assert list(spool.stats().by_destination) == ["crm"]
        assert len(left_in(folder)) == 2
        with Spool(folder, destinations={"warehouse"}) as third:
            assert list(third.stats().by_destination) == ["warehouse"]
            assert len(left_in(folder)) == 2


def test_everything_in_a_file_is_taken_over(tmp_path: Path) -> None:
    """Dead letters and damaged rows too, with all that was known of them; then the file goes."""
    folder = tmp_path / "spool"

    def opened(body: bytes) -> bytes:
        if body == b"7":
            raise ValueError("wrong key")
        return body

    verdict = Verdict("rejected", 400, "rejected", "no such plan", 9.5)
    with Spool(folder, sealing=Sealing(seal=bytes, open=bytes)) as spool:
        with Spool(folder, sealing=Sealing(seal=bytes, open=opened)) as other:
            rows = [Entry("crm", "page", f"m{each}", b"%d" % each, 2.5) for each in range(9)]
            numbers = other.append(rows).result()
            other.bury(numbers[:3], verdict).result()
            assert len(other.read("crm").result()) == 5
            assert other.stats().damaged == 1
        assert [spool.adopt().result() for _ in range(4)] == [5, 3, 1, 0]
        assert len(left_in(folder)) == 1
        assert spool.stats().by_destination["crm"].events == 5
        letters = spool.dead().result()
        assert [letter.body for letter in letters] == [b"0", b"1", b"2"]
        assert {letter.verdict for letter in letters} == {verdict}
        assert spool.stats().by_destination["crm"].dead_bytes == 3 * len("\0000\0no such plan")
        assert spool.stats().damaged == 1
        assert spool.mend().result() == 1
        assert {row.message_id for row in spool.read("crm").result()} == {
            f"m{each}" for each in range(3, 9)
        }
        assert {row[2:] for row in spool.read("crm").result()} == {
            ("page", row.message_id, row.body, 2.5) for row in rows[3:]
        }


def test_a_file_that_is_half_taken_over_is_let_go(tmp_path: Path) -> None:
    """Closing in the middle leaves the rest to others, and nothing is there twice."""
    folder = tmp_path / "spool"
    with Spool(folder) as other, Spool(folder) as spool:
        rows = [Entry("crm", "track", f"m{each}", b"{}", 1.0) for each in range(1_200)]
        other.append(rows).result()
        other.close()
        assert spool.adopt().result() == 500
    with Spool(folder) as last:
        while last.adopt().result():
            pass
        assert last.stats().events == 1_200
        assert len(left_in(folder)) == 1
