"""What a variant is made by, as data. These names are pydantic models, enums and numbers, and load nothing heavier."""

from publisher.recipe.alignment import Alignment, Exhausted, Objective, Stop, Trainable
from publisher.recipe.criteria.spec import Criterion, PruningMethod
from publisher.recipe.evaluation import STRENGTH_TOKENS, STRENGTHS, Evaluation, ProbeBudget
from publisher.recipe.optimizers.spec import Optimizer
from publisher.recipe.parts import CorpusName, WeightedCorpus
from publisher.recipe.pruning import Calibration, Layout, Pattern, Pruning, Scope, Storage
from publisher.recipe.quantization import CHOOSING_TOKENS, Quantization, Scheme
from publisher.recipe.recipe import Recipe
from publisher.recipe.stages import Stage

__all__ = [
    "CHOOSING_TOKENS",
    "STRENGTHS",
    "STRENGTH_TOKENS",
    "Alignment",
    "Calibration",
    "CorpusName",
    "Criterion",
    "Evaluation",
    "Exhausted",
    "Layout",
    "Objective",
    "Optimizer",
    "Pattern",
    "ProbeBudget",
    "Pruning",
    "PruningMethod",
    "Quantization",
    "Recipe",
    "Scheme",
    "Scope",
    "Stage",
    "Stop",
    "Storage",
    "Trainable",
    "WeightedCorpus",
]
