"""Settings: the embedded form by default, and a secret that is made once."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from publisher.settings import Settings, device_names


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
    with pytest.raises(ValidationError, match="is not an http"):
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
