"""Names of repositories, checked before hours of work end at a Hub that refuses them. No torch."""

from __future__ import annotations

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from publisher.errors import RequestFault

_FIELD = "publish.repo_id"


def is_repo_id(name: str) -> bool:
    """Whether a Hub takes `name` for a repository, with a namespace or without."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_repo_id(repo_id: str, field: str = _FIELD) -> str:
    """Return `repo_id` if a Hub takes it as `namespace/name`; raises RequestFault: the field and what is wrong."""
    word = field.rpartition(".")[2]
    if repo_id.count("/") != 1:
        raise RequestFault(
            f"{word} {repo_id!r} is not of the form namespace/name.", field=field, way_out="Example: my-org/my-model."
        )
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RequestFault(f"{word} {repo_id!r} is not a name that a Hub takes: {error}", field=field) from error
    return repo_id
