"""A copy of a model in which some weights become others: blocks of rows, by several threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.checkpoint.recovery.model_copy import Rows, rows_of, write_model
from publisher.errors import OutOfDisk
from publisher.files.disk import free_bytes
from publisher.weights.folder import StoredWeights
from publisher.weights.writing import Entry

#: more rows than one block has, fewer, none at all, and a weight that has no rows
SHAPES = {"large": (5000, 200), "small": (3, 4), "empty": (0, 7), "scalar": ()}


def stored(folder: Path) -> StoredWeights:
    folder.mkdir()
    torch.manual_seed(0)
    save_file({name: torch.randn(shape) for name, shape in SHAPES.items()}, folder / "model.safetensors")
    return StoredWeights(folder)


def test_every_row_becomes_what_it_was_asked_to_whichever_thread_wrote_it(tmp_path: Path) -> None:
    base = stored(tmp_path / "base")

    def become(name: str, weight: Tensor) -> Rows:
        return (lambda block: weight[block] * 2) if name == "large" else rows_of(weight)

    done: list[int] = []
    (tmp_path / "copy").mkdir()
    write_model(base, tmp_path / "copy", become, lambda count, total: done.append(total - count))
    found = load_file(tmp_path / "copy/model.safetensors")
    for name in SHAPES:
        assert torch.equal(found[name], base.read(name) * (2 if name == "large" else 1)), name
    assert done[-1] == 0


def test_what_fails_in_a_thread_ends_all_and_torch_keeps_its_threads(tmp_path: Path) -> None:
    base, threads = stored(tmp_path / "base"), torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def fails(block: slice) -> Tensor:
            raise ArithmeticError(str(block.start))

        (tmp_path / "copy").mkdir()
        with pytest.raises(ArithmeticError):
            write_model(base, tmp_path / "copy", lambda name, weight: fails)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_whoever_stops_watching_stops_the_writing(tmp_path: Path) -> None:
    base = stored(tmp_path / "base")

    def interrupted(done: int, total: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "copy").mkdir()
    running = threading.active_count()
    with pytest.raises(KeyboardInterrupt) as caught:
        write_model(base, tmp_path / "copy", lambda name, weight: rows_of(weight), interrupted)
    # the traceback still holds every frame: nothing here waits for the garbage collector
    assert caught.tb is not None
    assert threading.active_count() == running


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    base = stored(tmp_path / "base")
    base.entries["large"] = Entry("large", "F32", (free_bytes(tmp_path),))
    (tmp_path / "copy").mkdir()
    with pytest.raises(OutOfDisk, match=r"The model takes .* free"):
        write_model(base, tmp_path / "copy", lambda name, weight: rows_of(weight))
    assert not [*(tmp_path / "copy").iterdir()]
