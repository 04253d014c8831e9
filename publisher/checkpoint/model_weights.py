"""Single weights of a model in a folder or on a Hub, from which only the files that hold them are fetched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from torch import Tensor

from publisher.errors import InfrastructureFault, NotFound, RequestFault
from publisher.files.json_object import parse_object
from publisher.hub_client.faults import Asked, hub_faults
from publisher.hub_client.repo_id import is_repo_id
from publisher.weights.folder import opened
from publisher.weights.index import INDEX_FILE, SINGLE_FILE, weight_map

#: of the name of what bitsandbytes stores beside a weight in 4 bits
QUANT_STATE = ".quant_state.bitsandbytes__"


@dataclass(frozen=True)
class Repository:
    """On the Hub at `endpoint`, HF_ENDPOINT by default."""

    repo_id: str
    revision: str | None = None
    endpoint: str | None = None


class ModelWeights:
    """`place`: a folder or a repository. Nothing is read or fetched before a weight is asked for."""

    def __init__(self, place: Path | Repository) -> None:
        self._place = place
        self._open: dict[str, Any] = {}

    @property
    def here(self) -> bool:
        """Whether the weights lie on this machine, in a folder that was named."""
        found = (SINGLE_FILE, INDEX_FILE)
        return isinstance(self._place, Path) and any((self._place / name).is_file() for name in found)

    def read(self, weight: str, tied_to: str | None = None) -> Tensor:
        """The weight as a float tensor, dequantized from 4 bits; `tied_to`: what it is where the model has none.

        Raises RequestFault if the model has no such weight, NotFound if there is no such model, InfrastructureFault if
        no Hub answers.
        """
        for name in filter(None, (weight, tied_to)):
            file = self._file_of(name)
            if file is not None and name in file.keys():  # noqa: SIM118 - not a mapping
                return _as_floats(file, name)
        raise RequestFault(f"{self} has no {weight}.")

    def is_packed(self, weight: str) -> bool:
        """Whether it is stored in 4 bits."""
        file = self._file_of(weight)
        return file is not None and any(key.startswith(f"{weight}.") and QUANT_STATE in key for key in file.keys())  # noqa: SIM118 - not a mapping

    def names(self) -> list[str]:
        """Of all that is stored, sorted."""
        if self._index is not None:
            return sorted(self._index)
        return sorted(self._opened(SINGLE_FILE).keys())

    def _file_of(self, weight: str) -> Any:
        name = SINGLE_FILE if self._index is None else self._index.get(weight)
        return None if name is None else self._opened(name)

    def _opened(self, name: str) -> Any:
        if name not in self._open:
            path = self._path(name)
            if path is None:
                raise RequestFault(f"{self} has no {name}.")
            self._open[name] = opened(path)
        return self._open[name]

    @cached_property
    def _index(self) -> dict[str, str] | None:
        """Weight → file; None of a model in one file, which transformers prefers."""
        path = self._index_file()
        if path is None:
            return None
        where = f"{INDEX_FILE} of {self}"
        return weight_map(parse_object(path.read_bytes(), where), where)

    def _index_file(self) -> Path | None:
        try:
            if self._path(SINGLE_FILE) is not None:
                return None
        except InfrastructureFault:  # without a network, what was fetched before is all there is: it may be the index
            return self._path(INDEX_FILE)
        return self._path(INDEX_FILE)

    def _path(self, name: str) -> Path | None:
        """Of a file of the model, fetched where it is in a repository; None: there is no such file."""
        if isinstance(self._place, Path):
            return self._place / name if (self._place / name).is_file() else None
        where = self._place
        if not is_repo_id(where.repo_id):
            raise NotFound(f"{where.repo_id} is neither a folder nor a repository's name.")
        with hub_faults(Asked(where.repo_id, where.endpoint, "HF_TOKEN", revision=where.revision)):
            return _fetched(where, name)

    def __str__(self) -> str:
        return str(self._place) if isinstance(self._place, Path) else self._place.repo_id


def _fetched(where: Repository, name: str) -> Path | None:
    try:
        return Path(hf_hub_download(where.repo_id, name, revision=where.revision, endpoint=where.endpoint))
    except RemoteEntryNotFoundError:
        return None


def _as_floats(file: Any, name: str) -> Tensor:
    beside = [key for key in file.keys() if key.startswith(f"{name}.")]  # noqa: SIM118 - not a mapping
    stored: Tensor = file.get_tensor(name)
    if not any(QUANT_STATE in key for key in beside):
        return stored
    from bitsandbytes.nn import Params4bit

    from publisher.loading.four_bit_modules import dense

    state = {key.removeprefix(f"{name}."): file.get_tensor(key) for key in beside}
    weight = Params4bit.from_prequantized(stored, state, device="cpu")
    return dense(weight, weight.quant_state.dtype)
