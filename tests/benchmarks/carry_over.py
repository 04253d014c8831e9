"""What adapters carry over to the base model, by ratio and kind of alignment: certificates side by side.

    python -m tests.benchmarks.carry_over BASE --text classics:3=classics.jsonl code=code.jsonl \\
        --domains sea=sea.jsonl docs=docs.jsonl [--ratios 0.5 0.65] [--alignments none distillation] [--tokens 400000]

BASE is a model's folder. `--text` is calibrated and aligned on by weight (here three parts of the first), `--domains`
are what adapters are trained and measured on: for each a probe of its own, and one on the base model. Everything is the
pipeline's own, in a store of stages that is used again, so that an interrupted run goes on and a longer list repeats
nothing. Hours on a CPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from publisher.base_model.facts import inspect_folder
from publisher.corpus.source import CorpusSource
from publisher.manifest.evaluation import EvaluationReport
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from worker.context import RecordingContext
from worker.request import BaseModelSource, BuildRequest
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore
from worker.text.packing import WeightedSource

#: name → what differs from the recipe's defaults; None: no alignment
ALIGNMENTS: Mapping[str, dict[str, Any] | None] = {
    "none": None,
    "reconstruction": {"tokens": 0},
    "language_model": {"objective": "language_model"},
    "distillation": {"objective": "distillation"},
    "distillation of words": {"objective": "distillation", "gradient_matching": 0},
    "language_model alone": {"objective": "language_model", "reconstruction_tokens": 0},
    "distillation alone": {"objective": "distillation", "reconstruction_tokens": 0},
}


@dataclass(frozen=True)
class Row:
    ratio: float
    alignment: str
    domain: str
    report: EvaluationReport

    def __str__(self) -> str:
        certificate, fidelity = self.report.certificate, self.report.gradient_fidelity
        assert certificate is not None
        assert fidelity is not None
        perplexity = self.report.perplexity[self.domain]
        direct, retained = certificate.direct or float("nan"), certificate.gain_retained
        return (
            f"{self.ratio:5.2f}  {self.alignment:20}  {self.domain:10}  {perplexity.base:8.2f} "
            f"{perplexity.quantized:10.2f} {certificate.recovered:10.2f} {direct:8.2f}  "
            f"{'–' if retained is None else f'{retained:.1%}':>8}  {fidelity.mean:8.3f}"
        )


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    print("ratio  alignment             domain          base checkpoint  recovered   direct  retained  fidelity")
    for row in rows(options):
        print(row, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--text", type=_weighted, nargs="+", required=True, metavar="NAME[:WEIGHT]=PATH")
    parser.add_argument("--domains", type=_corpus, nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.35, 0.5, 0.65])
    parser.add_argument("--protect", type=int, nargs=2, default=[3, 2], help="layers kept whole at both ends")
    parser.add_argument("--alignments", nargs="+", choices=list(ALIGNMENTS), default=list(ALIGNMENTS)[:5])
    parser.add_argument("--samples", type=int, default=32, help="sequences that importance is measured on")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--settings", type=json.loads, default={}, help="of the recipe's alignment, as JSON")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "carry-over")
    return parser.parse_args()


def _corpus(said: str) -> CorpusSource:
    name, _, path = said.partition("=")
    return CorpusSource(name=name, path=Path(path))


def _weighted(said: str) -> WeightedSource:
    name, _, path = said.partition("=")
    name, _, weight = name.partition(":")
    return WeightedSource(_corpus(f"{name}={path}"), float(weight or 1))


def rows(options: argparse.Namespace) -> Iterator[Row]:
    for ratio in options.ratios:
        for alignment in options.alignments:
            for domain in options.domains:
                yield Row(ratio, alignment, domain.name, _evaluated(ratio, alignment, domain, options))


def _evaluated(ratio: float, alignment: str, domain: CorpusSource, options: argparse.Namespace) -> EvaluationReport:
    recipe = {
        "pruning": {
            "ratio": ratio,
            "protect_first": options.protect[0],
            "protect_last": options.protect[1],
            "calibration": {"corpora": _weights(options), "samples": options.samples},
        },
        "alignment": _alignment(ALIGNMENTS[alignment], options),
        "evaluation": {"corpora": [domain.name], "tokens": 12_000},
    }
    request = BuildRequest(
        BaseModelSource(str(options.base), inspect_folder(options.base).revision, options.base),
        Recipe.model_validate(recipe),
        {corpus.name: corpus for corpus in (*(text.source for text in options.text), *options.domains)},
        device=options.device,
    )
    folders = run_pipeline(request, StageStore(options.work), lambda stage: RecordingContext(), Stage.EVALUATE)
    return EvaluationReport.model_validate_json((folders[Stage.EVALUATE] / "evaluation.json").read_bytes())


def _alignment(differing: dict[str, Any] | None, options: argparse.Namespace) -> dict[str, Any] | None:
    if differing is None:
        return None
    return {"corpora": _weights(options), "tokens": options.tokens, **options.settings, **differing}


def _weights(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [{"name": text.source.name, "weight": text.weight} for text in options.text]


if __name__ == "__main__":
    main()
