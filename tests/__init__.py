import os

# Read once, when huggingface_hub is imported; tests publish as workers do, to a Hub without Xet.
os.environ["HF_HUB_DISABLE_XET"] = "1"
