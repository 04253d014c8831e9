"""Every server of these tests is watched for threads that take a second database connection: the watch sees one."""

from __future__ import annotations

import threading

from publisher.store.database import Database
from tests.api.conftest import second_connections


def test_a_connection_taken_while_another_is_held_is_seen(database: Database) -> None:
    found = second_connections(database.engine)

    def one_after_the_other() -> None:
        for _ in range(2):
            with database.read() as session:
                session.connection()

    def one_within_the_other() -> None:
        with database.read() as outer, database.read() as inner:
            outer.connection()
            inner.connection()

    for work, expected in ((one_after_the_other, 0), (one_within_the_other, 1)):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert len(found) == expected
