"""Nobody waits for a Hub that no test reaches: huggingface_hub sleeps for 23 seconds between its tries."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from huggingface_hub.utils import _http


@pytest.fixture(autouse=True)
def _away_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
