"""With a task and a data set of our own: nothing is downloaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from publisher.errors import InfrastructureFault, JobCancelled, RequestFault
from publisher.recipe import Recipe
from publisher.recipe.stages import Stage
from tests.models import byte_tokenizer, tiny_llama
from tests.worker.evaluation.test_evaluate import _evaluate, _request
from tests.worker.stages.building import prose, request_for
from worker.context import RecordingContext
from worker.evaluation.tasks import HarnessTasks
from worker.models.causal import load_causal
from worker.request import BuildRequest
from worker.stages.pipeline import run_pipeline
from worker.storage.store import StageStore

QUESTIONS = [(f"Whale {number} is", " white", " black and old", number % 2) for number in range(9)]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, since the harness reads 14,000 files of its own with it. `lost_whales` has no data."""
    folder = tmp_path_factory.mktemp("tasks")
    lines = [{"question": q, "choices": [a, b], "answer": answer} for q, a, b, answer in QUESTIONS]
    (folder / "whales.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "whales.yaml").write_text(TASK.format(name="whale_colours", data=folder / "whales.jsonl"))
    odd = TASK.format(name="odd_whales", data=folder / "whales.jsonl").replace("question}}", "question.of.nobody}}")
    (folder / "odd.yaml").write_text(odd)
    (folder / "torn.jsonl").write_text('{"question": "Whale')
    (folder / "torn.yaml").write_text(TASK.format(name="torn_whales", data=folder / "torn.jsonl"))
    (folder / "lost.yaml").write_text(TASK.format(name="lost_whales", data=folder / "lost.jsonl"))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> PreTrainedModel:
    return load_causal(tiny_llama(tmp_path / "model"), "cpu")


@torch.no_grad()
def _likelihood(model: PreTrainedModel, question: str, choice: str) -> float:
    ids = byte_tokenizer()([question, question + choice])["input_ids"]
    scores = model(input_ids=torch.tensor(ids[1:])).logits[0].log_softmax(-1)
    return float(sum(scores[at - 1, ids[1][at]] for at in range(len(ids[0]), len(ids[1]))))


def test_accuracy_is_how_often_the_right_choice_is_likelier(folder: Path, model: PreTrainedModel) -> None:
    right = [(_likelihood(model, q, b) > _likelihood(model, q, a)) == bool(answer) for q, a, b, answer in QUESTIONS]
    tasks = HarnessTasks(["whale_colours"], folder=folder)
    assert tasks.run(model, byte_tokenizer(), lambda: None)["whale_colours"]["acc"] == pytest.approx(sum(right) / 9)
    few = HarnessTasks(["whale_colours"], 3, folder)
    assert few.run(model, byte_tokenizer(), lambda: None)["whale_colours"]["acc"] == pytest.approx(sum(right[:3]) / 3)


def test_cancel_reaches_a_running_task(folder: Path, model: PreTrainedModel) -> None:
    def cancel() -> None:
        raise JobCancelled("cancelled by the test.")

    tasks = HarnessTasks(["whale_colours"], folder=folder)
    with pytest.raises(JobCancelled):
        tasks.run(model, byte_tokenizer(), cancel)
    assert not model._forward_pre_hooks


@pytest.mark.long
def test_tasks_are_run_on_base_published_and_recovered_model(tmp_path: Path, folder: Path) -> None:
    request = _request(tmp_path, align=False, tasks=["whale_colours"], task_limit=4, direct=False)
    request = BuildRequest(request.base, request.recipe, request.corpora, tasks_folder=folder)
    _, report, _ = _evaluate(tmp_path, request)
    forms = report.tasks["whale_colours"]
    assert forms.keys() == {"base", "published", "recovered"}
    assert all(0 <= metrics["acc"] <= 1 for metrics in forms.values())


def test_digest_of_own_tasks_follows_their_files(tmp_path: Path) -> None:
    digests = set()
    for name, text in (("a.yaml", "task: a"), ("a.yaml", "task: b"), ("b.yaml", "task: b")):
        (tmp_path / name).write_text(text)
        digests.add(HarnessTasks(["a"], folder=tmp_path).content_digest())
    assert len(digests) == 3


def test_unknown_task_is_refused_before_any_work(tmp_path: Path) -> None:
    evaluation = {"corpora": ["prose"], "tasks": ["arc_eazy"]}
    recipe = Recipe.model_validate({"pruning": {"criterion": "magnitude", "ratio": 0.5}, "evaluation": evaluation})
    request = request_for(tiny_llama(tmp_path / "base"), prose(tmp_path / "prose.jsonl"), recipe)
    started: list[Stage] = []
    with pytest.raises(RequestFault, match=r"no task 'arc_eazy'\. Did you mean arc_easy") as refused:
        run_pipeline(
            request,
            StageStore(tmp_path / "stages"),
            lambda stage: RecordingContext(),
            on_stage=lambda stage, state, seconds: started.append(stage),
        )
    assert refused.value.field == "recipe.evaluation.tasks"
    assert started == []


def test_a_file_is_no_task(folder: Path) -> None:
    """The harness itself takes paths, and the Python that such a file names."""
    with pytest.raises(RequestFault, match="has no task"):
        HarnessTasks([str(folder / "whales.yaml")]).refuse_unknown()


def test_data_that_cannot_be_had_is_told_before_anything_is_measured(folder: Path) -> None:
    with pytest.raises(InfrastructureFault, match="data of lost_whales cannot be loaded"):
        HarnessTasks(["lost_whales"], folder=folder).load()


def test_a_task_whose_data_or_template_is_broken_is_named_and_not_tried_again(
    folder: Path, model: PreTrainedModel
) -> None:
    with pytest.raises(RequestFault, match="torn_whales") as torn:
        HarnessTasks(["torn_whales"], folder=folder).load()
    with pytest.raises(RequestFault, match="odd_whales") as odd:
        HarnessTasks(["odd_whales"], folder=folder).run(model, byte_tokenizer(), lambda: None)
    for refused in (torn, odd):
        assert refused.value.field == "recipe.evaluation.tasks"
        assert "Leave the task out" in str(refused.value.way_out)


def test_worker_without_the_harness_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from worker.evaluation.tasks import HarnessTasks\n"
        "HarnessTasks(['arc_easy']).refuse_unknown()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "Install loram-publisher[lm-eval] there" in done.stderr
