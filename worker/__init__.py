"""What runs on GPU machines."""

import os

# huggingface_hub decides on Xet alone, when it is imported; a Hub without Xet then takes no upload (DESIGN 5.6).
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
