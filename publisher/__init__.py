"""LoRAM publisher: prune, align, quantize and publish large models that LoRA adapters recover onto."""

__version__ = "0.1.0"

#: For the environment of processes that compute on a CPU, before torch is loaded: threads that wait for each other
#: sleep. OpenMP lets them spin, and beside one other busy process two threads then got 16 iterations of an MLP's
#: products done in a second instead of 52; on a quiet machine 86 and 84 to 102.
IDLE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
