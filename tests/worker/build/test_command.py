"""`publisher build` as people call it: a process, its output and its exit status."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

import publisher.checkpoint  # noqa: F401 - teaches transformers layers of different widths
from publisher.architecture.widths import pruned_widths
from publisher.checkpoint.masks import load_masks
from tests.dataset_hub import serve_datasets
from tests.models import tiny_llama
from tests.worker.card.test_card import described, evaluation
from tests.worker.stages.building import prose, recipe
from worker.build.command import build
from worker.build.run import say_certificate
from worker.storage.store import StageStore
from worker.streaming.weights import read_geometry


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "base")


def arguments(base: Path, out: Path, *more: str, **pruning: Any) -> list[str]:
    """The command with a recipe and a corpus beside `base`."""
    recipe_file = base.parent / "recipe.json"
    recipe_file.write_text(recipe(**pruning).canonical_json())
    corpus = prose(base.parent / "prose.jsonl")
    module = [sys.executable, "-m", "worker.build.command"]
    return [*module, str(base), str(out), "--recipe", str(recipe_file), "--corpus", f"prose={corpus}", *more]


def call(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def call_here(command: list[str]) -> subprocess.CompletedProcess[str]:
    """The same within this process, which has loaded torch: for what is refused before work."""
    result = CliRunner().invoke(build, command[3:])
    assert isinstance(result.exception, SystemExit), result.exception
    return subprocess.CompletedProcess(command, result.exit_code, result.stdout, result.stderr)


def test_a_pruned_model_that_loads_with_its_masks(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = call(arguments(base, out, "--until", "prune"))
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["fetch", "calibrate", "prune"]
    assert sorted(path.name for path in out.iterdir()) == ["model", "pruning_masks.safetensors"]
    model = AutoModelForCausalLM.from_pretrained(out / "model")
    geometry = read_geometry(base)
    assert model.num_parameters() == geometry.parameters(pruned_widths(geometry, recipe().pruning))
    assert model(torch.arange(8)[None]).logits.isfinite().all()
    assert {layer for layer, _ in load_masks(out / "pruning_masks.safetensors").kept} == {1, 2}


@pytest.mark.long
def test_finished_stages_in_a_work_folder_serve_the_next_build(base: Path, tmp_path: Path) -> None:
    work = ("--until", "prune", "--work", str(tmp_path / "work"))
    call(arguments(base, tmp_path / "one", *work))
    done = call(arguments(base, tmp_path / "two", *work, ratio=0.6))
    assert done.returncode == 0, done.stderr
    assert ["there already" in line for line in done.stderr.splitlines()] == [True, True, False]


def test_the_output_of_fetch_is_real_files(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(arguments(base, out, "--until", "fetch")).returncode == 0
    assert not any(path.is_symlink() for path in out.rglob("*"))
    weights = out / "base" / "model.safetensors"
    assert weights.read_bytes() == (base / "model.safetensors").read_bytes()
    assert weights.stat().st_ino != (base / "model.safetensors").stat().st_ino


def test_a_build_ends_with_the_verdict_of_its_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for report, said in ((evaluation(64.0), "Certificate passed: "), (evaluation(80.0), "Certificate failed: ")):
        described(tmp_path, evaluation=report).write(tmp_path)
        say_certificate(tmp_path)
        told = capsys.readouterr()
        assert told.err.startswith(said)
        assert "12 held-out documents" in told.err
        assert told.out == ""
    described(tmp_path).write(tmp_path)
    say_certificate(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_not_empty_is_refused_before_work(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").touch()
    done = call_here(arguments(base, out))
    assert done.returncode == 4
    assert done.stderr == f"Error: {out} is not empty. Name a new folder; nothing is overwritten.\n"
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--until", "publish"), 2, "'publish' is not one of"),
        (("--until", "align"), 4, "the recipe leaves this stage out"),
        (("--device", "tpu9"), 2, "none of auto, cpu, cuda"),
        (("--corpus", "prose"), 2, "'prose' is not NAME=PATH"),
        (("--corpus", "prose=/nowhere.jsonl"), 4, "corpus prose: /nowhere.jsonl does not exist"),
    ],
)
def test_wrong_options_are_refused_before_work(
    base: Path, tmp_path: Path, more: tuple[str, ...], status: int, message: str
) -> None:
    done = call_here(arguments(base, tmp_path / "out", *more))
    assert done.returncode == status
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_corpus_that_the_recipe_names_and_nobody_gives_is_named(base: Path, tmp_path: Path) -> None:
    command = arguments(base, tmp_path / "out", calibration={"corpus": "fineweb", "samples": 4, "sequence_length": 32})
    done = call_here(command)
    assert done.returncode == 4
    assert "corpus fineweb, which no --corpus option gives. Add --corpus fineweb=PATH. Given: prose." in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_build_until_prune_asks_for_calibration_s_corpus_alone(base: Path, tmp_path: Path) -> None:
    command = arguments(base, tmp_path / "out", "--until", "prune")
    more = {"evaluation": {"corpora": ["novel"]}, "alignment": {"corpora": ["fineweb"], "tokens": 4096}}
    content = json.loads((tmp_path / "recipe.json").read_text()) | more
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    done = call(command)
    assert done.returncode == 0, done.stderr
    refused = call([*arguments(base, tmp_path / "whole")[:-2], "--recipe", str(tmp_path / "recipe.json")])
    assert "prose, which no --corpus option gives" in refused.stderr


def test_a_local_corpus_may_have_its_text_in_another_field(base: Path, tmp_path: Path) -> None:
    text = tmp_path / "other.jsonl"
    text.write_bytes(prose(tmp_path / "prose.jsonl").read_bytes().replace(b'"text"', b'"content"'))
    option = ("--corpus", f"prose={text}?text_field=content")
    done = call(arguments(base, tmp_path / "out", "--until", "prune", *option))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n' * 2000, mtime=0)[:-20],
            "a.jsonl.gz is damaged in or after line",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', "a.jsonl, line 2 holds half of a surrogate pair"),
        ("a.parquet", b"PAR1", "a.parquet is damaged or not Parquet"),
    ],
)
def test_a_damaged_corpus_is_refused_before_work(
    base: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = call_here(arguments(base, tmp_path / "out", "--corpus", f"prose={tmp_path / name}"))
    assert (done.returncode, done.stdout) == (4, "")
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_wrong_signing_key_is_refused_before_work(base: Path, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    done = call_here(arguments(base, tmp_path / "out", "--signing-key", str(tmp_path / "key.pem")))
    assert (done.returncode, done.stdout) == (4, "")
    assert "key.pem holds no private key as PEM. Make one: `openssl ecparam" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_wrong_recipe_is_refused_with_the_field(base: Path, tmp_path: Path) -> None:
    command = arguments(base, tmp_path / "out")
    (tmp_path / "recipe.json").write_text('{"pruning": {"ratio": 1.5, "criterion": "random"}}')
    done = call_here(command)
    assert done.returncode == 4
    assert "recipe.pruning.ratio: 1.5 is not valid: it should be less than 1" in done.stderr


@pytest.mark.parametrize(
    ("pruning", "message"),
    [
        ({"ratio": 0.999}, "leaves no attention head in a layer of 2 KV heads"),
        ({"round_to": 64}, "rounds everything up to the full width"),
        ({"protect_first": 4}, "leave none of the 4 decoder layers to prune"),
        ({"method": "unstructured", "criterion": "magnitude", "ratio": 0.01}, "removes none of the 32 weights"),
    ],
)
def test_a_recipe_that_cannot_be_had_is_refused_before_work(
    base: Path, tmp_path: Path, pruning: dict[str, Any], message: str
) -> None:
    done = call_here(arguments(base, tmp_path / "out", "--until", "prune", **pruning))
    assert (done.returncode, done.stdout) == (4, "")
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_base_model_is_refused(tmp_path: Path) -> None:
    done = call(arguments(tmp_path / "nothing", tmp_path / "out"))
    assert done.returncode == 4
    assert "does not exist" in done.stderr


def test_a_disk_limit_ends_the_build_and_the_next_one_goes_on(base: Path, tmp_path: Path) -> None:
    """The kernel refuses files beyond 60 kB: room for every file but the weights."""
    out = tmp_path / "out"
    command = arguments(base, out, "--until", "prune")
    limit = 60_000
    assert (base / "model.safetensors").stat().st_size > 2 * limit
    failed = call(command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert failed.returncode == 1
    assert "Error: stage prune: a file in" in failed.stderr
    assert [path.name for path in out.iterdir()] == [".stages"]
    done = call(command)
    assert done.returncode == 0, done.stderr
    assert ["there already" in line for line in done.stderr.splitlines()] == [True, True, False]


def test_ctrl_c_stops_tidily_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """With so many layers the build is still there when the signal comes."""
    base = tiny_llama(tmp_path / "base", num_hidden_layers=30)
    command = arguments(base, tmp_path / "out", "--until", "prune")
    # a shell lets what it starts in the background ignore Ctrl-C, and these tests may have inherited that
    listening = ["env", "--default-signal=INT", *command]
    process = subprocess.Popen(listening, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("fetch")
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Stopped. Finished stages are kept" in rest
    assert "Traceback" not in rest
    done = call(command)
    assert done.returncode == 0, done.stderr
    assert "there already" in done.stderr.splitlines()[0]


def test_a_dataset_of_a_hub_serves_as_corpus(base: Path, tmp_path: Path) -> None:
    with serve_datasets() as hub:
        hub.repos = {"org/prose": {"train.jsonl": prose(tmp_path / "dataset.jsonl").read_bytes()}}
        corpus = ("--corpus", "prose=hf://org/prose@main?split=train&documents=25")
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint}
        work = tmp_path / "work"
        command = arguments(base, tmp_path / "out", "--until", "prune", "--work", str(work), *corpus)
        done = call(command, env=environment)
    assert done.returncode == 0, done.stderr
    (kept,) = StageStore(work).datasets.iterdir()
    with gzip.open(kept, "rt") as lines:
        assert len(lines.readlines()) == 25


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://org/prose?rows=5", "says rows, which is not known"),
        ("hf://org/prose?documents=0", "documents in hf://org/prose?documents=0"),
        ("hf://org/none", "there is no dataset org/none"),
    ],
)
def test_a_dataset_that_is_not_there_is_refused_at_once(base: Path, tmp_path: Path, address: str, message: str) -> None:
    with serve_datasets() as hub:
        hub.repos = {"org/prose": {"train.jsonl": b"{}"}}
        command = arguments(base, tmp_path / "out", "--corpus", f"prose={address}")
        done = call(command, env=os.environ | {"HF_ENDPOINT": hub.endpoint})
    assert done.returncode == 4
    assert message in done.stderr
