"""LoRAM publisher: prune, align, quantize and publish large models that LoRA adapters recover onto."""

__version__ = "0.1.0"
