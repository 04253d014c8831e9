"""What runs on GPU machines."""

import logging
import os
import warnings

from publisher import IDLE_THREADS

# Read once, when torch loads OpenMP: what computes here imports this package first, and hands it on to its children.
for _name, _value in IDLE_THREADS.items():
    os.environ.setdefault(_name, _value)

# huggingface_hub decides on Xet alone, when it is imported; a Hub without Xet then takes no upload (DESIGN 5.6).
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

# On CPUs with bf16 instructions bitsandbytes asks for a kernel that it would download; it works without. Filtered here
# and not only by publisher.checkpoint, since PEFT may import bitsandbytes first.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward from kernels-community" not in record.getMessage()
)

# There it also compiles what unpacks a matrix, once for each width. torch gives up after eight, which joint pruning's
# checkpoints have more of, and unpacks the rest uncompiled: slower (1.3 instead of 0.5 ms for 576 x 555), on CPUs
# alone, and users can do nothing about it.
logging.getLogger("torch._dynamo.convert_frame").addFilter(
    lambda record: "_dequantize_4bit_compute" not in record.getMessage()
)

# PEFT asks for it by the name that transformers is about to drop.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
