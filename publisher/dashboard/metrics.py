"""What the stages measure, and how it is drawn: one declaration each. A name that is not here is drawn by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from publisher.recipe import Recipe


@dataclass(frozen=True)
class Metric:
    """`group`: those of one group share their axes. `label` names the line where there are several.

    `axis`: what its steps count; `total`: up to which step, if the recipe says. `is_small`: drawn in a corner, for who
    looks for it; `is_log`: on a logarithmic axis; `is_points`: each value stands for itself, and no line joins them.
    """

    name: str
    title: str
    about: str
    unit: str = ""
    group: str = ""
    label: str = ""
    axis: str = "step"
    total: Callable[[Recipe], int | None] = lambda recipe: None
    is_small: bool = False
    is_log: bool = False
    is_points: bool = False

    @property
    def key(self) -> str:
        return self.group or self.name


def _aligning(recipe: Recipe) -> int | None:
    return recipe.alignment.steps if recipe.alignment else None


def _probing(recipe: Recipe) -> int | None:
    return recipe.evaluation.probe_budget.steps if recipe.evaluation and recipe.evaluation.probe else None


#: `perplexity/base/novel`: of which form of the model, on which corpus; shown as a table
PERPLEXITY_OF = "perplexity/"
FORMS = {
    "base": "Base model",
    "pruned": "Pruned model",
    "aligned": "Aligned model",
    "published": "Published model",
    "recovered": "Base model with the recovered LoRA",
    "direct": "Base model with a LoRA trained on it",
}

#: in the order of the page
METRICS = (
    Metric(
        "loss",
        "Alignment loss",
        "How far the pruned model is from what it is trained towards, over the text of one step. It should fall fast, "
        "then slowly. Held-out loss is the same over text that training never sees: where it rises while the other one "
        "falls, the model learns its text by heart.",
        unit="nats per token",
        group="loss",
        label="training",
        axis="step of alignment",
        total=_aligning,
    ),
    Metric(
        "held_out_loss",
        "Held-out loss",
        "Over text that training never sees.",
        unit="nats per token",
        group="loss",
        label="held out",
        axis="step of alignment",
        total=_aligning,
    ),
    Metric(
        "probe_loss",
        "Loss of the probe LoRAs",
        "While LoRAs are trained that show what the checkpoint is good for: one on the checkpoint, which is recovered "
        "onto the base model afterwards, and one on the base model itself, which is the best that can be hoped for.",
        unit="nats per token",
        group="probe_loss",
        label="on the checkpoint",
        axis="step of the probe",
        total=_probing,
    ),
    Metric(
        "direct_loss",
        "Loss of the direct LoRA",
        "While a LoRA is trained on the base model itself.",
        unit="nats per token",
        group="probe_loss",
        label="on the base model",
        axis="step of the probe",
        total=_probing,
    ),
    Metric(
        "perplexity",
        "Perplexity, model after model",
        "Each point is another model, in the order in which they were measured; the log says which.",
        axis="measurement",
        is_log=True,
        is_points=True,
    ),
    Metric(
        "gradient_cosine",
        "Agreement of gradients",
        "Cosine between what the pruned model and the base model would learn from one text: 1 is the same direction.",
        axis="step of alignment",
        total=_aligning,
        is_small=True,
    ),
    Metric(
        "learning_rate",
        "Learning rate",
        "Rises while training warms up, then falls towards zero along half a cosine.",
        axis="step of alignment",
        total=_aligning,
        is_small=True,
    ),
    Metric(
        "tokens_per_second",
        "Speed",
        "Tokens that one step trains on, by the seconds that it took. Dips are pauses in which state is saved.",
        unit="tokens per second",
        axis="step of alignment",
        total=_aligning,
        is_small=True,
    ),
)
_KNOWN = {metric.name: metric for metric in METRICS}
_ORDER = {metric.name: place for place, metric in enumerate(METRICS)}


def metric_of(name: str) -> Metric:
    """Its declaration, or one for a name that nobody has declared."""
    return _KNOWN.get(name) or Metric(name, name.replace("_", " ").capitalize(), "")


def in_order(name: str) -> tuple[int, str]:
    return _ORDER.get(name, len(_ORDER)), name
