"""An installation for the operator's commands, which run in this process as click runs them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from publisher.client.admin import admin
from publisher.settings import Settings
from publisher.store import migrate
from publisher.store.database import Database


@dataclass(frozen=True)
class Installed:
    data: Path
    database: Database
    settings: Settings

    @classmethod
    def make(cls, data: Path) -> Installed:
        """As a service leaves it that has started once."""
        settings = Settings(data_dir=data)
        migrate.upgrade(settings.resolved_database_url)
        settings.secret_bytes()
        return cls(data, Database(settings.resolved_database_url), settings)

    def run(self, *words: str) -> Result:
        """`publisher admin GROUP COMMAND --data … WORDS`; an error of ours is `exception`."""
        return CliRunner().invoke(admin, [*words[:2], "--data", str(self.data), *words[2:]])

    def said(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout
