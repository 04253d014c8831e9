"""Prometheus' own tool, which evaluates rules on series that a test gives it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "docker" / "prometheus" / "alerts.yml"
#: evaluated every minute
Series = Mapping[str, str]


def promtool(*arguments: str) -> str:
    """What it prints; AssertionError with that if it finds something wrong."""
    program = shutil.which("promtool") or str(ROOT / ".venv" / "bin" / "promtool")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refuse_unless(folder: Path, series: Series, fires: Mapping[str, bool], *, at: str = "2h") -> None:
    """AssertionError unless these alerts fire, or do not, `at` this time. `series`: selector → promtool's values."""
    expected = [
        {
            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) > bool 0',
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": 1}] if does else [],
        }
        for alert, does in fires.items()
    ]
    test = {
        "interval": "1m",
        "input_series": [{"series": selector, "values": values} for selector, values in series.items()],
        "promql_expr_test": expected,
    }
    file = folder / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", str(file))
