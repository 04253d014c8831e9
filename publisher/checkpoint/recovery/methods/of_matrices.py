"""Additive methods whose parts do not belong to single rows and columns: their realised change is the update itself."""

from __future__ import annotations

from publisher.checkpoint.recovery.changes import Together
from publisher.checkpoint.recovery.method import AdapterMethod
from publisher.checkpoint.recovery.methods.matrix_method import of_matrices
from publisher.checkpoint.recovery.written_by import refuse_unseeded

_SHARED = "its random matrices are shared and cut to each module's width, so that a row's number decides what it gets"

OF_MATRICES: tuple[AdapterMethod, ...] = (
    of_matrices("LOKR", "LoKr", ".lokr_", why="a Kronecker product ties every row to the rows beside it"),
    of_matrices("VERA", "VeRA", ".vera_", why=_SHARED, together=Together.SHAPES),
    of_matrices("PVERA", "PVeRA", ".pvera_", why=_SHARED, together=Together.SHAPES),
    of_matrices("RANDLORA", "RandLoRA", ".randlora_", why=_SHARED, together=Together.SHAPES),
    of_matrices("C3A", "C3A", ".c3a_", why="circulant blocks have one value in many rows"),
    of_matrices("GRALORA", "GraLoRA", ".gralora_", why="its blocks are of neighbouring rows and columns"),
    of_matrices("FOURIERFT", "FourierFT", ".fourierft_", why="a frequency is in every row and column"),
    of_matrices("WAVEFT", "WaveFT", ".waveft_", why="a wavelet is in many rows and columns"),
    of_matrices(
        "SHIRA", "SHiRA", ".shira_", indices=(".shira_indices",),
        why="it has as many entries as the module's width gives, and the base model's is another",
    ),
    of_matrices(
        "VBLORA", "VB-LoRA", ".vblora_", indices=("_topk_indices",),
        why="its vectors are of neighbouring rows, and shared by all modules",
    ),
    of_matrices(
        "TINYLORA", "TinyLoRA", ".tinylora_", together=Together.WEIGHTS,
        why="it moves along singular vectors of the checkpoint's weights",
    ),
    of_matrices(
        "UNILORA", "UniLoRA", ".unilora_", together=Together.SHAPES, indices=(".unilora_indices",),
        why="every entry of A and B is a shared number, drawn by its place",
    ),
    of_matrices("DELORA", "DeLoRA", ".delora_", why="it is scaled by norms of the checkpoint's columns, saved with it"),
    of_matrices(
        "ADAMSS", "AdaMSS", ".adamss_", refuse=refuse_unseeded,
        why="its subspaces are clusters of the rows of the checkpoint's singular vectors",
    ),
    of_matrices("PEANUT", "PEANuT", ".peanut_", why="a small network reads the weight to make the update",
                on_weights="its network reads the checkpoint's weight"),
    of_matrices(
        "FROD", "FRoD", ".frod_", together=Together.WEIGHTS, indices=(".frod_s_indices", ".frod_s_size"),
        why="its matrices come from all layers' weights at once", on_weights="its bases come from the weights",
    ),
    of_matrices(
        "SUPERTUNING", "Super-Tuning", ".supertuning_", indices=(".supertuning_indices",),
        why="it trains as many entries as its sparsity gives, and the base model has more",
    ),
)  # fmt: skip
