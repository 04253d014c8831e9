"""Every setting of every process, from PUBLISHER_* variables. The defaults are the embedded form.

PUBLISHER_X_FILE names a file that holds setting x: how containers and service managers hand over secrets, which an
environment shows to whoever may look at the process.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from publisher.configuration.empty import none_if_empty
from publisher.configuration.files import PREFIX, FilesOfTheEnvironment
from publisher.configuration.jobs import JobSettings
from publisher.configuration.sign_in import SignInSettings
from publisher.configuration.webhooks import WebhookSettings
from publisher.configuration.workers import WorkerSettings
from publisher.errors import RequestFault
from publisher.signing.keyring import Keyring

_QUOTAS = ("jobs_queued", "jobs_running", "stored_bytes", "requests_per_minute")

#: characters: to take shorter ones out of a text would take out words
SHORTEST_HIDDEN = 6
#: characters of an encryption key
SHORTEST_KEY = 16


class Settings(WorkerSettings, WebhookSettings, JobSettings, SignInSettings, BaseSettings):
    """One machine by default: SQLite, a filesystem broker and the embedded Hub, all below `data_dir`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", hide_input_in_errors=True)

    data_dir: Path = Field(default=Path("data"), description="everything that is kept lies below it")
    group_access: bool = Field(
        default=False,
        description="what is kept is the owner's alone; true: members of data_dir's group may read and write it, too",
    )
    database_url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite in data_dir")
    database_password: SecretStr | None = Field(default=None, description="goes into database_url, which has none then")
    migrate_at_start: bool = Field(
        default=True,
        description="every process brings the database to its tables when it starts; false: they refuse to start until "
        "`publisher admin migrate` has",
    )
    broker_url: str = Field(default="filesystem://", description="Celery broker; filesystem:// lies in data_dir")
    broker_password: SecretStr | None = Field(default=None, description="goes into broker_url, which has none then")
    public_url: str = Field(default="http://127.0.0.1:8000", description="where people reach the API")
    secret: SecretStr | None = Field(default=None, description="signs links and job tokens; empty: a file in data_dir")
    old_secrets: SecretStr | None = Field(
        default=None, description="other secrets, one a line, whose signatures and sealed values are good, too"
    )
    encryption_key: SecretStr | None = Field(
        default=None, description="seals tenants' tokens in the database; empty: secret does"
    )
    old_encryption_keys: SecretStr | None = Field(
        default=None, description="others, one a line, under which sealed values may still be"
    )

    bootstrap_key: SecretStr | None = Field(
        default=None, description="API key that is made to exist at start, for setups without a person"
    )

    hub_endpoint: str | None = Field(default=None, description="Hub to publish to; empty: the embedded one")
    hub_url: str | None = Field(
        default=None, description="where people reach the embedded Hub at the root of a host or port; empty: /hub"
    )
    hub_token: SecretStr | None = Field(default=None, description="write token for hub_endpoint")
    base_model_endpoint: str = Field(default="https://huggingface.co", description="Hub that base models come from")
    base_model_token: SecretStr | None = Field(default=None, description="read token for gated base models")
    allow_private_addresses: bool = Field(
        default=False,
        description="webhooks and tenants' Hubs may be at private, loopback and link-local addresses",
    )
    local_roots: list[Path] = Field(
        default_factory=list, description="folders from which models and corpora may be registered by path"
    )
    outside_seconds: float = Field(
        default=120, gt=0, description="a request that has to ask a Hub or another process is answered after this long"
    )
    outside_calls: int = Field(default=16, ge=1, description="requests that ask a Hub or another process at once")
    outside_calls_per_tenant: int = Field(default=4, ge=1, description="of these, one tenant's at most; others wait")
    event_streams_per_tenant: int = Field(
        default=500, ge=1, description="event streams that one tenant has open at an API process; more are 429"
    )

    quota_jobs_queued: int | None = Field(
        default=None,
        ge=0,
        description="jobs of a tenant in the queue at most, unless `publisher admin quota set` says otherwise; "
        "empty: without limit",
    )
    quota_jobs_running: int | None = Field(
        default=None, ge=0, description="jobs of a tenant that workers hold at most; more wait in the queue"
    )
    quota_stored_bytes: ByteSize | None = Field(
        default=None, description="what a tenant may store in the embedded Hub, as in 500GiB"
    )
    quota_requests_per_minute: int | None = Field(
        default=None, ge=1, description="requests of a tenant to the API and the embedded Hub in a minute at most"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="json: an object a line; console: for people; auto: console at a terminal alone"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least that the service's own code logs; libraries log warnings"
    )
    metrics_key: SecretStr | None = Field(
        default=None,
        description="bearer key for all metrics at /metrics; empty: a few, open to everybody",
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="all metrics on a port of their own, of each API process"
    )
    metrics_address: str = Field(default="127.0.0.1", description="address that metrics_port listens on")

    ready_free_bytes: int = Field(
        default=100_000_000, ge=0, description="with less free on the data folder's disk, /readyz says so"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, FilesOfTheEnvironment(settings_cls), env_settings

    @field_validator("database_url")
    @classmethod
    def _of_a_known_kind(cls, url: str) -> str:
        if url and re.fullmatch(r"(sqlite|postgresql)(\+\w+)?://.*", url, re.DOTALL) is None:
            raise ValueError("this is neither sqlite:///… nor postgresql://…")
        return url

    _not_set_either = field_validator(
        *("hub_endpoint", "hub_url", "encryption_key", "metrics_port"),
        *(f"quota_{name}" for name in _QUOTAS),
        mode="before",
    )(none_if_empty)

    @field_validator("encryption_key")
    @classmethod
    def _long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and len(key.get_secret_value()) < SHORTEST_KEY:
            raise ValueError(f"fewer than {SHORTEST_KEY} characters: take 32 random ones")
        return key

    @field_validator("database_url", "broker_url")
    @classmethod
    def _with_a_port_that_is_a_number(cls, url: str) -> str:
        """Whoever reads it later quotes what it takes for the port, and that may be half of a password."""
        if ";" not in url and "," not in url:  # several servers
            try:
                urlsplit(url).port  # noqa: B018
            except ValueError:
                raise ValueError(
                    "its port is no number, or its password has characters that have to be percent-encoded: "
                    "set that by itself (PUBLISHER_DATABASE_PASSWORD, PUBLISHER_BROKER_PASSWORD)"
                ) from None
        return url

    @field_validator("hub_token", "base_model_token", mode="after")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        """A client's complaint of a header that it cannot send quotes it."""
        text = "" if token is None else token.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("a token is of printable ASCII characters without spaces; put it into a file")
        return token

    @field_validator("public_url", "hub_endpoint", "hub_url")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        """Cards, the dashboard and messages name it."""
        if url is not None and "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError("a user or password has no place in an address that everybody is shown: set a token")
        return url

    @field_validator("public_url", "base_model_endpoint", "hub_url")
    @classmethod
    def _without_trailing_slash(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not url.startswith(("http://", "https://")):
            raise ValueError("this is not an http(s) URL")  # not quoted: it may hold a password
        return url.rstrip("/")

    @model_validator(mode="after")
    def _passwords_for_servers_that_have_none_yet(self) -> Self:
        for name in ("database", "broker"):
            url = urlsplit(getattr(self, f"{name}_url"))
            if getattr(self, f"{name}_password") is None:
                continue
            if ";" in getattr(self, f"{name}_url"):
                raise ValueError(f"{name}_password is for one server, and {name}_url names several: put it into them")
            if not url.hostname:
                raise ValueError(f"{name}_password is set, and {name}_url names no server that it could be for")
            if url.password is not None:
                raise ValueError(f"{name}_password is set, and {name}_url has a password too: leave one of them out")
        return self

    @property
    def resolved_database_url(self) -> str:
        """With the password."""
        if not self.database_url:
            return f"sqlite:///{(self.data_dir / 'publisher.db').absolute()}"
        return _with_password(self.database_url, self.database_password)

    @property
    def resolved_broker_url(self) -> str:
        """With the password."""
        return _with_password(self.broker_url, self.broker_password)

    @property
    def resolved_hub_endpoint(self) -> str:
        """Where workers publish: what cards and the dashboard name."""
        return (self.hub_endpoint or self.hub_url or f"{self.public_url}/hub").rstrip("/")

    @property
    def log_level_number(self) -> int:
        return logging.getLevelNamesMapping()[self.log_level.upper()]

    @property
    def hub_is_embedded(self) -> bool:
        return self.hub_endpoint is None

    def is_embedded_hub(self, endpoint: str) -> bool:
        """Whether an address is one of the embedded Hub's, its own or the one under the API."""
        own = {self.resolved_hub_endpoint, f"{self.public_url}/hub"}
        return self.hub_is_embedded and endpoint.rstrip("/") in own

    @property
    def hub_dir(self) -> Path:
        return self.data_dir / "hub"

    @property
    def first_key_file(self) -> Path:
        """Where the first start leaves the first API key, for its owner to read."""
        return self.data_dir / "first-api-key"

    @property
    def stages_dir(self) -> Path:
        """Finished and half-finished stages; each machine with workers has its own."""
        return self.data_dir / "stages"

    @property
    def allowed_roots(self) -> list[Path]:
        """Folders that a path in a request may lie in, resolved."""
        roots = self.local_roots or [self.data_dir / "models", self.data_dir / "corpora"]
        return [root.resolve() for root in roots]

    def secret_texts(self) -> list[str]:
        """Every secret among these settings, as it may stand in a text: to take it out of one."""
        fields = [getattr(self, name) for name in _secret_fields()]
        texts = [line.decode() for secret in fields for line in _lines(secret)]
        texts += [urlsplit(url).password or "" for url in (self.database_url, self.broker_url) if "@" in url]
        return [form for text in texts if len(text) >= SHORTEST_HIDDEN for form in {text, quote(text, safe="")}]

    def signing_secrets(self) -> Keyring:
        """What signs, and what is still accepted."""
        return Keyring(self.secret_bytes(), *_lines(self.old_secrets))

    def sealing_secrets(self) -> Keyring:
        """What seals, and what opens what was sealed before: the signing secrets among them."""
        signing = [secret.value for secret in self.signing_secrets()]
        key = self.encryption_key
        newest = signing[0] if key is None else key.get_secret_value().encode()
        return Keyring(newest, *_lines(self.old_encryption_keys), *signing)

    def secret_bytes(self) -> bytes:
        """The newest signing secret; made once and kept in data_dir with mode 600 if none is set."""
        if self.secret is not None:
            return self.secret.get_secret_value().encode()
        path = self.data_dir / "secret"
        if not path.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            _create_private(path, secrets.token_urlsafe(48), 0o660 if self.group_access else 0o600)
        return path.read_bytes()


def _secret_fields() -> list[str]:
    return [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def forget_secrets() -> None:
    """Take them out of the environment of this process, which has read them: those that it starts inherit it."""
    for name in _secret_fields():
        os.environ.pop(f"{PREFIX}{name.upper()}", None)


def _lines(secrets: SecretStr | None) -> list[bytes]:
    text = secrets.get_secret_value() if secrets is not None else ""
    return [line.strip().encode() for line in text.splitlines() if line.strip()]


def _with_password(url: str, password: SecretStr | None) -> str:
    """postgresql://user@host → postgresql://user:password@host, whatever characters the password has."""
    if password is None:
        return url
    scheme, _, rest = url.partition("://")
    server = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, _, place = server.rpartition("@")
    return f"{scheme}://{user}:{quote(password.get_secret_value(), safe='')}@{place}{rest[len(server) :]}"


def _create_private(path: Path, text: str, mode: int) -> None:
    """Write once, readable by nobody else; the first of two processes wins."""
    candidate = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    candidate.touch(mode=0o600)
    candidate.chmod(mode)
    candidate.write_text(text)
    try:
        path.hardlink_to(candidate)
    except FileExistsError:
        pass
    finally:
        candidate.unlink()


@lru_cache
def settings() -> Settings:
    """Raises RequestFault naming every variable of the environment that is wrong, and no value: some are secret."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(_problem(tuple(each["loc"]), each["msg"]) for each in error.errors())
    except SettingsError as error:
        problems = str(error)
    raise RequestFault(f"Wrong settings: {problems}.", way_out="docs/settings.md lists them all.")


def _problem(place: tuple[int | str, ...], message: str) -> str:
    said = message.removeprefix("Value error, ").rstrip(".")
    return f"PUBLISHER_{str(place[0]).upper()}: {said}" if place else said
