"""sparsegpt and wanda at 50 % beside llm-compressor, with the same samples: time, peak memory, held-out perplexity.

    python -m venv /tmp/compressor && /tmp/compressor/bin/pip install llmcompressor
    python -m tests.benchmarks.one_shot --compressor-python /tmp/compressor/bin/python \\
        --model SmolLM2-135M-Instruct --train train.jsonl.gz --held-out held-out.jsonl.gz [--runs 3]

`--model` is a folder with safetensors, the texts are corpora as the service takes them. Targets: at most 0.8 × its
time, at most 0.7 × its peak memory, perplexity no worse. Either side reads the model from disk, prunes every linear
layer of every decoder layer, and writes the pruned model; this one is the prune stage, so it writes masks and checks
weights besides. Both compute with as many threads (`--threads`), in what is their own default on a CPU (here fp32,
there the type of the weights). Runs alternate and medians count; CPU time is shown as well, for machines that do
something else beside. The same code measures both perplexities, in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from publisher.corpus.source import CorpusSource
from publisher.recipe import Pruning, Recipe
from tests.benchmarks.sides import Cost, asked_side, report_side, run_side
from worker.context import RecordingContext
from worker.evaluation.perplexity import cut_windows, perplexity
from worker.request import BaseModelSource, BuildRequest
from worker.stages.calibrate import TOKENS, corpus_sequences
from worker.stages.inputs import PruneInputs
from worker.stages.prune import stage as prune

CRITERIA = ("sparsegpt", "wanda")


@dataclass
class Outcome:
    costs: list[Cost] = field(default_factory=list)
    perplexity: float = 0.0

    def median(self, what: str) -> float:
        return float(statistics.median(getattr(cost, what) for cost in self.costs))


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    calibration = options.work / "calibration"
    shutil.rmtree(calibration, ignore_errors=True)
    calibration.mkdir(parents=True)
    save_file({"tokens": _tokens(options).int()}, calibration / TOKENS)
    print(f"base model: perplexity {_perplexity(options.model, options):.2f}", flush=True)
    for criterion in options.criteria:
        outcomes = {"ours": Outcome(), "llm-compressor": Outcome()}
        for _ in range(options.runs):
            for side, outcome in outcomes.items():
                output = options.work / criterion / side
                outcome.costs.append(_run(side, criterion, output, options))
                print(f"{criterion} {side:14} {outcome.costs[-1]}", flush=True)
        for side, outcome in outcomes.items():
            outcome.perplexity = _perplexity(options.work / criterion / side / "model", options)
        _compare(criterion, outcomes["ours"], outcomes["llm-compressor"])


def _run(side: str, criterion: str, output: Path, options: argparse.Namespace) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    arguments = {
        "model": str(options.model),
        "calibration": str(options.work / "calibration"),
        "criterion": criterion,
        "output": str(output),
    }
    if side == "ours":
        return run_side("tests.benchmarks.one_shot", arguments, options.threads)
    return llm_compressor(options.compressor_python, arguments, options.threads)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compressor-python", required=True, help="of a virtual environment with llmcompressor")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "one-shot")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--held-out-tokens", type=int, default=16_384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA, default=CRITERIA)
    return parser.parse_args()


def _tokens(options: argparse.Namespace) -> Tensor:
    documents = CorpusSource(name="train", path=options.train).documents()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    return corpus_sequences("train", documents, options.samples, options.length, tokenizer)


def _recipe(criterion: str, samples: int = 1, length: int = 8) -> Pruning:
    calibration = {"corpus": "text", "samples": samples, "sequence_length": length}
    return Pruning.model_validate(
        {
            "method": "unstructured",
            "criterion": criterion,
            "ratio": 0.5,
            "protect_first": 0,
            "protect_last": 0,
            "calibration": calibration,
        }
    )


def llm_compressor(python: str, arguments: dict[str, str], threads: int) -> Cost:
    """What one_shot_llm_compressor takes by another environment's `python`. Raises SystemExit if it fails."""
    command = [python, "-m", "tests.benchmarks.one_shot_llm_compressor", json.dumps(arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    log = Path(arguments["output"]) / "log.txt"
    with log.open("w") as errors:
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
    if run.returncode:
        sys.exit(f"llm-compressor failed:\n{log.read_text()[-2000:]}")
    return Cost(**json.loads(run.stdout.splitlines()[-1]))


def _perplexity(folder: Path, options: argparse.Namespace) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    documents = CorpusSource(name="held-out", path=options.held_out).documents()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    return perplexity(
        model, cut_windows(documents, tokenizer, options.length, options.held_out_tokens), lambda windows: None
    )


def _compare(criterion: str, ours: Outcome, theirs: Outcome) -> None:
    print(
        f"{criterion}: median time {ours.median('seconds'):.1f} s : {theirs.median('seconds'):.1f} s = "
        f"{ours.median('seconds') / theirs.median('seconds'):.2f} (target: at most 0.8); "
        f"CPU time {ours.median('cpu_seconds'):.1f} s : {theirs.median('cpu_seconds'):.1f} s = "
        f"{ours.median('cpu_seconds') / theirs.median('cpu_seconds'):.2f}; "
        f"peak {ours.median('peak') / 2**20:,.0f} MiB : {theirs.median('peak') / 2**20:,.0f} MiB = "
        f"{ours.median('peak') / theirs.median('peak'):.2f} (target: at most 0.7); "
        f"perplexity {ours.perplexity:.2f} : {theirs.perplexity:.2f} (target: no worse)",
        flush=True,
    )


def prune_with(arguments: dict[str, str]) -> None:
    """This side: the prune stage."""
    request = BuildRequest(
        BaseModelSource(arguments["model"], "", Path(arguments["model"])),
        Recipe(pruning=_recipe(arguments["criterion"])),
        {},
    )
    inputs = PruneInputs(base=Path(arguments["model"]), calibration=Path(arguments["calibration"]))
    report_side(lambda: prune.run(request, inputs, Path(arguments["output"]), RecordingContext()))


if __name__ == "__main__":
    asked = asked_side()
    if asked is None:
        main()
    else:
        prune_with(asked)
