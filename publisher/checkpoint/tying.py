"""Models that are loaded from a checkpoint know it, and adapters that PEFT saves of them say so (provenance.py).

`register` wraps two methods of transformers and, once a checkpoint is loaded, two of PEFT:

- `PreTrainedModel.from_pretrained` compares config.json and masks with the manifest where the checkpoint is a folder,
  and leaves the checkpoint's tie on the model. Of a repository it asks for loram.json, a few kilobytes.
- `save_pretrained` of models (PEFT's, and transformers' own with `add_adapter`) has PEFT write the tie of the model
  that is being saved into adapter_config.json: so Trainer's checkpoints, TRL's and those of a resumed run have it.

The tie is an attribute of the loaded model: it is not in what `save_pretrained` writes of the model itself, so whoever
converts a checkpoint gets adapters without one, which recovery calls unverified.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from publisher.architecture.masks_file import FILE_NAME as MASKS
from publisher.checkpoint.integrity import CONFIG, refuse_contradiction, refuse_damaged, strays
from publisher.checkpoint.provenance import KEY, MARK_FILE, PLACE, Tie, is_weights, tied, trained_on
from publisher.checkpoint.weight_masks import is_of_weights, open_masks
from publisher.errors import RequestFault
from publisher.manifest import manifest as manifests
from publisher.manifest.manifest import Manifest

_TIE = "_loram_tie"
#: of an adapter's config: it was trained on a checkpoint of other masks than the model's that it is on
_OF_ANOTHER = "_loram_of_another"
_MARK = "_knows_what_it_was_loaded_from"
#: With these the weights, or the config, are not the checkpoint's own.
_OTHER_WEIGHTS = ("state_dict", "gguf_file", "subfolder", "variant")
_OF_DOWNLOADS = ("cache_dir", "token", "local_files_only", "proxies")
#: of the model that is being saved
_saving: ContextVar[Tie | None] = ContextVar("_saving", default=None)


def register() -> None:
    """Idempotent."""
    if getattr(PreTrainedModel.save_pretrained, _MARK, False):
        return
    loading = PreTrainedModel.__dict__["from_pretrained"].__func__
    PreTrainedModel.from_pretrained = classmethod(_leaving_tie(loading))
    PreTrainedModel.save_pretrained = _saving_tie(PreTrainedModel.save_pretrained)


def tie_of(model: nn.Module) -> Tie | None:
    """The checkpoint that `model`, or the model inside of it, was loaded from; None: none that is known."""
    return next((vars(module)[_TIE] for module in model.modules() if _TIE in vars(module)), None)


def refuse_other_masks(model: nn.Module, checkpoint: Path) -> None:
    """Raise RequestFault if `model` was loaded from a checkpoint with other masks than that in folder `checkpoint`."""
    if not (checkpoint / manifests.FILE_NAME).is_file():
        return
    own, other = tie_of(model), Tie.of(Manifest.read(checkpoint))
    if own is not None and other is not None and own.masks != other.masks:
        raise RequestFault(
            f"The model was loaded from checkpoint {own.checkpoint[:12]}, and {checkpoint} is checkpoint "
            f"{other.checkpoint[:12]}, whose masks are others.",
            way_out="Name the folder of the checkpoint that the model was loaded from.",
        )


def _leaving_tie(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def from_pretrained(
        cls: type[PreTrainedModel], pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any
    ) -> Any:
        named, own = pretrained_model_name_or_path, not any(kwargs.get(name) for name in _OTHER_WEIGHTS)
        local = own and named is not None and (Path(named) / manifests.FILE_NAME).is_file()
        tie = _at_loading(Path(named)) if local else None
        answer = original(cls, named, *args, **kwargs)
        model = answer[0] if isinstance(answer, tuple) else answer
        if own and not local and named is not None:
            folder = _downloaded(model, kwargs)
            tie = None if folder is None else _at_loading(folder)
        if tie is not None:
            setattr(model, _TIE, tie)
            _teach_peft()
        return answer

    return from_pretrained


def _at_loading(folder: Path) -> Tie | None:
    """What the checkpoint's manifest says it is; warns, and None, where config or weights are somebody else's.

    Compares the files that are there: of a repository transformers downloads no masks. Masks of single weights are as
    large as to take time, and loading does not use them: their size only.
    """
    manifest = Manifest.read(folder)
    if (folder / MASKS).is_file() and not is_of_weights(folder / MASKS):
        refuse_damaged(folder, manifest, MASKS)
        refuse_contradiction(folder, manifest, open_masks(folder / MASKS))
    changed = [manifest.problem(folder, CONFIG), *(_other_size(folder, manifest, name) for name in manifest.files)]
    problems = [problem for problem in (*changed, *strays(folder, manifest)) if problem]
    if problems:
        warnings.warn(
            f"{folder} is not the checkpoint that its {manifests.FILE_NAME} tells of: {problems[0]} Adapters that are "
            f"trained on it will not say what they were trained on. Get it again, or remove {manifests.FILE_NAME}.",
            stacklevel=3,
        )
        return None
    return Tie.of(manifest)


def _other_size(folder: Path, manifest: Manifest, name: str) -> str | None:
    if not (is_weights(name) or name == MASKS) or not (folder / name).is_file():
        return None
    found, size = (folder / name).stat().st_size, manifest.files[name].size
    return None if found == size else f"{name} has {found} bytes; {size} were published."


def _downloaded(model: PreTrainedModel, kwargs: dict[str, Any]) -> Path | None:
    """The folder with the loram.json of the repository, or folder, that the model came from; None: it has none."""
    commit = getattr(model.config, "_commit_hash", None)
    try:
        path = cached_file(
            model.name_or_path,
            manifests.FILE_NAME,
            revision=commit or kwargs.get("revision"),
            _commit_hash=commit,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **{name: kwargs[name] for name in _OF_DOWNLOADS if name in kwargs},
        )
    except (OSError, ValueError, HfHubHTTPError):  # the model is loaded; what it is then stays unknown
        return None
    return None if path is None else Path(path).parent


def _teach_peft() -> None:
    """PEFT takes a second to import, so not before a checkpoint is loaded. Idempotent."""
    try:
        from peft import PeftModel
        from peft.config import PeftConfigMixin
    except ImportError:
        return
    if getattr(PeftModel.save_pretrained, _MARK, False):
        return
    PeftModel.save_pretrained = _saving_tie(PeftModel.save_pretrained)
    PeftModel.load_adapter = _comparing_tie(PeftModel.load_adapter)
    PeftConfigMixin.save_pretrained = _writing_tie(PeftConfigMixin.save_pretrained)


def _saving_tie(original: Callable[..., None]) -> Callable[..., None]:
    """Of a model: whatever configs it saves are told its tie."""

    @functools.wraps(original)
    def save_pretrained(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        with _being_saved(tie_of(self)):
            original(self, *args, **kwargs)

    setattr(save_pretrained, _MARK, True)
    return save_pretrained


def _comparing_tie(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of an adapter that is loaded: one of other masks fits where widths are equal, and is wrong in every row."""

    @functools.wraps(original)
    def load_adapter(self: Any, model_id: Any, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        answer = original(self, model_id, adapter_name, *args, **kwargs)
        config, own = self.peft_config[adapter_name], tie_of(self)
        stated = trained_on({PLACE: config.auto_mapping})
        if own is not None and stated is not None and own.masks != stated.masks:
            setattr(config, _OF_ANOTHER, True)
            warnings.warn(
                f"The adapter in {model_id} was trained on checkpoint {stated.checkpoint[:12]}, and the model is "
                f"checkpoint {own.checkpoint[:12]}, whose masks are others: its rows are of other heads and neurons. "
                "Saved again it will still say that it is of the former.",
                stacklevel=2,
            )
        return answer

    return load_adapter


def _writing_tie(original: Callable[..., None]) -> Callable[..., None]:
    """Of an adapter's config. PEFT itself has `auto_mapping` for models without a task type only, and then anew."""

    @functools.wraps(original)
    def save_pretrained(self: Any, save_directory: str, **kwargs: Any) -> None:
        mapping, tie = kwargs.pop("auto_mapping_dict", None), _saving.get()
        before = self.auto_mapping or {}
        if tie is not None and not getattr(self, _OF_ANOTHER, False):
            mapping = tied(mapping or before, tie)
        elif mapping is not None and KEY in before:
            mapping = {**mapping, KEY: before[KEY]}
        (Path(save_directory) / MARK_FILE).unlink(missing_ok=True)  # of an adapter that lay there before
        original(self, save_directory, auto_mapping_dict=mapping, **kwargs)

    return save_pretrained


@contextmanager
def _being_saved(tie: Tie | None) -> Iterator[None]:
    token = _saving.set(tie)
    try:
        yield
    finally:
        _saving.reset(token)
