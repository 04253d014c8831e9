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
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import ByteSize, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from publisher.errors import RequestFault
from publisher.people.addresses import is_safe
from publisher.people.rules import Rule
from publisher.signing.keyring import Keyring

_PREFIX = "PUBLISHER_"
_QUOTAS = ("jobs_queued", "jobs_running", "stored_bytes", "requests_per_minute")

#: publisher.plan.queues: of jobs without anything that a GPU would do faster, and of jobs by the GiB that hold them
NO_GPU_QUEUE = "cpu"
QUEUE_SIZES = tuple(2**power for power in range(13))

#: characters: to take shorter ones out of a text would take out words
SHORTEST_HIDDEN = 6
#: characters of an encryption key
SHORTEST_KEY = 16

_SEVERAL = re.compile(r"cpu(,cpu)+|cuda:\d+(,cuda:\d+)+")


def device_names(text: str) -> tuple[str, ...]:
    """Those of `cuda:0,cuda:1`, none of an empty text. Raises ValueError if they cannot align together.

    `cpu,cpu` are two processes, which gains nothing but a trial of what several GPUs do.
    """
    names = tuple(text.split(",")) if text else ()
    if names and (not _SEVERAL.fullmatch(text) or (names[0] != "cpu" and len(set(names)) < len(names))):
        raise ValueError(f"{text!r} is neither two or more different GPUs (cuda:0,cuda:1) nor cpu,cpu")
    return names


def queue_names(text: str) -> tuple[str, ...]:
    """Those of `cpu,16,32`, none of an empty text: publisher.plan.queues. Raises ValueError for another name."""
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        if name not in {NO_GPU_QUEUE, *map(str, QUEUE_SIZES)}:  # 08 would be a queue that nobody sends to
            known = f"{NO_GPU_QUEUE}, {QUEUE_SIZES[0]}, {QUEUE_SIZES[1]}, {QUEUE_SIZES[2]}, … {QUEUE_SIZES[-1]}"
            raise ValueError(f"{name!r} is no queue; there are {known} (GiB that its jobs need)")
    return names


class _FilesOfTheEnvironment(PydanticBaseSettingsSource):
    """PUBLISHER_X_FILE=path: the text of the file, without white space around it; an empty file sets nothing."""

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            text, _, is_complex = self.get_field_value(field, name)
            if text:
                found[name] = self._value(name, field, text, is_complex=is_complex)
        return found

    def _value(self, name: str, field: FieldInfo, text: str, *, is_complex: bool) -> Any:
        try:
            return self.prepare_field_value(name, field, text, is_complex)
        except ValueError as error:
            raise SettingsError(f"{_PREFIX}{name.upper()}_FILE names a file that holds no JSON: {error}") from None

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{_PREFIX}{field_name}".upper()
        path = os.environ.get(f"{variable}_FILE")
        if path and os.environ.get(variable):
            raise SettingsError(f"{variable} and {variable}_FILE are both set: unset one of them")
        text = _text_of(path, f"{variable}_FILE") if path else None
        return text, field_name, self.field_is_complex(field)


def _text_of(path: str, variable: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        why = error.strerror
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    raise SettingsError(f"{variable} names {path}, which cannot be read by user {os.geteuid()}: {why}")


class Settings(BaseSettings):
    """One machine by default: SQLite, a filesystem broker and the embedded Hub, all below `data_dir`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", hide_input_in_errors=True)

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

    oidc_issuer: str | None = Field(
        default=None,
        description="provider of identities (OpenID Connect) whose people may sign in on the dashboard, exactly as its "
        "discovery document names it; empty: keys alone",
    )
    oidc_client_id: str | None = Field(default=None, description="this service's name at oidc_issuer")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="this service's secret at oidc_issuer; empty: a public client, by PKCE alone"
    )
    oidc_scopes: str = Field(default="openid profile email", description="what oidc_issuer is asked for")
    oidc_name: str = Field(
        default="single sign-on", min_length=1, max_length=60, description="how the sign-in page calls oidc_issuer"
    )
    oidc_rules: list[Rule] = Field(
        default_factory=list,
        description="who belongs to which tenant without an invitation, by claim or e-mail domain: docs/sign-in.md",
    )
    oidc_help: str = Field(
        default="the operator of this service",
        min_length=1,
        max_length=200,
        description="whom people ask who sign in and belong to no tenant",
    )
    oidc_seconds: float = Field(default=10, gt=0, description="how long a sign-in waits for oidc_issuer")

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
    lease_seconds: float = Field(default=30, gt=0, description="a worker silent for this long has lost its job")
    heartbeat_seconds: float = Field(default=5, gt=0, description="how often a worker renews its lease")
    reaper_seconds: float = Field(default=5, gt=0, description="how often lost and undispatched jobs are looked for")
    redispatch_seconds: float = Field(default=20, gt=0, description="a queued job that no worker took is sent again")
    cancel_grace_seconds: float = Field(
        default=30, gt=0, description="then a cancelled or pausing job's process is killed"
    )
    max_attempts: int = Field(default=5, ge=1, description="tries of a job when infrastructure fails")
    retry_backoff_seconds: float = Field(default=10, ge=0, description="before the second try; doubles each time")

    hub_patience_seconds: float = Field(
        default=6 * 3600, gt=0, description="how long a job waits for a Hub, or before it computes for a credential"
    )
    hub_settling_seconds: float = Field(
        default=60, ge=0, description="a commit whose answer was lost, to a Hub elsewhere, may still arrive for so long"
    )
    stages_bytes: ByteSize | None = Field(
        default=None,
        description="most that a machine's stages take, as in 500GiB: what no job needs and was unused for the longest "
        "goes first; empty: as much as the disk holds",
    )
    disk_free_bytes: ByteSize | None = Field(
        default=None,
        description="what stays free on the disk of data_dir, as in 20GiB; empty: a twentieth of it, 4 GiB at most",
    )
    disk_look_seconds: float = Field(
        default=60, gt=0, description="a job that waits for room on a disk looks again after so long"
    )
    disk_patience_seconds: float = Field(
        default=86400, ge=0, description="a job that has waited so long for room on a disk fails"
    )

    allow_http_webhooks: bool = Field(default=False, description="webhooks may be plain http, too")
    webhooks_per_tenant: int = Field(default=20, ge=0, description="more are refused; 0: there are none")
    webhook_timeout_seconds: float = Field(
        default=15, gt=0, le=300, description="a receiver that has not answered by then is tried again"
    )
    webhook_concurrency: int = Field(default=200, ge=1, description="deliveries that one API process sends at once")
    webhook_concurrency_per_webhook: int = Field(default=4, ge=1, description="of these, to one webhook at most")
    webhook_poll_seconds: float = Field(default=1, gt=0, description="how often new deliveries are looked for")
    webhook_backoff_seconds: float = Field(
        default=5, ge=0, description="before a delivery's second try; doubles each time, up to 6 hours"
    )
    webhook_give_up_days: float = Field(default=3, gt=0, description="a delivery that still fails then is given up")
    webhook_disable_days: float = Field(
        default=5, gt=0, description="a webhook that got nothing for so long is disabled when a delivery is given up"
    )
    webhook_history_days: float = Field(default=30, gt=0, description="deliveries are shown for so long")
    webhook_secret_overlap_hours: float = Field(
        default=24, ge=0, description="a webhook's secret signs for so long after it was replaced"
    )

    lm_eval_tasks: Path | None = Field(
        default=None, description="folder of lm-evaluation-harness tasks of one's own; they may run Python on workers"
    )
    worker_device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="where a worker computes; auto: cuda where it is present",
    )
    worker_devices: str = Field(
        default="", description="devices that align together, as in cuda:0,cuda:1; empty: worker_device alone"
    )
    worker_queues: str = Field(
        default="",
        description="queues whose jobs a worker takes, as in cpu,8,16: without GPU work, or by the GiB that they need; "
        "empty: all that it holds",
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
        return init_settings, _FilesOfTheEnvironment(settings_cls), env_settings

    @field_validator("database_url")
    @classmethod
    def _of_a_known_kind(cls, url: str) -> str:
        if url and re.fullmatch(r"(sqlite|postgresql)(\+\w+)?://.*", url, re.DOTALL) is None:
            raise ValueError("this is neither sqlite:///… nor postgresql://…")
        return url

    @field_validator("worker_devices")
    @classmethod
    def _devices_that_can_work_together(cls, names: str) -> str:
        device_names(names)
        return names

    @field_validator("worker_queues")
    @classmethod
    def _queues_that_there_are(cls, names: str) -> str:
        queue_names(names)
        return names

    @field_validator(
        *("hub_endpoint", "hub_url", "encryption_key", "oidc_issuer", "oidc_client_id", "metrics_port"),
        *(f"quota_{name}" for name in _QUOTAS),
        mode="before",
    )
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value == "" else value

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

    @field_validator("oidc_issuer")
    @classmethod
    def _safe_issuer(cls, url: str | None) -> str | None:
        if url is not None and (not is_safe(url) or "?" in url or "#" in url):
            raise ValueError("this is not an https URL without ? and # (http is for this machine alone)")
        return url  # whole: some issuers end with a slash

    @field_validator("oidc_scopes")
    @classmethod
    def _with_openid(cls, scopes: str) -> str:
        if "openid" not in scopes.split():
            raise ValueError("openid is missing: without it nobody is identified")
        return scopes

    @model_validator(mode="after")
    def _whole_registration(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError("oidc_issuer and oidc_client_id belong together: set both, or none")
        return self

    @model_validator(mode="after")
    def _heartbeats_within_a_lease(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"heartbeat_seconds {self.heartbeat_seconds:g} is more than half of lease_seconds "
                f"{self.lease_seconds:g}: one late heartbeat would cost a job"
            )
        return self

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
        os.environ.pop(f"{_PREFIX}{name.upper()}", None)


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
