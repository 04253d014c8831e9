import os
import tempfile

# Read once, when huggingface_hub is imported; tests publish as workers do, to a Hub without Xet.
os.environ["HF_HUB_DISABLE_XET"] = "1"
# TRL would count the trainings of tests, at a Hub that they do not reach
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# Downloads of tests stay out of the cache of whoever runs them, one folder for each of xdist's workers, which conftest
# removes. Processes that tests start, and may kill, have that of the worker that started them.
HOME: tempfile.TemporaryDirectory[str] | None = None
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
if os.environ.get("TESTS_HOME_OF") != _WORKER:
    HOME = tempfile.TemporaryDirectory(prefix="publisher-tests-")
    os.environ |= {"HF_HOME": HOME.name, "TESTS_HOME_OF": _WORKER}
