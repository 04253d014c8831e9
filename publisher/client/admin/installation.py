"""What an operator's command works with: the installation that the settings describe, brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from publisher.client.admin.place import chosen_settings, database_of
from publisher.errors import RequestFault
from publisher.jobs.dispatch import Dispatcher
from publisher.keys.digests import UNKEYED, KeyDigests
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database
from publisher.store.doorkeeper import key_secrets


@dataclass(frozen=True)
class Installation:
    settings: Settings
    database: Database

    @property
    def digests(self) -> KeyDigests:
        """How keys are kept. Where this machine does not have the service's secret, as before there were HMACs: the
        service keeps a key better when it is used."""
        known = self.settings.secret is not None or (self.settings.data_dir / "secret").exists()
        return KeyDigests(key_secrets(self.settings)) if known else UNKEYED

    def send(self, job_ids: list[str]) -> None:
        """Tell the workers of these jobs; while the broker is down the service's reaper does."""
        if not job_ids:
            return
        dispatcher = Dispatcher(self.database, self.settings)
        try:
            for id in job_ids:
                dispatcher.send(id)
        finally:
            dispatcher.close()


@contextmanager
def installation(data_dir: Path | None = None) -> Iterator[Installation]:
    """`data_dir`: the service's folder, instead of the settings'. RequestFault where no service was ever started (a
    mistyped folder is not a new installation), as chosen_settings refuses it, and while migrations are missing that are
    made apart."""
    chosen = chosen_settings(data_dir, new=True)
    if not chosen.database_url and not (chosen.data_dir / "publisher.db").exists():
        raise RequestFault(
            f"there is no installation in {chosen.data_dir.absolute()}.",
            way_out="Name the service's folder with --data or PUBLISHER_DATA_DIR, or start the service first.",
        )
    migrate.prepare(chosen)
    with database_of(chosen) as database:
        yield Installation(chosen, database)
