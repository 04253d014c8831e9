"""PEFT's names of an adapter's tensors: which are parts of an update, which whole parameters, and of which module."""

from __future__ import annotations

from dataclasses import dataclass

PEFT_PREFIX = "base_model.model."
TOKENS = ".trainable_tokens_delta"


@dataclass(frozen=True)
class Naming:
    """Of one adapter method. `marks`: what the name of a part of an update has and no other name: `.lora_`.

    A mark stands behind the name of the module that it adapts; what belongs to no module may begin with one.
    `indices`: marks of the parts that are whole numbers: where in a matrix the trained values are.
    """

    marks: tuple[str, ...]
    indices: tuple[str, ...] = ()

    def is_whole(self, name: str) -> bool:
        """Whether a tensor is a value of its own (modules_to_save, norms, trained tokens), not part of an update."""
        return not any(mark in name for mark in self.marks)

    def adapted(self, name: str) -> str:
        """The module that a part of an update adapts, with PEFT's prefix."""
        for mark in self.marks:
            name = name.partition(mark)[0]
        return name

    def module_of(self, name: str) -> str:
        """The module in the model whose tensor PEFT's `name` is."""
        whole = path = name.removeprefix(PEFT_PREFIX)
        for mark in (*self.marks, ".token_adapter.", ".base_layer."):
            path = path.partition(mark)[0]
        return path if path != whole else path.rpartition(".")[0]

    def parameter_of(self, name: str) -> str:
        """The model's parameter that a whole tensor replaces, of all rows or of some tokens."""
        if name.endswith(TOKENS):
            return f"{self.module_of(name)}.weight"
        if not self.is_whole(name):  # of methods that train a copy of the parameter
            return f"{self.module_of(name)}.{name.rpartition('.')[2]}"
        path = name.removeprefix(PEFT_PREFIX).replace(".token_adapter.", ".")
        return path.replace(".base_layer.", ".")
