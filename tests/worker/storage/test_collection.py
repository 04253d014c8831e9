"""What goes when there is no room, and what stays whatever happens: real processes, real kills, real hard links."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from publisher.errors import OutOfDisk
from publisher.files.disk import free_bytes
from publisher.recipe.stages import Stage
from worker.storage.collection import Limits, Removed, Upkeep, collect
from worker.storage.folder import RECORD
from worker.storage.locks import try_lock
from worker.storage.store import StageStore, stage_digest
from worker.storage.survey import ABANDONED_SECONDS, KEPT_SECONDS, survey, total_bytes

NOTHING = Limits(most=0)


def digest(name: str) -> str:
    return stage_digest(Stage.PRUNE, 1, {"name": name})


def make(root: Path, name: str, size: int = 1000, age: float = 0, user: str = "build") -> Path:
    """A finished stage of somebody who is gone."""
    folder, _ = StageStore(root, user).produce(
        Stage.PRUNE, digest(name), lambda partial: (partial / "weights").write_bytes(os.urandom(size))
    )
    grow_old(folder / RECORD, age)
    return folder


def grow_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def names(removed: list[Removed]) -> list[str]:
    return [each.item.name for each in removed]


def in_a_process(root: Path, body: str) -> subprocess.Popen[str]:
    """Runs `body` with `store` of job_1, says "ready" and waits to be killed."""
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom publisher.recipe.stages import Stage\n"
        "from worker.storage.store import StageStore\nfrom worker.storage.collection import Limits, collect\n"
        f"root = Path({str(root)!r})\nstore = StageStore(root, 'job_1')\n"
        "def ready():\n    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code + body], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


def test_the_longest_unused_goes_until_the_rest_fits(tmp_path: Path) -> None:
    old, older, new = (make(tmp_path, name, age=age) for name, age in [("old", 65), ("older", 90), ("new", 10)])
    StageStore(tmp_path).produce(Stage.PRUNE, digest("older"), lambda _: None)  # asked for again
    most = total_bytes(survey(tmp_path)) - 1
    removed = collect(tmp_path, Limits(most))
    assert names(removed) == [old.name]
    assert removed[0].why == "last used 1 min ago, and there is no room"
    assert older.exists()
    assert new.exists()


def test_without_a_limit_and_with_room_on_the_disk_finished_stages_stay(tmp_path: Path) -> None:
    folder = make(tmp_path, "one", age=1e7)
    assert collect(tmp_path, Limits()) == []
    assert collect(tmp_path, Limits(keep_free=free_bytes(tmp_path) * 2)) != [], "what is to stay free decides, too"
    assert not folder.exists()


def test_room_for_what_comes_is_made_before_it_comes(tmp_path: Path) -> None:
    make(tmp_path, "one", size=5000)
    held = total_bytes(survey(tmp_path))
    assert collect(tmp_path, Limits(held + 100), room=100) == []
    assert len(collect(tmp_path, Limits(held + 100), room=101)) == 1


def test_two_names_of_one_file_count_once_and_free_it_with_the_last(tmp_path: Path) -> None:
    first = make(tmp_path, "first", size=100_000, age=90)

    def link(partial: Path) -> None:
        os.link(first / "weights", partial / "weights")

    second, _ = StageStore(tmp_path).produce(Stage.PRUNE, digest("second"), link)
    assert 100_000 < total_bytes(survey(tmp_path)) < 110_000
    freed = {each.item.name: each.freed for each in collect(tmp_path, NOTHING, dry_run=True)}
    assert freed[first.name] < 10_000
    assert freed[second.name] > 100_000


def test_a_file_that_somebody_else_has_too_frees_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "stages", "one", size=100_000)
    os.link(folder / "weights", tmp_path / "mine")
    (removed,) = collect(tmp_path / "stages", NOTHING)
    assert removed.freed < 10_000


def test_what_a_living_process_asked_for_stays_until_it_is_gone(tmp_path: Path) -> None:
    folder = make(tmp_path, "one", age=1e6)
    process = in_a_process(tmp_path, f"store.produce(Stage.PRUNE, {digest('one')!r}, lambda _: None)\nready()\n")
    assert collect(tmp_path, NOTHING) == []
    killed(process)
    assert names(collect(tmp_path, NOTHING)) == [folder.name]


def test_a_killed_job_that_is_not_over_keeps_its_stages(tmp_path: Path) -> None:
    """It waits for its next try: what it made, and the state of what it was making, are there then."""
    begun = digest("begun")
    process = in_a_process(
        tmp_path,
        f"store.produce(Stage.PRUNE, {digest('one')!r}, lambda partial: (partial / 'weights').touch())\n"
        "def trains(partial):\n    (partial / 'state').mkdir()\n"
        "    (partial / 'state' / 'step').write_bytes(bytes(10))\n    ready()\n"
        f"store.produce(Stage.ALIGN, {begun!r}, trains)\n",
    )
    killed(process)
    state = tmp_path / ".partial" / f"align-{begun[:32]}" / "state" / "step"
    assert collect(tmp_path, NOTHING, still_wanted=lambda users: users & {"job_1"}) == []
    assert state.exists()
    assert len(collect(tmp_path, NOTHING, still_wanted=lambda users: frozenset())) == 2
    assert not state.exists()


def test_what_a_process_that_died_left_half_written_goes_at_once(tmp_path: Path) -> None:
    half = "def half(partial):\n    (partial / 'half').write_bytes(bytes(1000))\n    ready()\n"
    process = in_a_process(tmp_path, half + f"store.produce(Stage.PRUNE, {digest('half')!r}, half)\n")
    assert collect(tmp_path, Limits()) == [], "it is being written"
    killed(process)
    (removed,) = collect(tmp_path, Limits())
    assert removed.item.remains == "its process is gone"
    assert list((tmp_path / ".partial").iterdir()) == []


def test_a_training_state_waits_a_day_for_somebody_to_go_on_with_it(tmp_path: Path) -> None:
    state = tmp_path / ".partial" / f"align-{digest('x')[:32]}" / "state" / "step"
    state.parent.mkdir(parents=True)
    state.touch()
    assert collect(tmp_path, Limits()) == []
    grow_old(state, ABANDONED_SECONDS + 60)
    assert len(collect(tmp_path, Limits())) == 1


def test_a_stage_that_is_not_whole_goes(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    (folder / "weights").unlink()
    (removed,) = collect(tmp_path, Limits())
    assert removed.item.remains == "it is not whole any more"


def test_what_may_be_made_anew_is_collected_but_not_under_whoever_just_asked_for_it(tmp_path: Path) -> None:
    kept = StageStore(tmp_path).kept / "tokens"
    kept.mkdir(parents=True)
    for name, age in [("new", 0.0), ("old", KEPT_SECONDS + 60), ("old.safetensors.77-1.partial", KEPT_SECONDS + 60)]:
        (kept / name).write_bytes(bytes(100))
        grow_old(kept / name, age)
    assert names(collect(tmp_path, Limits())) == ["old.safetensors.77-1.partial"]
    assert names(collect(tmp_path, NOTHING)) == ["old"]
    assert [path.name for path in kept.iterdir()] == ["new"]


def test_a_dry_run_says_the_same_and_removes_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    said = collect(tmp_path, NOTHING, dry_run=True)
    assert folder.exists()
    assert said == collect(tmp_path, NOTHING)
    assert not folder.exists()


def test_a_collection_that_is_killed_leaves_no_half_stage_that_counts(tmp_path: Path) -> None:
    """Killed when of two files one is deleted."""
    folder, _ = StageStore(tmp_path).produce(
        Stage.PRUNE, digest("one"), lambda partial: [(partial / name).touch() for name in "ab"]
    )
    deleting = (
        "import worker.storage.collection as collection\n"
        "def dies(path):\n    (path / 'a').unlink()\n    ready()\n"
        "collection._delete = dies\n"
        "collect(root, Limits(most=0))\n"
    )
    killed(in_a_process(tmp_path, deleting))
    assert not folder.exists()
    assert StageStore(tmp_path).find(Stage.PRUNE, digest("one")) is None
    assert [each.item.what for each in collect(tmp_path, Limits())] == ["trash"]
    assert list((tmp_path / ".trash").iterdir()) == []


def test_locks_of_what_is_gone_go_and_nobody_holds_one_without_a_name(tmp_path: Path) -> None:
    folder = make(tmp_path, "one")
    lock = tmp_path / ".locks" / f"{folder.name}.lock"
    collect(tmp_path, NOTHING)
    grow_old(lock, 2 * 24 * 3600)
    waiting = threading.Event()

    def contends() -> None:
        held = try_lock(lock, wait=True)
        assert held is not None
        waiting.set()
        assert try_lock(lock) is None, "the file that has the name now is the one that is locked"
        held.release()

    first = try_lock(lock)
    assert first is not None
    thread = threading.Thread(target=contends)
    thread.start()
    lock.unlink()  # as a collection does while it holds it
    first.release()
    thread.join(30)
    assert waiting.is_set()
    grow_old(lock, 2 * 24 * 3600)
    collect(tmp_path, Limits())
    assert not lock.exists()


def test_too_little_room_is_said_with_what_is_needed_and_there(tmp_path: Path) -> None:
    store = StageStore(tmp_path, upkeep=Upkeep(Limits(keep_free=1), collects=True))
    needed = free_bytes(tmp_path) + 2**40
    with pytest.raises(OutOfDisk, match=r"stage align needs about [\d.]+ TiB under .*, [\d.]+ [GT]iB are free") as full:
        store.make_room(Stage.ALIGN, digest("x"), needed, print)
    assert full.value.way_out


def test_room_is_made_before_a_stage_and_said(tmp_path: Path) -> None:
    old = make(tmp_path, "old", size=5000)
    said: list[str] = []
    StageStore(tmp_path, upkeep=Upkeep(Limits(most=5000), collects=True)).make_room(
        Stage.ALIGN, digest("x"), 3000, said.append
    )
    assert not old.exists()
    assert "longest unused first" in said[0]


def test_a_store_of_one_s_own_is_left_alone(tmp_path: Path) -> None:
    old = make(tmp_path, "old", size=5000)
    StageStore(tmp_path).make_room(Stage.ALIGN, digest("x"), 3000, print)
    assert old.exists()


def test_two_collectors_at_once_remove_each_thing_once(tmp_path: Path) -> None:
    for number in range(8):
        make(tmp_path, str(number))
    removed: list[Removed] = []
    threads = [threading.Thread(target=lambda: removed.extend(collect(tmp_path, NOTHING))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stages = [each.item.name for each in removed if each.item.is_a_stage]  # one may see the other's trash, too
    assert len(stages) == len(set(stages)) == 8
