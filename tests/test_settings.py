"""Settings: the embedded form by default, and a secret that is made once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsError
from redis import Redis
from sqlalchemy.engine import make_url

from publisher.configuration.workers import device_names
from publisher.errors import RequestFault
from publisher.settings import Settings, settings


def test_everything_lies_below_the_data_folder_by_default(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, public_url="http://127.0.0.1:9000/")
    assert settings.resolved_database_url == f"sqlite:///{tmp_path / 'publisher.db'}"
    assert settings.resolved_hub_endpoint == "http://127.0.0.1:9000/hub"
    assert settings.is_embedded_hub("http://127.0.0.1:9000/hub/")
    assert settings.allowed_roots == [tmp_path / "models", tmp_path / "corpora"]


def test_processes_that_start_together_agree_on_one_private_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: Settings(data_dir=tmp_path).secret_bytes(), range(32)))
    assert len(secrets) == 1
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_secrets_do_not_show_when_settings_are_printed(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secret=SecretStr("hidden-value"), hub_token=SecretStr("hidden-token"))
    assert "hidden" not in repr(settings)


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValidationError, match="not an http"):
        Settings(public_url="localhost:8000")


@pytest.mark.parametrize("names", ["cuda:0,cuda:1,cuda:3", "cpu,cpu", ""])
def test_devices_that_align_together(names: str) -> None:
    assert device_names(Settings(worker_devices=names).worker_devices) == tuple(names.split(",") if names else ())


@pytest.mark.parametrize("names", ["cuda:0", "cpu", "cuda,cuda", "cuda:0,cuda:0", "cuda:0,cpu", "cuda:0, cuda:1"])
def test_devices_that_cannot_align_together_are_refused(names: str) -> None:
    with pytest.raises(ValidationError, match="neither two or more different GPUs"):
        Settings(worker_devices=names)


def test_the_embedded_hub_has_an_address_of_its_own_where_one_is_set() -> None:
    settings = Settings(public_url="https://loram.example.org", hub_url="https://hub.example.org/")
    assert settings.resolved_hub_endpoint == "https://hub.example.org"
    # what was published before the setting is still ours
    assert settings.is_embedded_hub("https://hub.example.org")
    assert settings.is_embedded_hub("https://loram.example.org/hub")
    assert not settings.is_embedded_hub("https://huggingface.co")


def test_an_empty_hub_endpoint_is_the_embedded_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_HUB_ENDPOINT", "")
    assert Settings().hub_is_embedded


def test_a_hub_elsewhere_makes_no_address_the_embedded_hubs() -> None:
    settings = Settings(hub_endpoint="https://huggingface.co")
    assert not settings.is_embedded_hub("https://huggingface.co")


def in_file(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_secret_comes_from_the_file_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBLISHER_SECRET_FILE", in_file(tmp_path, "secret", "from a file\n"))
    assert Settings().secret_bytes() == b"from a file"


def test_any_setting_may_lie_in_a_file_also_one_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_LOCAL_ROOTS_FILE", in_file(tmp_path, "roots", '["/models", "/corpora"]'))
    monkeypatch.setenv("PUBLISHER_LEASE_SECONDS_FILE", in_file(tmp_path, "lease", "42"))
    assert Settings().local_roots == [Path("/models"), Path("/corpora")]
    assert Settings().lease_seconds == 42


def test_an_empty_file_is_a_secret_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_HUB_TOKEN_FILE", in_file(tmp_path, "token", "\n"))
    assert Settings().hub_token is None


def test_a_value_and_a_file_for_one_setting_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_SECRET_FILE", in_file(tmp_path, "secret", "one"))
    monkeypatch.setenv("PUBLISHER_SECRET", "another")
    with pytest.raises(SettingsError, match="PUBLISHER_SECRET and PUBLISHER_SECRET_FILE are both set"):
        Settings()


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"\xff\xfe", "not UTF-8")])
def test_a_file_that_cannot_be_read_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, why: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("PUBLISHER_SECRET_FILE", str(tmp_path / "secret"))
    with pytest.raises(SettingsError, match=rf"PUBLISHER_SECRET_FILE names {tmp_path}/secret.*{why}"):
        Settings()


def test_passwords_go_into_the_addresses_whatever_characters_they_have() -> None:
    settings = Settings(
        database_url="postgresql://loram@db:5432/loram?sslmode=require",
        database_password=SecretStr("p@ss:/w?rd"),
        broker_url="redis://redis:6379/0",
        broker_password=SecretStr("pass@word"),
    )
    url = make_url(settings.resolved_database_url)
    assert (url.username, url.password, url.host, url.port, url.database) == (
        "loram",
        "p@ss:/w?rd",
        "db",
        5432,
        "loram",
    )
    assert url.query == {"sslmode": "require"}
    assert Redis.from_url(settings.resolved_broker_url).connection_pool.connection_kwargs["password"] == "pass@word"
    assert "p@ss" not in repr(settings)


def test_addresses_without_a_password_stay_as_they_are() -> None:
    settings = Settings(database_url="postgresql://me:mine@db/loram", broker_url="filesystem://")
    assert settings.resolved_database_url == "postgresql://me:mine@db/loram"
    assert settings.resolved_broker_url == "filesystem://"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"database_password": "x"}, "database_url names no server"),
        ({"broker_password": "x"}, "broker_url names no server"),
        ({"database_password": "x", "database_url": "postgresql://me:mine@db/loram"}, "has a password too"),
    ],
)
def test_a_password_that_belongs_nowhere_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Settings.model_validate(values)


def test_wrong_settings_are_named_by_their_variables_and_without_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_LEASE_SECONDS", "s3cret")
    monkeypatch.setenv("PUBLISHER_DATABASE_URL", "mysql://root:s3cret@host/x")
    settings.cache_clear()
    with pytest.raises(RequestFault, match="PUBLISHER_DATABASE_URL: this is neither") as fault:
        settings()
    assert "PUBLISHER_LEASE_SECONDS: " in str(fault.value)
    assert "s3cret" not in str(fault.value)
    assert fault.value.__cause__ is None


def test_wrong_settings_start_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "publisher.client.main", "up", "--data", str(tmp_path / "data")]
    environment = os.environ | {"PUBLISHER_LEASE_SECONDS": "abc"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert done.stderr.startswith("Error: Wrong settings: PUBLISHER_LEASE_SECONDS: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("postgresql://u@h/d?application_name=a@b", "postgresql://u:p%40w@h/d?application_name=a@b"),
        ("postgresql://h/d", "postgresql://:p%40w@h/d"),
    ],
)
def test_a_password_goes_to_the_server_and_nowhere_else(url: str, whole: str) -> None:
    assert Settings(database_url=url, database_password=SecretStr("p@w")).resolved_database_url == whole


def test_no_password_is_in_what_is_said_of_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISHER_DATABASE_PASSWORD", "s3cret")
    with pytest.raises(ValidationError) as error:
        Settings()
    assert "s3cret" not in str(error.value)


def test_a_file_that_holds_no_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roots").write_text("/tmp")
    monkeypatch.setenv("PUBLISHER_LOCAL_ROOTS_FILE", str(tmp_path / "roots"))
    with pytest.raises(SettingsError, match="PUBLISHER_LOCAL_ROOTS_FILE names a file that holds no JSON"):
        Settings()


@pytest.mark.parametrize("names", ["3", "gpu", "8,", "cpu;8", "8192", "08", "٨"])
def test_a_queue_that_there_is_not_is_refused_with_those_that_there_are(names: str) -> None:
    with pytest.raises(ValidationError, match=r"is no queue; there are cpu, 1, 2, 4, … 4096"):
        Settings(worker_queues=names)


def test_a_provider_of_identities_is_named_whole_and_safely() -> None:
    client = {"oidc_client_id": "loram"}
    assert Settings(oidc_issuer="https://id.example/", **client).oidc_issuer == "https://id.example/"  # slash and all
    assert Settings(oidc_issuer="", oidc_client_id="").oidc_issuer is None
    for issuer in ("http://id.example", "id.example", "https://id.example?x", "https://", "http://127.0.0.1.example"):
        with pytest.raises(ValidationError, match="not an https URL"):
            Settings(oidc_issuer=issuer, **client)
    for half in ({"oidc_issuer": "https://id.example"}, client):
        with pytest.raises(ValidationError, match="belong together"):
            Settings(**half)
    with pytest.raises(ValidationError, match="openid is missing"):
        Settings(oidc_scopes="profile email")


def test_rules_of_membership_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    by_group = {"claim": "groups", "value": "ml", "tenant": "lab", "role": "admin"}
    monkeypatch.setenv("PUBLISHER_OIDC_RULES", json.dumps([by_group, {"email_domain": "@A.org", "tenant": "b"}]))
    first, second = Settings().oidc_rules
    assert (first.claim, first.role) == ("groups", "admin")
    assert (second.email_domain, second.role) == ("a.org", "viewer")


@pytest.mark.parametrize(
    "rule",
    [
        {"tenant": "lab"},
        {"claim": "groups", "tenant": "lab"},
        {"claim": "groups", "value": "ml", "email_domain": "a.org", "tenant": "lab"},
        {"email_domain": "a.org"},
        {"email_domain": "a.org", "tenant": "lab", "role": "owner"},
        {"email_domain": "a.org", "tenant": "lab", "group": "ml"},
    ],
)
def test_a_rule_that_says_too_little_or_too_much_is_refused(rule: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(oidc_rules=[rule])  # type: ignore[list-item]
