"""Bodies of requests and answers, as `huggingface_hub` sends and reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Visibility = Literal["public", "private"]


def format_date(date: datetime) -> str:
    """The client reads exactly this form."""
    return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Date = Annotated[datetime, PlainSerializer(format_date)]


class Body(BaseModel):
    """A request. Fields that this Hub has no use for are ignored, as on the real one."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class RepositoryReference(Body):
    name: str
    organization: str | None = None
    type: str | None = "model"


class NewRepository(RepositoryReference):
    visibility: Visibility | None = None
    private: bool | None = None

    @property
    def is_private(self) -> bool:
        return self.visibility == "private" if self.visibility is not None else bool(self.private)


class SettingsUpdate(Body):
    visibility: Visibility | None = None
    private: bool | None = None
    gated: Literal["auto", "manual", False] | None = None

    @property
    def new_private(self) -> bool | None:
        return self.visibility == "private" if self.visibility is not None else self.private


class CardText(Body):
    content: str = Field(max_length=10_000_000)


class NewTag(Body):
    tag: str


class NewBranch(Body):
    starting_point: str | None = None


class FileToUpload(Body):
    path: str
    size: int = Field(ge=0)
    # The first 512 bytes, base64
    sample: str = ""


class Preupload(Body):
    files: list[FileToUpload] = Field(max_length=1000)


class LargeObject(Body):
    oid: Sha256
    size: int = Field(ge=0)


class LargeBatch(Body):
    operation: str
    objects: list[LargeObject] = Field(max_length=1000)


class Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class FileMode(Answer):
    path: str
    upload_mode: Literal["lfs", "regular"]
    should_ignore: bool = False
    # What is committed under this path now, so that the client can leave out what did not change
    oid: str | None = None


class Preuploaded(Answer):
    files: list[FileMode]


class Pointer(Answer):
    oid: str
    size: int
    pointer_size: int


class LastCommit(Answer):
    id: str
    title: str
    date: Date


class FileEntry(Answer):
    type: Literal["file"] = "file"
    path: str
    size: int
    oid: str
    lfs: Pointer | None = None
    last_commit: LastCommit | None = None


class FolderEntry(Answer):
    type: Literal["directory"] = "directory"
    path: str
    size: int = 0
    oid: str
    last_commit: LastCommit | None = None


Entry = FileEntry | FolderEntry


class SiblingPointer(Answer):
    sha256: str
    size: int
    pointer_size: int


class Sibling(Answer):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: SiblingPointer | None = None


class ParameterCounts(Answer):
    parameters: dict[str, int]
    total: int


class ModelDescription(Answer):
    id: str
    model_id: str
    author: str
    # None for one that is damaged, in lists
    sha: str | None = None
    last_modified: Date
    created_at: Date
    private: bool
    gated: bool = False
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
    tags: list[str]
    # Two names that the Hub does not write in camel case
    library_name: str | None = Field(default=None, alias="library_name")
    pipeline_tag: str | None = Field(default=None, alias="pipeline_tag")
    card_data: dict[str, object] | None = None
    siblings: list[Sibling] | None = None
    safetensors: ParameterCounts | None = None
    used_storage: int | None = None


class ReferenceEntry(Answer):
    name: str
    ref: str
    target_commit: str


class ReferenceList(Answer):
    branches: list[ReferenceEntry]
    tags: list[ReferenceEntry]
    converts: list[ReferenceEntry] = []
    pull_requests: list[ReferenceEntry] = []


class CommitAuthor(Answer):
    user: str


class FormattedText(Answer):
    title: str
    message: str


class CommitEntry(Answer):
    id: str
    title: str
    message: str
    authors: list[CommitAuthor]
    date: Date
    formatted: FormattedText


class CommitDone(Answer):
    success: bool = True
    commit_oid: str
    commit_url: str
    hook_output: str = ""
