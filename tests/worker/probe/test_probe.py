import subprocess
import sys

_PROGRAM = """
from transformers import LlamaConfig, LlamaForCausalLM

from worker.probe.probe import with_lora

config = LlamaConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
)
with_lora(LlamaForCausalLM(config), 2)
"""


def test_making_a_lora_says_nothing_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr == ""
