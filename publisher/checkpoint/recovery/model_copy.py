"""A copy of a model in which some weights become others, at about the speed of copying.

Blocks of rows are computed and written by as many threads as torch would compute with, each block by one: so it is
still in the processor's cache when it is written, and computing goes on while the system copies.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from publisher.checkpoint.recovery.folder import OTHER_DISK
from publisher.files.disk import refuse_no_room
from publisher.weights.folder import StoredWeights
from publisher.weights.writing import PlacedFile

#: rows of a weight, computed when they are asked for; any thread may ask
Rows = Callable[[slice], Tensor]
#: bytes of the model that are done, and of all
Progress = Callable[[int, int], None]

#: numbers of a block
_AT_ONCE = 2**19
#: blocks that wait for each thread
_WAITING = 2
#: Files of a model's folder that hold weights, in whatever format, and so do not come along; the card is another's.
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
_LEFT_BEHIND = ("README.md", ".gitattributes")


def silent(done: int, total: int) -> None:
    """For whoever shows no progress."""


def write_model(
    base: StoredWeights, output: Path, become: Callable[[str, Tensor], Rows], progress: Progress = silent
) -> None:
    """A copy of the model `base`, in files of the same names, with its config and tokenizer.

    `become` says of each weight, given as it is stored, what it becomes; it is asked in one thread, when the weight's
    turn comes. Raises OutOfDisk before anything is written if the copy does not fit where `output` is.
    """
    total, done = sum(entry.size for entry in base.entries.values()), 0
    refuse_no_room("The model", output.parent, total, OTHER_DISK)
    for path in sorted(base.folder.iterdir()):
        if path.is_file() and path.suffix not in _WEIGHT_SUFFIXES and path.name not in _LEFT_BEHIND:
            shutil.copyfile(path, output / path.name)
    with _one_thread_each() as threads:
        for file, weights in base.files.items():
            with (
                PlacedFile(output / file, [base.entries[weight] for weight in weights]) as placed,
                # whatever ends the loop, no thread writes on when the file is closed
                closing(_written(placed, base, become, threads)) as written,
            ):
                for weight in written:
                    done += base.entries[weight].size
                    progress(done, total)


def _written(
    file: PlacedFile, base: StoredWeights, become: Callable[[str, Tensor], Rows], threads: int
) -> Generator[str]:
    """The names of what is done."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[None]] = deque()
        try:
            for entry in file.entries:
                rows = become(entry.name, base.read(entry.name))
                for block in _blocks(entry.shape):
                    if len(waiting) == _WAITING * threads:
                        waiting.popleft().result()
                    waiting.append(pool.submit(_write, file, entry.name, rows, block))
                yield entry.name
            for last in waiting:
                last.result()
        finally:
            for left in waiting:
                left.cancel()


def rows_of(tensor: Tensor) -> Rows:
    """Of what is there already."""
    return lambda block: tensor[block] if tensor.ndim else tensor


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Which together are the whole tensor, also one of no dimensions."""
    count, width = (shape[0] if shape else 1), prod(shape[1:])
    step = max(1, _AT_ONCE // max(1, width))
    for first in range(0, count, step):
        yield slice(first, first + step)


def _write(file: PlacedFile, name: str, rows: Rows, block: slice) -> None:
    file.write_rows(name, block.start, rows(block))


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """How many threads torch computes with, each of which may now be one of ours: what one sets for itself holds for
    those that start later, too, until this ends."""
    threads = torch.get_num_threads()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
