"""Stages on disk: whole or not there, after errors, real kills and real full disks."""

from __future__ import annotations

import errno
import hashlib
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.errors import JobCancelled, OutOfDisk
from publisher.recipe.stages import Stage
from worker.storage.store import StageStore, stage_digest

DIGEST = stage_digest(Stage.PRUNE, 1, {"what": "a test"})


def visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("*") if not path.name.startswith("."))


def test_a_finished_stage_is_found_with_every_file_recorded(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    with store.write(Stage.PRUNE, DIGEST, inputs={Stage.FETCH: "abc"}) as partial:
        (partial / "model").mkdir()
        (partial / "model" / "weights").write_bytes(b"heads and neurons")
    folder = store.find(Stage.PRUNE, DIGEST)
    assert folder == tmp_path / f"prune-{DIGEST[:32]}"
    record = json.loads((folder / "stage.json").read_text())
    assert record["inputs"] == {"fetch": "abc"}
    sha256 = hashlib.sha256(b"heads and neurons").hexdigest()
    assert record["files"] == {"model/weights": {"size": 17, "sha256": sha256}}


def test_a_stage_that_fails_leaves_nothing_visible_and_starts_empty(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def breaks(partial: Path) -> None:
        (partial / "half").touch()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        store.produce(Stage.PRUNE, DIGEST, breaks)
    assert visible(tmp_path) == []
    assert store.find(Stage.PRUNE, DIGEST) is None
    with store.write(Stage.PRUNE, DIGEST) as partial:
        assert list(partial.iterdir()) == []


def test_state_outlives_a_failure_and_is_not_part_of_the_result(tmp_path: Path) -> None:
    store = StageStore(tmp_path)

    def breaks(partial: Path) -> None:
        (partial / "state").mkdir()
        (partial / "state" / "step").write_text("7")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        store.produce(Stage.ALIGN, DIGEST, breaks)
    with store.write(Stage.ALIGN, DIGEST) as partial:
        assert (partial / "state" / "step").read_text() == "7"
    assert [path.name for path in store.folder(Stage.ALIGN, DIGEST).iterdir()] == ["stage.json"]


def test_a_kill_in_the_middle_leaves_nothing_and_the_next_run_is_whole(tmp_path: Path) -> None:
    writer = (
        "import sys\n"
        "from pathlib import Path\n"
        "from publisher.recipe.stages import Stage\n"
        "from worker.storage.store import StageStore\n"
        f"with StageStore(Path({str(tmp_path)!r})).write(Stage.PRUNE, {DIGEST!r}) as partial:\n"
        "    (partial / 'half').write_bytes(b'x' * 1000)\n"
        "    print('half', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    store = StageStore(tmp_path)
    assert visible(tmp_path) == []
    assert store.find(Stage.PRUNE, DIGEST) is None
    with store.write(Stage.PRUNE, DIGEST) as partial:
        (partial / "whole").touch()
    assert sorted(path.name for path in store.folder(Stage.PRUNE, DIGEST).iterdir()) == ["stage.json", "whole"]


def test_a_finished_stage_is_not_made_again(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    calls: list[Path] = []
    first = store.produce(Stage.PRUNE, DIGEST, calls.append)
    second = store.produce(Stage.PRUNE, DIGEST, calls.append)
    assert first == (store.folder(Stage.PRUNE, DIGEST), False)
    assert second == (store.folder(Stage.PRUNE, DIGEST), True)
    assert len(calls) == 1


def test_two_writers_of_one_digest_make_it_once(tmp_path: Path) -> None:
    inside, go_on = threading.Event(), threading.Event()
    calls: list[Path] = []

    def slowly(partial: Path) -> None:
        calls.append(partial)
        inside.set()
        assert go_on.wait(60)

    def second() -> None:
        StageStore(tmp_path).produce(Stage.PRUNE, DIGEST, slowly, check=go_on.set)

    threads = [threading.Thread(target=StageStore(tmp_path).produce, args=(Stage.PRUNE, DIGEST, slowly))]
    threads[0].start()
    assert inside.wait(60)
    threads.append(threading.Thread(target=second))
    threads[1].start()  # its check, called while it waits for the lock, lets the first one finish
    for thread in threads:
        thread.join(60)
    assert len(calls) == 1


def test_waiting_for_another_writer_can_be_cancelled(tmp_path: Path) -> None:
    def cancelled() -> None:
        raise JobCancelled("stop")

    def waits(partial: Path) -> None:
        with pytest.raises(JobCancelled):
            StageStore(tmp_path).produce(Stage.PRUNE, DIGEST, lambda _: None, check=cancelled)

    StageStore(tmp_path).produce(Stage.PRUNE, DIGEST, waits)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")], ids=["lost", "cut"])
def test_a_stage_whose_file_is_not_whole_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    def make(partial: Path) -> None:
        (partial / "weights").write_bytes(b"x" * 100)

    store = StageStore(tmp_path)
    for _ in range(2):
        folder, reused = store.produce(Stage.PRUNE, DIGEST, make)
        assert not reused
        assert (folder / "weights").stat().st_size == 100
        damage(folder / "weights")


def test_a_link_to_a_file_that_changed_is_made_again(tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    source.write_bytes(b"first")
    store = StageStore(tmp_path / "stages")
    with store.write(Stage.FETCH, DIGEST) as partial:
        (partial / "model.safetensors").symlink_to(source)
    assert store.find(Stage.FETCH, DIGEST) is not None
    source.write_bytes(b"other weights")
    assert store.find(Stage.FETCH, DIGEST) is None


def test_a_full_disk_is_said_in_words(tmp_path: Path) -> None:
    """/dev/full answers every write as a full disk does."""

    def fills_the_disk(partial: Path) -> None:
        (partial / "weights").write_bytes(b"x")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(OutOfDisk, match=r"stage prune: no space left while writing to .* \(.+ free\)"):
        StageStore(tmp_path).produce(Stage.PRUNE, DIGEST, fills_the_disk)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_other_disk_errors_stay_what_they_are(tmp_path: Path, number: int) -> None:
    with pytest.raises(OSError, match="other"), StageStore(tmp_path).write(Stage.PRUNE, DIGEST):
        raise OSError(number, "other")


def test_a_file_beyond_the_allowed_size_is_out_of_disk_for_every_writer(tmp_path: Path) -> None:
    """The kernel's own refusal (RLIMIT_FSIZE), through Python, safetensors and torch; in a process of its own."""
    writer = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from safetensors.torch import save_file\n"
        "from publisher.errors import OutOfDisk\n"
        "from publisher.recipe.stages import Stage\n"
        "from worker.storage.store import StageStore\n"
        "tensor = torch.zeros(100_000)\n"
        "writers = [lambda p: p.write_bytes(bytes(400_000)), lambda p: save_file({'a': tensor}, p),\n"
        "           lambda p: torch.save(tensor, p)]\n"
        "for index, write in enumerate(writers):\n"
        "    try:\n"
        f"        with StageStore(Path({str(tmp_path)!r})).write(Stage.ALIGN, str(index) * 64) as partial:\n"
        "            write(partial / 'weights')\n"
        "    except OutOfDisk as fault:\n"
        "        print(fault)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", writer],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("stage align:") == 3, done.stdout + done.stderr
    assert visible(tmp_path) == []


def test_digests_follow_stage_version_and_inputs() -> None:
    digests = {
        stage_digest(Stage.PRUNE, 1, {"a": 1, "b": 2}),
        stage_digest(Stage.PRUNE, 1, {"b": 2, "a": 1}),
        stage_digest(Stage.PRUNE, 2, {"a": 1, "b": 2}),
        stage_digest(Stage.ALIGN, 1, {"a": 1, "b": 2}),
        stage_digest(Stage.PRUNE, 1, {"a": 1, "b": 3}),
    }
    assert len(digests) == 4
