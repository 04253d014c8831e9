"""Loss on text that is not trained on, by the same objective and in the same parts as training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from publisher.corpus.source import Split
from publisher.errors import RequestFault
from publisher.recipe.parts import split_by_weight
from worker.models.device import is_gpu
from worker.models.measure import compute_dtype
from worker.text.packing import WeightedSource, pack_tokens
from worker.training.batch_loss import BatchLoss, rows_at_once

#: Tokens that are measured, at most: four optimizer steps' worth at the default batch, without their backward passes.
TOKENS = 16_384


@torch.no_grad()
def mean_loss(model: PreTrainedModel, batch_loss: BatchLoss, sequences: Tensor, pause: Callable[[], None]) -> float:
    """Nats per scored position of `sequences` (rows, length), without dropout; `pause` is called before each part."""
    was_training, device = model.training, model.device
    model.eval()
    try:
        total = 0.0
        for part in torch.split(sequences, rows_at_once(device, sequences.shape[1])):
            pause()
            with torch.autocast(device.type, compute_dtype(device), enabled=is_gpu(device)):
                total += float(batch_loss(model, part.to(device)))
        return total / batch_loss.positions(sequences)
    finally:
        model.train(was_training)


def held_out_sequences(
    corpora: Sequence[WeightedSource], tokenizer: PreTrainedTokenizerBase, sequence_length: int
) -> Tensor:
    """Held-out text of `corpora` by their weights: int32, (at most TOKENS tokens' rows, sequence_length).

    Raises RequestFault if it does not fill one sequence.
    """
    count = max(1, TOKENS // sequence_length)
    shares = split_by_weight(count, [corpus.weight for corpus in corpora])
    packed = torch.cat(
        [
            pack_tokens(corpus.source.documents(Split.HELD_OUT), tokenizer, sequence_length, share)
            for corpus, share in zip(corpora, shares, strict=True)
        ]
    )
    if not len(packed):
        names = ", ".join(corpus.source.name for corpus in corpora)
        raise RequestFault(
            f"the held-out documents of {names} do not fill one sequence of {sequence_length} tokens.",
            field="recipe.alignment.stop",
            way_out='Register a corpus with a larger held_out_fraction, or set alignment.stop to "end".',
        )
    return packed
