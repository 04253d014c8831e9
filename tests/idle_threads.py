"""Ends processes where they are about to load torch, and tells what they have for a policy of waiting threads then.

By a module that Python imports at the start of each, from a folder of the test.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

_SITE = """
import json, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            said = {"process": sys.argv, "policy": os.environ.get("OMP_WAIT_POLICY")}
            with open(os.environ["TORCH_WATCH"], "a") as log:
                log.write(json.dumps(said) + "\\n")
            os._exit(3)
        return None

sys.meta_path.insert(0, Watch())
"""


def watching(folder: Path) -> dict[str, str]:
    """This process's environment, without a policy, for processes that end where they would load torch."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_SITE)
    path = os.pathsep.join(filter(None, [str(folder / "site"), str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return kept | {"PYTHONPATH": path, "TORCH_WATCH": str(folder / "torch.jsonl")}


def policies(folder: Path) -> list[str | None]:
    """OMP_WAIT_POLICY in each process that was about to load torch."""
    lines = (folder / "torch.jsonl").read_text().splitlines()
    return [json.loads(line)["policy"] for line in lines]
