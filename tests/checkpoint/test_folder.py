from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.folder import open_checkpoint
from publisher.errors import InfrastructureFault, NotFound, RequestFault
from tests.checkpoint.pruned import make_pair, save_checkpoint
from tests.servers import free_port


def test_folder_is_opened_where_it_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, make_pair().pruned)
    assert open_checkpoint(tmp_path) == tmp_path


def test_folder_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestFault, match=r"it has no loram\.json, pruning_masks\.safetensors\."):
        open_checkpoint(tmp_path)


def test_neither_folder_nor_repository(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="neither a folder nor a repository's name"):
        open_checkpoint(tmp_path / "missing")


def test_hub_that_does_not_answer_is_infrastructure() -> None:
    with pytest.raises(InfrastructureFault, match="did not answer for org/nothing"):
        open_checkpoint("org/nothing", endpoint=f"http://127.0.0.1:{free_port()}")
