"""The demo's recipe and budgets, sized for two CPU cores."""

from __future__ import annotations

from publisher.recipe import Recipe

REPOSITORY = "demo/smollm2-135m-loram"
#: the downstream user's training: optimizer steps, sequences a step, tokens a sequence
STEPS, BATCH, LENGTH = 30, 4, 128
#: more than the novel's held-out documents have: all ten are read whole, by the certificate and by the user alike
HELD_OUT_TOKENS, WINDOW = 9216, 256

RECIPE = Recipe.model_validate(
    {
        "pruning": {
            "method": "structured",
            "criterion": "taylor",
            "ratio": 0.65,
            "protect_first": 3,
            "protect_last": 2,
            "calibration": {"corpus": "classics", "samples": 16, "sequence_length": 256},
        },
        "alignment": {
            "corpora": [{"name": "classics", "weight": 3}, {"name": "python-docs", "weight": 1}],
            "tokens": 16384,
            "sequence_length": 256,
            "batch_tokens": 1024,
            "learning_rate": 1e-4,
            "objective": "distillation",
        },
        "quantization": {"scheme": "nf4"},
        "evaluation": {
            "corpora": ["novel"],
            "probe": True,
            "tokens": HELD_OUT_TOKENS,
            "sequence_length": WINDOW,
            "probe_budget": {"steps": STEPS, "batch_size": BATCH, "sequence_length": LENGTH},
        },
    }
)
