"""Methods whose update depends on the weight that it is trained on: on the base model it is what it did to the
checkpoint's. Rotations of a matrix that lost rows, products with it, and what replaces parts of it."""

from __future__ import annotations

from publisher.checkpoint.recovery.method import AdapterMethod
from publisher.checkpoint.recovery.methods.bone import BONE, multiplies
from publisher.checkpoint.recovery.methods.matrix_method import of_matrices

_ROTATES = "it rotates the weight, and the base model's has rows or columns that the rotation never met"
_REPEATED = "its block is repeated over neighbouring columns"
_MULTIPLIES = "it multiplies the weight's own entries"

OF_WEIGHTS: tuple[AdapterMethod, ...] = (
    of_matrices("MISS", "MiSS", ".miss_", why=_REPEATED, covers=multiplies, variant="init_weights=bat",
                on_weights="its block multiplies the weight and is added to it"),
    of_matrices("MISS", "MiSS", ".miss_", why=_REPEATED),
    *BONE,
    of_matrices("OFT", "OFT", ".oft_", why="its blocks are of neighbouring columns", on_weights=_ROTATES),
    of_matrices("BOFT", "BOFT", ".boft_", why="its butterflies are of columns by number", on_weights=_ROTATES),
    of_matrices("HRA", "HRA", ".hra_", why="it reflects the whole of a row", on_weights=_ROTATES),
    of_matrices("HIRA", "HiRA", ".hira_", why=_MULTIPLIES, on_weights=_MULTIPLIES),
    of_matrices("PSOFT", "PSOFT", ".psoft_", why=_ROTATES, on_weights="it turns the weight's own singular vectors"),
    of_matrices("OSF", "OSF", ".osf_", why="it replaces small singular vectors of the checkpoint's weight",
                on_weights="it replaces singular vectors of the weight"),
    of_matrices("ROAD", "RoAd", ".road_", why="it rotates neighbouring rows in groups", on_weights=_ROTATES),
    of_matrices("GLORA", "GLoRA", ".glora_", why=_MULTIPLIES, on_weights=_MULTIPLIES),
    of_matrices("DEFT", "DEFT", ".deft_", why="it takes a subspace of rows out of the weight",
                on_weights="it takes a subspace out of the weight"),
)  # fmt: skip
