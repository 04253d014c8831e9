"""What somebody needs who only uses checkpoints: the published format rests on nothing of the service."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import publisher.checkpoint

SERVICE = {"api", "app", "client", "dashboard", "hub", "jobs", "plan", "settings", "store"}


def test_the_published_format_imports_nothing_of_the_service() -> None:
    modules = [module.name for module in pkgutil.walk_packages(publisher.checkpoint.__path__, "publisher.checkpoint.")]
    assert len(modules) > 20
    code = (
        f"import importlib, json, sys; [importlib.import_module(name) for name in {modules}]; "
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in ('publisher', 'worker')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in loaded if name.startswith("worker")] == []
    assert [name for name in loaded if set(name.split(".")[1:2]) & SERVICE] == []
