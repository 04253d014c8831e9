"""What the Hub refuses, with the codes that `huggingface_hub` turns into its own exceptions."""

from __future__ import annotations

from publisher.errors import Conflict, InfrastructureFault, NotFound, RequestFault, Unauthorized


class RepositoryMissing(NotFound):
    """No such repository, or none that this caller may see: both look the same from outside."""

    slug = "RepoNotFound"
    title = "Repository not found"


class RevisionMissing(NotFound):
    slug = "RevisionNotFound"
    title = "Revision not found"


class EntryMissing(NotFound):
    """No such file or folder. `commit` is where it was looked for, so that clients can remember the absence."""

    slug = "EntryNotFound"
    title = "Entry not found"

    def __init__(self, message: str, *, field: str | None = None, commit: str | None = None) -> None:
        super().__init__(message, field=field)
        self.commit = commit


class BadCredentials(Unauthorized):
    """The client looks for exactly this text to tell a wrong token from a missing repository."""

    def __init__(self) -> None:
        super().__init__("Invalid credentials in Authorization header")


class LoginNeeded(Unauthorized):
    slug = "login-needed"
    title = "Login needed"


class Forbidden(RequestFault):
    status = 403
    slug = "forbidden"
    title = "Forbidden"


class BadRequest(RequestFault):
    status = 400
    slug = "bad-request"
    title = "Bad request"


class AlreadyExists(Conflict):
    slug = "already-exists"
    title = "Already exists"


class StaleParent(RequestFault):
    """`parentCommit` is not the branch's head: somebody else committed in between."""

    status = 412
    slug = "stale-parent"
    title = "A commit has happened since"


class UploadMismatch(BadRequest):
    """The bytes received are not those that were announced."""

    slug = "upload-mismatch"
    title = "Upload does not match its digest"


class Damaged(InfrastructureFault):
    """What lies on the Hub's disk is not what was stored: missing, of another size, other bytes, not readable."""

    slug = "damaged"
    title = "Damaged in storage"
