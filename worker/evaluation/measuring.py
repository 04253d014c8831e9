"""Every form of the model on every corpus, told to whoever listens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from publisher.errors import RequestFault
from worker.context import StageContext
from worker.evaluation.perplexity import DocumentLosses, Window, document_losses
from worker.evaluation.tasks import HarnessTasks

#: corpus → its held-out windows
Windows = Mapping[str, Sequence[Window]]


class Form(StrEnum):
    """What is measured; the values are said in logs."""

    BASE = "base model"
    PRUNED = "pruned model"
    ALIGNED = "aligned model"
    PUBLISHED = "published model"
    RECOVERED = "base model with the recovered adapter"
    DIRECT = "base model with an adapter trained on it"


#: Forms that harness tasks are run on, and what the report calls them.
_TASK_FORMS = {Form.BASE: "base", Form.PUBLISHED: "published", Form.RECOVERED: "recovered"}


@dataclass
class Measuring:
    """Progress through everything that evaluate does, in windows scored and probe steps trained.

    Kept meanwhile: `losses` of trainings by series; `document_nats`: corpus → form → loss of each document, summed;
    and `task_results`: task → form → metric → value.
    """

    context: StageContext
    total: int
    tasks: HarnessTasks
    tokenizer: PreTrainedTokenizerBase
    done: int = 0
    points: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)
    document_nats: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    task_results: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def advance(self, count: int) -> None:
        self.done += count
        self.context.progress(self.done, self.total, "windows, steps")

    def measure(self, form: Form, model: PreTrainedModel, windows: Windows) -> dict[str, DocumentLosses]:
        """Losses of `model` on each corpus; runs the tasks, too. Raises RequestFault if one is no number."""
        found = self._losses(form, model, windows)
        if self.tasks.names and form in _TASK_FORMS:
            self.context.log(f"Running {', '.join(self.tasks.names)} on the {form}.")
            for task, metrics in self.tasks.run(model, self.tokenizer, self.context.check).items():
                self.task_results.setdefault(task, {})[_TASK_FORMS[form]] = metrics
        return found

    def _losses(self, form: Form, model: PreTrainedModel, windows: Windows) -> dict[str, DocumentLosses]:
        found = {}
        for corpus, cut in windows.items():
            losses = document_losses(model, cut, self.advance)
            value = losses.perplexity
            _refuse_no_number(form, corpus, value)
            self.points += 1
            self.context.metric("perplexity", self.points, value)
            # as a series it says in which order; by these names people see of what
            self.context.metric(f"perplexity/{form.name.lower()}/{corpus}", self.points, value)
            self.context.log(f"Perplexity of the {form} on {corpus}: {value:.2f}.")
            self.document_nats.setdefault(corpus, {})[form.name.lower()] = list(losses.nats)
            found[corpus] = losses
        return found

    def step(self, series: str, step: int, loss: float) -> None:
        """One finished step of a probe's training; its losses are kept in `losses`."""
        self.losses.setdefault(series, []).append(loss)
        self.context.metric(series, step, loss)
        self.advance(1)


def _refuse_no_number(form: Form, corpus: str, value: float) -> None:
    if not math.isfinite(value):
        raise RequestFault(
            f"the perplexity of the {form} on {corpus} is {value}.",
            field="recipe",
            way_out="Prune less, or align longer or with a lower learning rate.",
        )
