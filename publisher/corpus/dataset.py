"""Datasets of a Hub: pinned to a commit, and read in a process of their own.

The `datasets` library knows one Hub per process, by HF_ENDPOINT when it is imported. A child per reading gives each
the Hub of the settings, an empty working directory, and memory that is given back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from huggingface_hub import HfApi
from pydantic import BaseModel, ConfigDict, Field

from publisher.errors import HubUnavailable, InfrastructureFault, RequestFault
from publisher.hub_client.faults import Asked, hub_faults

REPO_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$"
DOCUMENTS, MOST_DOCUMENTS = 20_000, 1_000_000
_SECONDS = 20.0
_SHOWN_CHARACTERS = 400


class HubDataset(BaseModel):
    """The first `documents` rows of one split, at a commit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repo_id: str = Field(pattern=REPO_ID, max_length=200)
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="commit")
    config: str | None = Field(default=None, min_length=1, max_length=200)
    split: str = Field(default="train", min_length=1, max_length=200)
    documents: int = Field(default=DOCUMENTS, ge=1, le=MOST_DOCUMENTS)

    def __str__(self) -> str:
        return f"dataset {self.repo_id} at {self.revision[:12]}"


@dataclass(frozen=True)
class HubAccess:
    """`endpoint`: None is the Hub of the environment."""

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)

    def pin(self, repo_id: str, revision: str | None) -> str:
        """The commit that `revision` (None: the main branch) points to now."""
        api = HfApi(endpoint=self.endpoint, token=self.token or False)
        asked = Asked(
            repo_id,
            api.endpoint,
            "PUBLISHER_BASE_MODEL_TOKEN",
            kind="dataset",
            revision=revision,
            field="dataset",
            missing=RequestFault,
        )
        with hub_faults(asked):
            commit = api.dataset_info(repo_id, revision=revision, timeout=_SECONDS).sha
        if commit is None:
            raise RequestFault(f"dataset {repo_id} on {api.endpoint} has no commit.", field="dataset")
        return commit

    def read(
        self, dataset: HubDataset, text_field: str, *, first_only: bool = False, seconds: float | None = None
    ) -> Iterator[str]:
        """The texts of the dataset in its order, without blank ones; the first one only if asked.

        Raises RequestFault for what is wrong with the dataset, HubUnavailable if the Hub does not answer,
        InfrastructureFault if `seconds` have passed.
        """
        asked = dataset.model_dump() | {"text_field": text_field, "first_only": first_only, "token": self.token}
        with tempfile.TemporaryDirectory(prefix="dataset-") as folder, (Path(folder) / "stderr").open("w+") as errors:
            with _reading(self._environment(folder), folder, errors, seconds) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                json.dump(asked, process.stdin)
                process.stdin.close()
                for line in process.stdout:
                    said = json.loads(line)
                    if isinstance(said, str):
                        yield said
                    else:
                        _refuse(said)
                        return
                process.wait()
            raise _broken_off(dataset, errors, seconds)

    def _environment(self, folder: str) -> dict[str, str]:
        """What the library keeps lies in `folder`; no token but ours, and none of the service's secrets."""
        others = ("HF_TOKEN", "HF_TOKEN_PATH", "PUBLISHER_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
        endpoint = {"HF_ENDPOINT": self.endpoint} if self.endpoint else {}
        return (
            kept | endpoint | {"HF_HOME": folder, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        )


@contextmanager
def _reading(
    environment: dict[str, str], folder: str, errors: IO[str], seconds: float | None
) -> Iterator[subprocess.Popen[str]]:
    """The child, gone when the block is left."""
    empty = Path(folder) / "empty"  # a folder named like the dataset would be read in its stead
    empty.mkdir()
    command = [sys.executable, "-m", "publisher.corpus.dataset_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, cwd=empty, text=True
    ) as process:
        timer = threading.Timer(seconds, process.kill) if seconds is not None else None
        if timer is not None:
            timer.start()
        try:
            yield process
        finally:
            if timer is not None:
                timer.cancel()
            process.kill()


def _refuse(said: dict[str, Any]) -> None:
    """The child's last word: either that all was read, or whose fault it is that it was not."""
    if "message" not in said:
        return
    words = {"field": said.get("field"), "way_out": said.get("way_out")}
    if said["blame"] == "hub":
        raise HubUnavailable(said["message"], retry_after=said.get("retry_after"), **words)
    raise (RequestFault if said["blame"] == "request" else InfrastructureFault)(said["message"], **words)


def _broken_off(dataset: HubDataset, errors: IO[str], seconds: float | None) -> InfrastructureFault:
    errors.seek(0)
    # of a traceback the last line is the error; where it was raised is nobody's business outside
    last = (errors.read().strip().splitlines() or [""])[-1].strip()[:_SHOWN_CHARACTERS]
    within = f" or took more than {seconds:g} s" if seconds is not None else ""
    return InfrastructureFault(
        f"reading {dataset} was broken off{within}: {last or 'the process was killed'}.", way_out="Try again."
    )
