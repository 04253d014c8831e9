"""Files of a pinned Hub commit into a folder: resumable, with progress, stopped by a cancel."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.utils.tqdm import tqdm

from publisher.hub_client.faults import Asked, hub_faults
from worker.context import StageContext
from worker.request import BaseModelSource


def download(base: BaseModelSource, sizes: Mapping[str, int], folder: Path, context: StageContext) -> dict[str, str]:
    """Download the files named by `sizes` (bytes) into `folder`, going on where an earlier attempt stopped.

    Returns the sha256 of those that the Hub knows one for (large files). Raises InfrastructureFault if the Hub
    does not answer (what has arrived is kept), NotFound or RequestFault if it refuses.
    """
    total, done = sum(sizes.values()), 0
    with hub_faults(Asked(base.repo_id, base.endpoint, "PUBLISHER_BASE_MODEL_TOKEN", revision=base.revision)):
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
            context.progress(done, total, "bytes downloaded")
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
            context.progress(min(before + self.arrived, total), total, "bytes downloaded")
            return None

    return Reporting
