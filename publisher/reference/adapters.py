"""docs/adapters.md: what becomes of each adapter method, from the register that recovery walks over."""

from __future__ import annotations

from publisher.checkpoint.recovery.chosen import EXACT
from publisher.checkpoint.recovery.method import AdapterMethod, Ending
from publisher.checkpoint.recovery.methods import METHODS
from publisher.checkpoint.recovery.methods.lora import REFUSED_OPTIONS
from publisher.checkpoint.recovery.truncation import CAP, NEAR
from publisher.reference.markdown import page, table

_INTRODUCTION = f"""
What is trained on a checkpoint, in whatever way PEFT knows, and what `publisher recover` makes of it for the base
model. Each method ends in one of these ways:

- **{Ending.EXACT}**: every factor is put back at the kept rows and columns, and what changes nothing stands between.
  Where single weights were pruned the update is masked and merged into the base model.
- **{Ending.REALISED}**: what the adapter makes of each of the checkpoint's matrices, by PEFT's own code, one module in
  memory at a time, put back at the kept places. It becomes a LoRA: of rank `--rank`, or of the lowest that leaves out
  at most {NEAR:.1%} of the change's norm in every matrix, up to {CAP}. The report states what is left out, which is
  the least that this rank can (singular value decomposition). With `--merge`, and where single weights were pruned,
  it is merged into a copy of the base model instead, and nothing is left out.
- **{Ending.PASSED}**: nothing of it lies where pruning took something.
- **{Ending.REFUSED}**: by name, with the reason.

`--rank` and `--merge` are for every method that changes matrices, LoRA too. **`--strict`** refuses what is not exactly
the trained update: methods that depend on the weights they were trained on, since the base model's are others (else
it is carried over with a note), and a LoRA that leaves out more than {EXACT * 100:g}% of the change's norm.

Of methods whose modules share matrices that are made from all layers' weights (FRoD, TinyLoRA) the adapted matrices of
the whole checkpoint are in memory at once.

A LoRA on linear layers and embeddings, a tuned copy and what is merged need neither PEFT nor transformers installed:
the package alone recovers them. All else asks PEFT's own code, and names the extra that brings it.
"""

_AFTER = """
## Beside adapters

`publisher recover --from-merged DIR` takes a fine-tuned copy of the checkpoint, whatever made it (full fine-tuning,
adapters that were merged, an average of several): its difference to the checkpoint, one tensor at a time, is merged
into the base model, or with `--rank` made a LoRA whose report says what it lacks. Copies in 4 bits, with other tensors
or shapes, without a difference or far from the checkpoint are refused by name. Of a checkpoint in 4 bits the copy is
`model.dequantize()`, trained and saved. Save it in fp32 if you train little: rounding a whole copy to bf16 is a change
of every weight, which a LoRA of low rank cannot hold, and its report then says that most of the difference is lost.

`publisher merge BASE ADAPTER OUTPUT` merges an adapter that was recovered into a copy of the base model, one tensor in
memory at a time; the output appears when it is whole. A disk too small for it is refused before anything is written;
what is stopped by Ctrl-C or a full disk leaves nothing. After `kill -9` or a power failure a hidden folder `.OUTPUT.…`
stays beside it: delete that.

Parameters that an adapter holds whole (`modules_to_save`, norms, embeddings, trained tokens) are recovered as
differences to the checkpoint's own, whatever the method.
"""


def adapters_page() -> str:
    lines = [_line(method) for method in sorted(METHODS.values(), key=lambda method: method.title.lower())]
    head = ["method", "`peft_type`", "becomes", "because", "`--strict`"]
    options = [[f"`{option}`", reason] for option, reason in REFUSED_OPTIONS.items()]
    return page(
        "Adapter methods",
        _INTRODUCTION,
        "## Methods",
        table(head, lines),
        "## Options of LoRA that are refused",
        table(["option", "because"], options),
        _AFTER,
    )


def _line(method: AdapterMethod) -> list[str]:
    variant = f", `{method.variant}`" if method.variant else ""
    return [method.title, f"`{method.peft_type}`{variant}", method.ending, method.why, _strict(method)]


def _strict(method: AdapterMethod) -> str:
    if method.on_weights:
        return f"refuses it: {method.on_weights}"
    return "refuses a LoRA that leaves something out" if method.ending is Ending.REALISED else ""
