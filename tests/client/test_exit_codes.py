"""The statuses that commands end with: one table, and docs/cli.md says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from publisher.client.exit_codes import Exit, exit_code
from publisher.errors import Conflict, HubUnavailable, InfrastructureFault, NotFound, PublisherError, RequestFault

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_has_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert rows == [(str(each.value), each.words) for each in Exit]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InfrastructureFault("x"), Exit.FAILED),
        (HubUnavailable("x"), Exit.FAILED),
        (PublisherError("x"), Exit.FAILED),
        (RequestFault("x"), Exit.REFUSED),
        (Conflict("x"), Exit.REFUSED),
        (NotFound("x"), Exit.NOT_YOURS),
    ],
)
def test_who_is_to_blame_decides(error: PublisherError, status: Exit) -> None:
    assert exit_code(error) is status
