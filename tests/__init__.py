import multiprocessing
import os
import tempfile

# Read once, when huggingface_hub is imported; tests publish as workers do, to a Hub without Xet.
os.environ["HF_HUB_DISABLE_XET"] = "1"
# Downloads of tests stay out of the cache of whoever runs them; conftest removes them. Processes that tests start have
# their parent's.
HOME: tempfile.TemporaryDirectory[str] | None = None
if multiprocessing.parent_process() is None:
    HOME = tempfile.TemporaryDirectory(prefix="publisher-tests-")
    os.environ["HF_HOME"] = HOME.name
