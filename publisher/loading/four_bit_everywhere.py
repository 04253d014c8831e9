"""NF4 of embeddings and LM head too, in transformers: what a checkpoint with `include_embeddings` says of itself.

transformers' bitsandbytes quantizer replaces linear layers alone, and not the head, whose weight is often that of the
embeddings. This one, named by `quantization_config` in config.json, is the same for all else; modules in
four_bit_modules. To tools that ask (PEFT, Trainer) the loaded model is an ordinary bitsandbytes one.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizers_utils import get_module_from_name
from transformers.utils.quantization_config import QuantizationMethod

#: `quantization_config.quant_method` in config.json
METHOD = "loram_nf4"


def register() -> None:
    """Make transformers load such checkpoints. Idempotent."""
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(FourBitEverywhereConfig)
        register_quantizer(METHOD)(FourBitEverywhereQuantizer)


class FourBitEverywhereConfig(BitsAndBytesConfig):  # type: ignore[misc]
    """NF4 with double quantization, of embeddings and LM head as well.

    Takes `bnb_4bit_compute_dtype`, and `llm_int8_skip_modules`: names of linear layers that stay as they are.
    """

    def __init__(
        self, bnb_4bit_compute_dtype: Any = "bfloat16", llm_int8_skip_modules: list[str] | None = None, **unused: Any
    ) -> None:
        super().__init__(
            load_in_4bit=True,
            llm_int8_skip_modules=llm_int8_skip_modules or [],
            bnb_4bit_compute_dtype=bnb_4bit_compute_dtype,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
        )
        self.quant_method = METHOD

    def to_dict(self) -> dict[str, Any]:
        """Without `load_in_4bit`, by which transformers would take it for bitsandbytes' own."""
        return {
            "quant_method": METHOD,
            "bnb_4bit_compute_dtype": str(self.bnb_4bit_compute_dtype).removeprefix("torch."),
            "llm_int8_skip_modules": self.llm_int8_skip_modules,
        }


class FourBitEverywhereQuantizer(Bnb4BitHfQuantizer):  # type: ignore[misc]
    """Linear layers as bitsandbytes has them, then embeddings and head."""

    def _process_model_before_weight_loading(self, model: PreTrainedModel, device_map: Any, **kwargs: Any) -> None:
        from publisher.loading.four_bit_modules import make_head, make_table

        super()._process_model_before_weight_loading(model, device_map, **kwargs)
        make_table(model.get_input_embeddings())
        make_head(model.get_output_embeddings())
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES

    def param_needs_quantization(self, model: PreTrainedModel, param_name: str, **kwargs: Any) -> bool:
        from publisher.loading.four_bit_modules import FourBitTable

        module, name = get_module_from_name(model, param_name)
        table: bool = isinstance(module, FourBitTable) and name == "weight"
        return table or super().param_needs_quantization(model, param_name, **kwargs)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **kwargs: Any) -> PreTrainedModel:
        from publisher.loading.four_bit_modules import share_if_tied

        embedding = model.get_input_embeddings()
        share_if_tied(embedding, model.get_output_embeddings())
        _initialize_buffers(model, embedding)
        processed: PreTrainedModel = super()._process_model_after_weight_loading(model, **kwargs)
        return processed


def _initialize_buffers(model: PreTrainedModel, embedding: Any) -> None:
    """What families scale embeddings with: a module that got a 4-bit weight counts as initialized, buffers and all."""
    if any(True for _ in embedding.buffers(recurse=False)):
        embedding.weight._is_hf_initialized = True
        with torch.no_grad():
            model._init_weights(embedding)
