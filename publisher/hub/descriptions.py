"""What the Hub says about a model: files, tags, parameters."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from publisher.errors import UnsupportedModel
from publisher.hub.card import CardError, read_metadata, tags
from publisher.hub.commits import Commit, CommittedFile
from publisher.hub.faults import Damaged
from publisher.hub.protocol import ModelDescription, ParameterCounts, Sibling, SiblingPointer
from publisher.hub.reading import StoredContent
from publisher.hub.references import DEFAULT_BRANCH
from publisher.hub.repositories import Repository
from publisher.weights.header import read_header

_logger = logging.getLogger(__name__)


def describe(repository: Repository, revision: str, *, with_sizes: bool) -> ModelDescription:
    """Everything about one revision; with file sizes and digests if asked for.

    Raises RevisionMissing, and Damaged where the card or the weights' headers cannot be read as they were stored.
    """
    commit = repository.commit_at(revision)
    model = _describe(repository, commit)
    model.siblings = [_sibling(path, file, with_sizes=with_sizes) for path, file in commit.files.items()]
    model.safetensors = _parameters(repository, commit)
    model.used_storage = sum({file.sha256: file.size for file in commit.files.values()}.values())
    return model


def describe_briefly(repository: Repository, *, with_files: bool) -> ModelDescription:
    """What lists show. One damaged repository does not take the list away: it stands there as `disabled`."""
    try:
        commit = repository.commit_at(DEFAULT_BRANCH)
        model = _describe(repository, commit)
    except Damaged as error:
        _logger.error("%s", error)
        return _disabled(repository)
    if with_files:
        model.siblings = [_sibling(path, file, with_sizes=False) for path, file in commit.files.items()]
    return model


def _disabled(repository: Repository) -> ModelDescription:
    settings = repository.settings
    return ModelDescription(
        id=str(repository.id),
        model_id=str(repository.id),
        author=repository.id.namespace,
        last_modified=settings.created,
        created_at=settings.created,
        private=settings.private,
        disabled=True,
        tags=[],
    )


def _describe(repository: Repository, commit: Commit) -> ModelDescription:
    settings = repository.settings
    card = _card(repository, commit)
    return ModelDescription(
        id=str(repository.id),
        model_id=str(repository.id),
        author=repository.id.namespace,
        sha=commit.id,
        last_modified=commit.date,
        created_at=settings.created,
        private=settings.private,
        tags=tags(card) + (["safetensors"] if _weights(commit) and "safetensors" not in tags(card) else []),
        library_name=_text(card.get("library_name")),
        pipeline_tag=_text(card.get("pipeline_tag")),
        card_data=card or None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _card(repository: Repository, commit: Commit) -> dict[str, object]:
    """Metadata of README.md; empty where it has none that can be read."""
    readme = commit.files.get("README.md")
    if readme is None or readme.lfs:
        return {}
    text = repository.content("README.md", readme).read().decode("utf-8", "replace")
    try:
        return read_metadata(text)
    except CardError:
        return {}


def _weights(commit: Commit) -> dict[str, CommittedFile]:
    """The model's weight files: `model*.safetensors` at the top, so that masks are not counted."""
    return {
        path: file for path, file in commit.files.items() if path.startswith("model") and path.endswith(".safetensors")
    }


def _parameters(repository: Repository, commit: Commit) -> ParameterCounts | None:
    counts = _elements(repository.content(path, file) for path, file in _weights(commit).items())
    return ParameterCounts(parameters=counts, total=sum(counts.values())) if counts else None


def _elements(files: Iterable[StoredContent]) -> Counter[str]:
    """Per type ("BF16", "U8") over all files. Raises Damaged."""
    total: Counter[str] = Counter()
    for content in files:
        content.require()
        total.update(_elements_of(content))
    return total


@lru_cache(maxsize=4096)
def _elements_of(content: StoredContent) -> Counter[str]:
    """Remembered by content; none of a file that is not safetensors."""

    def read(start: int, end: int) -> bytes:
        return b"".join(content.blocks(start, end))

    try:
        return read_header(content.name, content.size, read).elements()
    except UnsupportedModel:
        return Counter()


def _sibling(path: str, file: CommittedFile, *, with_sizes: bool) -> Sibling:
    if not with_sizes:
        return Sibling(rfilename=path)
    pointer = SiblingPointer(sha256=file.sha256, size=file.size, pointer_size=file.pointer_size) if file.lfs else None
    return Sibling(rfilename=path, size=file.size, blob_id=file.oid, lfs=pointer)
