"""Tasks of lm-evaluation-harness (extra `lm-eval`) on models that are in memory already.

Tasks are those that the harness brings, which load their data sets from Hugging Face, and those in a folder of one's
own (PUBLISHER_LM_EVAL_TASKS, `publisher build --tasks`): YAML files as the harness documents them. These may run
Python of their own, so the folder is set by whoever runs the worker; a recipe only names tasks, never files.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from publisher.errors import InfrastructureFault, RequestFault
from publisher.files.reading import reading

_FIELD = "recipe.evaluation.tasks"
_MENDED = "Leave the task out, or have its YAML file or its data mended by whoever runs the worker."
_ROWS_AT_ONCE = 8
_HTTP = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp"}
#: The harness's default of 100,000 takes minutes for metrics that are no mean.
_BOOTSTRAPS = 1000
#: What the harness calls a metric without a filter: `acc,none`.
_NO_FILTER = ",none"
#: Beside the metrics of a task's results.
_COUNTS = frozenset({"sample_len", "sample_count"})


@dataclass(frozen=True)
class HarnessTasks:
    """`names` of tasks, groups or tags; `limit`: documents per task, None: all; `folder`: of tasks of one's own."""

    names: Sequence[str]
    limit: int | None = None
    folder: Path | None = None
    seed: int = 0

    def refuse_unknown(self) -> None:
        """Raises RequestFault if the harness is not installed here, or has no task of a name; loads no data."""
        if not self.names:
            return
        if find_spec("lm_eval") is None:
            raise RequestFault(
                f"evaluation.tasks names {', '.join(self.names)}, and this worker has no lm-evaluation-harness.",
                field=_FIELD,
                way_out="Install loram-publisher[lm-eval] there, or leave evaluation.tasks out.",
            )
        known = _task_manager(self.folder).all_tasks
        for name in self.names:
            if name not in known:
                near = get_close_matches(name, known, 3)
                raise RequestFault(
                    f"lm-evaluation-harness has no task {name!r}.",
                    field=_FIELD,
                    way_out=f"Did you mean {', '.join(near)}?" if near else "lm_eval ls tasks lists what it has.",
                )

    def load(self) -> None:
        """Fetch the data before anything is measured. Raises InfrastructureFault if it cannot be had, RequestFault
        for a task that runs code which models write."""
        if not self.names:
            return
        with self._reading():
            loaded = _task_manager(self.folder).load(list(self.names))["tasks"]
        for name, task in loaded.items():
            if getattr(task, "UNSAFE_CODE", False):
                raise RequestFault(
                    f"task {name} runs code that the model writes, which a worker does not.",
                    field=_FIELD,
                    way_out="Leave it out.",
                )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Data sets come over the network, which may do better the next time; what a task itself says does not."""
        named = ", ".join(self.names)
        try:
            with reading(f"evaluation.tasks ({named})", self.folder or Path("lm_eval"), field=_FIELD, way_out=_MENDED):
                yield
        except RequestFault as fault:
            if not _is_network(fault.__cause__):
                raise
            raise InfrastructureFault(f"the data of {named} cannot be loaded: {fault.__cause__}") from fault

    def run(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, check: Callable[[], None]
    ) -> dict[str, dict[str, float]]:
        """Task → metric → value; `check` is called before every forward pass and may raise."""
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        hook = model.register_forward_pre_hook(lambda *_: check())
        try:
            with self._reading():
                found = simple_evaluate(
                    HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_ROWS_AT_ONCE),
                    tasks=list(self.names),
                    limit=self.limit,
                    bootstrap_iters=_BOOTSTRAPS,
                    log_samples=False,
                    task_manager=_task_manager(self.folder),
                    random_seed=self.seed,
                    numpy_random_seed=self.seed % 2**32,
                    torch_random_seed=self.seed,
                    fewshot_random_seed=self.seed,
                )
        finally:
            hook.remove()
        return {task: _metrics(values) for task, values in found["results"].items()}

    def content_digest(self) -> str:
        """sha256 over the files of the folder of own tasks, which are part of what is measured."""
        digest = hashlib.sha256()
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file()) if self.folder else []
        for path in paths:
            digest.update(f"{path.relative_to(str(self.folder))}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()


def _is_network(error: BaseException | None) -> bool:
    """What the disk and the Hub say, and HTTP's own libraries, which the harness's data goes through."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _HTTP


def _metrics(values: dict[str, Any]) -> dict[str, float]:
    return {
        name.removesuffix(_NO_FILTER): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and name not in _COUNTS
    }


@cache
def _task_manager(folder: Path | None) -> Any:
    """Reading the harness's 14,000 task files takes ten seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of every default that a task relies on
    return TaskManager(include_path=str(folder) if folder else None)
