"""What config.json says to whoever loads a checkpoint with transformers alone.

transformers 4.57 knows nothing of layers with widths of their own and loads 4-bit ones of other widths without a word;
5.15 and 5.23 refuse them with advice that makes it worse. All of them read `transformers_weights`, the name of the
weights' file, before any weight, and say its value where it names none: so the value says what is missing.
`allow_global_per_layer_attribute_access` lets them read the config, which the tokenizer needs. Both are for others:
with this package loaded, configs are without them (loader.py), and what is saved has them again. docs/loading.md has
what each version shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: what transformers calls the file that holds the weights; what it calls reading the base model's widths from a config
FILE_KEY, ACCESS_KEY = "transformers_weights", "allow_global_per_layer_attribute_access"
#: where transformers keeps what differs per layer, in config.json
PER_LAYER = "per_layer_config"
#: how `quantization_config.quant_method` begins where only this package can load the weights
OWN_METHODS = "loram_"
NOTICE = (
    "transformers alone cannot load this checkpoint. Install the package loram-publisher from where this checkpoint's "
    "README.md says, then `import publisher.checkpoint` before you load it"
)


def needs_package(config: Mapping[str, Any]) -> bool:
    """Whether transformers alone would refuse or misread the weights of a model with this config.json."""
    quantization = config.get("quantization_config") or {}
    return bool(config.get(PER_LAYER)) or str(quantization.get("quant_method")).startswith(OWN_METHODS)


def with_notice(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` as it is written to config.json: with the notice where it is needed, and never without need."""
    plain = without_notice(config)
    if not needs_package(plain):
        return plain
    return plain | {FILE_KEY: NOTICE} | ({ACCESS_KEY: True} if plain.get(PER_LAYER) else {})


def without_notice(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` as this package reads it. What others wrote under the same names stays."""
    if config.get(FILE_KEY) != NOTICE:
        return dict(config)
    return {key: value for key, value in config.items() if key not in (FILE_KEY, ACCESS_KEY)}
