"""Which files are text: not what systems and editors leave beside it, and nothing that is left out unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from publisher.corpus.files import text_files
from publisher.corpus.source import CorpusSource
from publisher.errors import RequestFault

LINE = '{"text": "a"}\n'


def write(path: Path, content: str = LINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_files_come_in_one_order_with_their_folder_s_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.txt", "a/b/c.jsonl", "A.TXT"):
        write(tmp_path / name)
    assert [file.name for file in text_files(tmp_path)] == ["A.TXT", "a/b/c.jsonl", "a/z.txt", "b.jsonl"]


@pytest.mark.parametrize(
    "left_over",
    [
        "._real.jsonl",
        ".ipynb_checkpoints/real-checkpoint.jsonl",
        ".DS_Store",
        "real.jsonl~",
        "~real.jsonl~",
        "#real.jsonl#",
        ".#real.jsonl",
        ".real.jsonl.swp",
        "_SUCCESS",
        "_temporary/0/part-0.jsonl",
        "_delta_log/0.checkpoint.parquet",
        "__MACOSX/._real.jsonl",
        "__MACOSX/real.jsonl",
        ".git/objects/a.txt",
        ".cache/huggingface/download/real.jsonl",
        "real.jsonl.part",
    ],
)
def test_what_systems_and_editors_leave_is_not_read(left_over: str, tmp_path: Path) -> None:
    write(tmp_path / "real.jsonl")
    write(tmp_path / left_over, "\0\1 no text")
    assert [file.name for file in text_files(tmp_path)] == ["real.jsonl"]


def test_a_file_or_folder_that_is_named_is_read_hidden_or_not(tmp_path: Path) -> None:
    hidden = write(tmp_path / ".cache" / ".hidden.jsonl")
    write(tmp_path / ".cache" / "seen.jsonl")
    assert [file.name for file in text_files(hidden)] == [".hidden.jsonl"]
    assert [file.name for file in text_files(hidden.parent)] == ["seen.jsonl"]


@pytest.mark.parametrize("whole_path", [False, True])
def test_a_pipe_does_not_hang(whole_path: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(RequestFault, match=r"a.jsonl is a pipe, socket or device"):
        text_files(tmp_path / "a.jsonl" if whole_path else tmp_path)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/dev/zero", "is a pipe, socket or device"),
        ("/nowhere/b.jsonl", "is a link to /nowhere/b.jsonl, which does not exist"),
    ],
)
def test_a_link_to_no_file_is_not_left_out_unseen(target: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "real.jsonl")
    (tmp_path / "a.jsonl").symlink_to(target)
    with pytest.raises(RequestFault, match=f"a.jsonl {message}"):
        text_files(tmp_path)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "a.jsonl")
    with pytest.raises(RequestFault, match=r"a\.jsonl"):
        text_files(tmp_path)


def test_a_folder_without_text_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "train.csv")
    write(tmp_path / "notes.doc")
    with pytest.raises(RequestFault, match=r"holds no .*Found: notes.doc, train.csv. Convert it to Parquet"):
        text_files(tmp_path)
    with pytest.raises(RequestFault, match=r"train.csv is none of .jsonl.*Convert it"):
        text_files(tmp_path / "train.csv")


_AS_NOBODY = """
import os, sys
from pathlib import Path
from publisher.corpus.source import CorpusSource
from publisher.errors import RequestFault
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    print(list(CorpusSource(name="c", path=Path(sys.argv[1])).documents()))
except RequestFault as fault:
    print("refused:", fault)
"""


@pytest.mark.parametrize("closed", ["a.jsonl", "sub", "."])
def test_what_may_not_be_read_is_not_left_out_unseen(closed: str, tmp_path: Path) -> None:
    """In a process that is not root, whom nothing is closed to."""
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest-of-" in str(folder):  # pytest's own, closed to others; one more of them with xdist
            folder.chmod(0o755)
    corpus = tmp_path / "corpus"
    for name in ("a.jsonl", "b.jsonl", "sub/c.jsonl"):
        write(corpus / name)
    for made in (corpus, *corpus.rglob("*")):  # whatever umask a service in this process has set
        made.chmod(0o755)
    (corpus / closed).chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(corpus)], capture_output=True, text=True, check=True, timeout=60
    )
    (corpus / closed).chmod(0o755)
    assert done.stdout.startswith("refused: corpus c:"), done.stderr
    assert (corpus / closed).resolve().name in done.stdout


def test_a_file_that_vanishes_is_the_request_s_fault_and_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, LINE * 2)
    documents = CorpusSource(name="c", path=tmp_path).documents()
    next(documents)
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(RequestFault, match=r"corpus c: b\.jsonl does not exist"):
        list(documents)
