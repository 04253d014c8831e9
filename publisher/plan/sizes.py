"""Bytes of files and memory, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from math import ceil, prod

from publisher.architecture.geometry import Geometry, LayerWidths
from publisher.architecture.sparsity import is_projection, kept_weights, pattern_of, sparse_matrices
from publisher.architecture.structure import LayerKind, Shape, TensorSpec
from publisher.recipe import Quantization, Recipe, Scheme, Storage

GIB = 2**30

BF16 = 2  # bytes
FP32 = 4
#: bitsandbytes' defaults: one 8-bit scale per 64 weights, and per 256 of those scales one fp32 scale
NF4_BLOCK, NF4_NESTED_BLOCK = 64, 256
#: fp32 values of 4-bit and of 8-bit numbers, which it keeps beside every weight. A note of about 170 bytes of JSON,
#: whose length depends on the weights, stands there as well and is not counted
NF4_TABLES = (16 + 256) * FP32
#: of a weight, with its share of the scales
_NF4_BYTES = 1 / 2 + 1 / NF4_BLOCK + FP32 / NF4_BLOCK / NF4_NESTED_BLOCK
#: reference adapter that memory and costs are stated for
LORA_RANK, LORA_TOKENS = 8, 512

Widths = Sequence[LayerWidths]


def checkpoint_bytes(geometry: Geometry, widths: Widths, recipe: Recipe, weight_bytes: int = BF16) -> int:
    """Size of what is published: weights, of `weight_bytes` each where they are not in NF4, and masks of weights."""
    size = loaded_bytes(geometry, widths, recipe.quantization, weight_bytes)
    if recipe.pruning.method.removes_units:
        return size
    shapes = sparse_matrices(geometry, recipe.pruning).values()
    if recipe.pruning.storage is Storage.COMPRESSED:
        ratio, pattern = recipe.pruning.ratio, pattern_of(recipe.pruning)
        size -= weight_bytes * sum(prod(shape) - kept_weights(shape, ratio, pattern) for shape in shapes)
    return size + _mask_bytes(shapes)


def loaded_bytes(geometry: Geometry, widths: Widths, quantization: Quantization, weight_bytes: int = BF16) -> int:
    """Weights in memory, zeros written out: linear layers of the decoder in NF4 if asked for, embeddings and LM head
    too if they are included, the rest as they are. Of `bf16_share` it is the most that it can come to."""

    def size(name: str, spec: TensorSpec, shape: Shape) -> int:
        return _nf4_bytes(prod(shape)) if is_projection(name, spec) else prod(shape) * weight_bytes

    if quantization.scheme is Scheme.NONE:
        return geometry.parameters(widths) * weight_bytes
    included = vocabulary_names(geometry) if quantization.include_embeddings else []
    outside = sum(
        _nf4_bytes(prod(shape)) if name in included else prod(shape) * weight_bytes
        for name, shape in geometry.outside.items()
    )
    linear = _over_layers(geometry, widths, lambda name, spec, shape: prod(shape) * is_projection(name, spec))
    more = quantization.bf16_share * linear * (weight_bytes - _NF4_BYTES)
    return outside + _over_layers(geometry, widths, size) + int(more)


def vocabulary_names(geometry: Geometry) -> list[str]:
    """Embeddings, and the LM head unless it is tied to them."""
    shapes = geometry.outside.items()
    return [name for name, shape in shapes if len(shape) == 2 and shape[0] == geometry.vocab_size]


def head_name(geometry: Geometry) -> str | None:
    """Of the LM head's tensor, which is the embeddings' own when they are tied."""
    names = vocabulary_names(geometry)
    decoder = geometry.layer_prefix.partition(".")[0] + "."
    outside = [name for name in names if not name.startswith(decoder)]
    return next(iter(outside or names), None)


def _nf4_bytes(weights: int) -> int:
    scales = ceil(weights / NF4_BLOCK)
    return ceil(weights / 2) + scales + ceil(scales / NF4_NESTED_BLOCK) * FP32 + NF4_TABLES


def lora_memory(geometry: Geometry, widths: Widths, recipe: Recipe) -> int:
    """Bytes to train the reference adapter on a checkpoint of these widths."""
    weights = loaded_bytes(geometry, widths, recipe.quantization)
    return weights + adapter_memory(geometry, widths) + masking_memory(geometry, recipe)


def lora_memory_on_base(geometry: Geometry) -> int:
    """The same on the base model in bf16."""
    return geometry.parameters() * BF16 + adapter_memory(geometry, geometry.full_widths)


def adapter_memory(geometry: Geometry, widths: Widths) -> int:
    """Adapter weights with gradient and AdamW moments in fp32, and activations."""

    def both_sides(name: str, spec: TensorSpec, shape: Shape) -> int:
        return sum(shape) if is_projection(name, spec) else 0

    weights = LORA_RANK * _over_layers(geometry, widths, both_sides)
    return weights * 4 * FP32 + _activations(geometry, widths, LORA_TOKENS)


def masking_memory(geometry: Geometry, recipe: Recipe) -> int:
    """What masking an adapter's update takes besides: a bit per weight, and one matrix's update with its gradient."""
    if recipe.pruning.method.removes_units:
        return 0
    shapes = sparse_matrices(geometry, recipe.pruning).values()
    return _mask_bytes(shapes) + 2 * max(map(prod, shapes), default=0) * FP32


def masking_bytes(geometry: Geometry, recipe: Recipe) -> int:
    """A bit per weight where weights are masked; units that stay are counted in a few KiB."""
    if recipe.pruning.method.removes_units:
        return 0
    return _mask_bytes(sparse_matrices(geometry, recipe.pruning).values())


def _mask_bytes(shapes: Iterable[Shape]) -> int:
    return sum(rows * ceil(columns / 8) for rows, columns in shapes)


def working_parameters(geometry: Geometry, widths: Widths) -> int:
    """Parameters that work on one token: of a layer's experts those that the router picks."""
    resting = 0
    for kind, width in zip(geometry.kind_of, widths, strict=True):
        if width.experts:
            experts = _expert_weights(geometry.kinds[kind])
            resting += experts * (width.experts - geometry.experts_per_token)
    return geometry.parameters(widths) - resting


def _expert_weights(kind: LayerKind) -> int:
    """Of one expert."""
    return sum(prod(spec.shape) for spec in kind.tensors.values() if spec.expert == 0)


def _activations(geometry: Geometry, widths: Widths, tokens: int) -> int:
    """With checkpointing: every layer's input, one layer's inside, and a chunk of logits in fp32."""
    widest = max(layer_outputs(geometry, kind, width) for kind, width in _distinct(geometry, widths))
    inputs = geometry.layers * geometry.hidden_size
    inside = 2 * widest + 4 * geometry.hidden_size
    return tokens * (inputs + inside) * BF16 + tokens * geometry.vocab_size * FP32 * 2


def layer_outputs(geometry: Geometry, kind: LayerKind, width: LayerWidths) -> int:
    """What a layer's linear maps put out for one token, together."""
    at_work = set(range(geometry.experts_per_token))
    return sum(
        spec.pruned_shape(width.counts)[0]
        for name, spec in kind.tensors.items()
        if is_projection(name, spec) and (spec.expert is None or spec.expert in at_work)
    )


def _over_layers(geometry: Geometry, widths: Widths, size: Callable[[str, TensorSpec, Shape], int]) -> int:
    """Sum of `size(name, spec, shape)` over all that transformers has as parameters of layers of these widths.

    It fuses experts into one tensor, which is no linear layer; files have them one by one.
    """

    @cache
    def of_layer(kind: int, width: LayerWidths) -> int:
        return sum(size(name, spec, shape) for name, spec, shape in _parameters(geometry.kinds[kind], width))

    return sum(of_layer(kind, width) for kind, width in zip(geometry.kind_of, widths, strict=True))


def _parameters(kind: LayerKind, width: LayerWidths) -> Iterator[tuple[str, TensorSpec, Shape]]:
    for name, spec in kind.parameters.items():
        if spec.expert is None or spec.expert < width.experts:
            yield name, spec, spec.pruned_shape(width.counts)


def layer_shapes(kind: LayerKind, width: LayerWidths) -> list[Shape]:
    """Of all that transformers has as parameters of such a layer."""
    return [shape for _, _, shape in _parameters(kind, width)]


def _distinct(geometry: Geometry, widths: Widths) -> Iterator[tuple[LayerKind, LayerWidths]]:
    for kind, width in set(zip(geometry.kind_of, widths, strict=True)):
        yield geometry.kinds[kind], width
