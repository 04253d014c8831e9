"""Files of a pinned Hub commit into a folder: resumable, with progress, stopped by a cancel."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils.tqdm import tqdm

from publisher.errors import InfrastructureFault
from worker.context import StageContext
from worker.request import BaseModelSource


def download(base: BaseModelSource, sizes: Mapping[str, int], folder: Path, context: StageContext) -> dict[str, str]:
    """Download the files named by `sizes` (bytes) into `folder`, going on where an earlier attempt stopped.

    Returns the sha256 of those that the Hub knows one for (large files). Raises InfrastructureFault if the Hub
    does not answer.
    """
    total, done = sum(sizes.values()), 0
    try:
        digests = _listed_digests(base)
        for name, size in sizes.items():
            hf_hub_download(
                base.repo_id,
                name,
                revision=base.revision,
                endpoint=base.endpoint,
                token=base.token or False,
                local_dir=folder,
                tqdm_class=_reporting(context, done, total),
            )
            done += size
            context.progress(done, total, "bytes")
    except (HfHubHTTPError, httpx2.TransportError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InfrastructureFault(
            f"{base.repo_id} could not be downloaded: {type(error).__name__}: {error}.",
            way_out="What has arrived is kept; try again when the Hub answers.",
        ) from error
    shutil.rmtree(folder / ".cache")
    return {name: digests[name] for name in sizes if name in digests}


def _listed_digests(base: BaseModelSource) -> dict[str, str]:
    api = HfApi(endpoint=base.endpoint, token=base.token or False)
    info = api.model_info(base.repo_id, revision=base.revision, files_metadata=True)
    return {file.rfilename: file.lfs.sha256 for file in info.siblings or [] if file.lfs is not None}


def _reporting(context: StageContext, before: int, total: int) -> type[tqdm]:
    """A progress bar that draws nothing and tells `context`, which may raise to stop the download."""

    class Reporting(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.arrived = int(kwargs.get("initial") or 0)
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            self.arrived += int(n or 0)
            context.progress(min(before + self.arrived, total), total, "bytes")
            return None

    return Reporting
