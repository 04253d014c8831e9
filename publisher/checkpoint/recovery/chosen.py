"""How an adapter is to end, where that is not left to its method."""

from __future__ import annotations

from dataclasses import dataclass

from publisher.checkpoint.pruning_masks import PruningMasks
from publisher.checkpoint.recovery.method import AdapterMethod, Update
from publisher.errors import RequestFault

#: Share of a change's norm that rounding to fp32 may take.
EXACT = 1e-5


@dataclass(frozen=True)
class Chosen:
    """`rank`: as a LoRA of it; `merge`: in the base model; `strict`: as the trained update exactly, or not at all."""

    rank: int | None = None
    merge: bool = False
    strict: bool = False

    def ends_as_adapter(self, method: AdapterMethod, masks: PruningMasks) -> bool:
        return not self.merge and (self.rank is not None or method.ends_as_adapter(masks))

    def refuse_contradiction(self, method: AdapterMethod) -> None:
        if self.merge and self.rank is not None:
            raise RequestFault(
                "A merged model has no rank.", field="rank", way_out="Give either --rank or --merge, not both."
            )
        if self.strict and method.on_weights:
            raise RequestFault(
                f"What was trained with {method.title} depends on the weights it was trained on ({method.on_weights}), "
                "and the base model's are others: --strict refuses it.",
                way_out="Recover it without --strict, or train a LoRA.",
            )

    def refuse_lossy(self, update: Update) -> None:
        if self.strict and update.left_out > EXACT:
            raise RequestFault(
                f"The LoRA would leave out {update.left_out:.2%} of what was trained: --strict refuses it.",
                field="rank",
                way_out="Give a higher --rank, or --merge.",
            )


BY_THE_METHOD = Chosen()
