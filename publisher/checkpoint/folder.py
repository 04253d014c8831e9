"""Finding a checkpoint: a folder on this machine, or a repository on a Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.errors import NotFound, RequestFault
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.repo_id import is_repo_id
from publisher.manifest import manifest

_CONFIG = "config.json"
#: What recovery reads: kilobytes, where the weights are gigabytes.
_DESCRIPTION = (manifest.FILE_NAME, MASKS, _CONFIG)


def open_checkpoint(
    dir_or_repo: str | Path, revision: str | None = None, endpoint: str | None = None, *, weights: bool = True
) -> Path:
    """The folder of a checkpoint, downloaded if `dir_or_repo` is not a folder.

    `weights=False` downloads only manifest, masks and config. Raises RequestFault naming what a folder lacks,
    NotFound if there is neither such a folder nor such a repository, InfrastructureFault if no Hub answers.
    """
    folder = Path(dir_or_repo)
    if not folder.is_dir():
        folder = _download(str(dir_or_repo), revision, endpoint, weights)
    missing = [name for name in _DESCRIPTION if not (folder / name).is_file()]
    if missing:
        raise RequestFault(
            f"{dir_or_repo} is not a LoRAM checkpoint: it has no {', '.join(missing)}.",
            way_out="Name the folder or repository of a checkpoint; for an adapter, the one that it was trained on.",
        )
    return folder


def commit_of(folder: Path) -> str | None:
    """Of a folder that was downloaded from a Hub, the commit."""
    return folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else None


def _download(repo_id: str, revision: str | None, endpoint: str | None, weights: bool) -> Path:
    if not is_repo_id(repo_id):
        raise NotFound(f"{repo_id} is neither a folder nor a repository's name.")
    with hub_faults(Asked(repo_id, endpoint, "HF_TOKEN", revision=revision)):
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                endpoint=endpoint,
                allow_patterns=None if weights else list(_DESCRIPTION),
            )
        )
