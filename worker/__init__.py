"""What runs on GPU machines."""

import logging
import os

# huggingface_hub decides on Xet alone, when it is imported; a Hub without Xet then takes no upload (DESIGN 5.6).
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

# On CPUs with bf16 instructions bitsandbytes asks for a kernel that it would download; it works without. Filtered here
# and not only by publisher.checkpoint, since PEFT may import bitsandbytes first.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward from kernels-community" not in record.getMessage()
)
