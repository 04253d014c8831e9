"""Labels in requests: at creation and by PATCH."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from publisher.store.labels import MOST

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
KEY = rf"^({_PREFIX}/)?{_NAME}$"
VALUE = rf"^({_NAME})?$"

#: as in Kubernetes: an optional DNS name and a slash, then up to 63 letters, digits, `-`, `_`, `.`
LabelKey = Annotated[str, Field(pattern=KEY, max_length=317)]
LabelValue = Annotated[str, Field(pattern=VALUE, max_length=63)]
Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(
        max_length=MOST,
        description="words of your own to find it by: keys and values as Kubernetes has them",
        examples=[{"team": "search", "example.com/stage": "trial"}],
    ),
]


class LabelChange(BaseModel):
    """Sets the labels that it names and takes away those that are null; the others stay."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"labels": {"team": "ads", "old": None}}]}
    )

    labels: dict[LabelKey, LabelValue | None] = Field(
        max_length=2 * MOST, description="the ones to set, and with null the ones to take away"
    )
