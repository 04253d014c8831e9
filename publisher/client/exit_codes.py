"""What the command's exit status says: one table, which docs/cli.md repeats and a test compares."""

from __future__ import annotations

from enum import IntEnum

import click

from publisher.errors import PublisherError, RequestFault


class Exit(IntEnum):
    """`words`: for people."""

    words: str

    def __new__(cls, status: int, words: str) -> Exit:
        member = int.__new__(cls, status)
        member._value_ = status
        member.words = words
        return member

    RIGHT = 0, "done"
    FAILED = 1, "the service, a machine, a check or a job failed"
    USAGE = 2, "the command was typed wrongly, or would ask and nobody is there"
    FOUND = 3, "done, and something was found: what is damaged, lost or still to be done has a line each"
    REFUSED = 4, "the request was refused: something in it is wrong, or stands against what there is"
    NOT_YOURS = 5, "the key is missing, wrong or may not, or there is no such thing"
    STOPPED = 130, "stopped by Ctrl-C, or by a no"


#: of the service's refusals, those that are about who asks and for what, not about how
_NOT_YOURS = frozenset({401, 403, 404})


def exit_code(error: PublisherError) -> Exit:
    if not isinstance(error, RequestFault):
        return Exit.FAILED
    return Exit.NOT_YOURS if error.status in _NOT_YOURS else Exit.REFUSED


class Told(click.ClickException):
    """An error as one line and an exit status."""

    def __init__(self, error: PublisherError) -> None:
        super().__init__(" ".join(str(error).split()))
        self.exit_code = exit_code(error)  # type: ignore[misc]  # click types it as the class's, and reads it of the instance
