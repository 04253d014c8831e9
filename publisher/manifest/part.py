"""What the parts of a manifest have in common: a version that does not know all of them keeps them whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """Keys that this version does not know are kept, so that reading and writing loses nothing.

    What follows from other keys (computed fields) is not read, but follows again: it cannot disagree with them.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_what_follows(cls, given: Any) -> Any:
        following = cls.model_computed_fields
        if not following or not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if name not in following}
