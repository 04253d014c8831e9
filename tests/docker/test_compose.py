"""docker-compose.yml: hardened, healthy, without secrets in it, and with settings that exist."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from publisher.settings import Settings
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONCE = {"migrate"}
OURS = {"migrate", "api", "worker", "worker-gpu"}
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def with_defaults(text: str, given: dict[str, str] | None = None) -> str:
    """As Compose fills `${NAME:-default}` in, and `$$` is a dollar."""
    return VARIABLE.sub(lambda found: (given or {}).get(found[1]) or found[2] or "", text).replace("$$", "$")


def example() -> dict[str, str]:
    lines = (ROOT / "docker" / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))


def environment(service: str) -> dict[str, str]:
    """Without what is only passed on where it is set."""
    given = SERVICES[service].get("environment", {})
    return {name: with_defaults(str(value)) for name, value in given.items() if value is not None}


def setting_of(variable: str) -> str:
    return variable.removeprefix("PUBLISHER_").removesuffix("_FILE").lower()


def test_the_services_are_those_of_a_whole_installation() -> None:
    assert set(SERVICES) == {"postgres", "redis"} | OURS
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"worker-gpu"}
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_it_can_change_nothing_but_its_volumes_and_memory(self, name: str) -> None:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert any(mount.split(":")[0] == "/tmp" for mount in service["tmpfs"])
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        for volume in service.get("volumes", []):
            source, *_, mode = with_defaults(volume).split(":")
            assert source in COMPOSE["volumes"] or mode == "ro", volume

    def test_it_is_not_root(self, name: str) -> None:
        # ours are somebody else by their Dockerfile
        assert name in OURS or SERVICES[name]["user"] not in ("root", "0")

    def test_it_is_healthy_or_over(self, name: str) -> None:
        assert name in ONCE or SERVICES[name]["healthcheck"]["test"]

    def test_its_image_is_pinned_and_can_be_built_if_it_is_ours(self, name: str) -> None:
        service = SERVICES[name]
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+(\.\d+)?(-[a-z]+)?", with_defaults(service["image"]))
        if name in OURS:
            assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).exists()

    def test_it_waits_for_what_it_needs_until_that_is_well(self, name: str) -> None:
        for needed, how in SERVICES[name].get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == expected

    def test_its_secrets_are_files_that_the_script_makes(self, name: str) -> None:
        handed = set(SERVICES[name].get("secrets", []))
        assert handed <= set(COMPOSE["secrets"])
        text = yaml.safe_dump({key: SERVICES[name].get(key) for key in ("environment", "command", "healthcheck")})
        assert set(re.findall(r"/run/secrets/([\w-]+)", text)) == handed

    def test_no_secret_is_in_its_environment(self, name: str) -> None:
        for variable, value in environment(name).items():
            if re.search(r"SECRET|TOKEN|PASSWORD|KEY", variable):
                assert variable.endswith("_FILE")
                assert value.startswith("/run/secrets/")
            assert not re.search(r"://[^/]*:[^/]*@", value), "an address with a password"

    def test_every_setting_that_it_is_given_exists(self, name: str) -> None:
        for variable in SERVICES[name].get("environment", {}):
            if variable.startswith("PUBLISHER_"):
                assert setting_of(variable) in Settings.model_fields, variable


#: where everything lies in a container
FIXED = {"data_dir"}
API_ALONE = {"bootstrap_key", "metrics_port", "metrics_address"}
WORKERS_ALONE = {"worker_device", "worker_devices", "worker_queues", "signing_key"}


@pytest.mark.parametrize("name", ["api", "worker", "worker-gpu"])
def test_every_setting_reaches_it(name: str) -> None:
    """A line in docker-compose.yml's x-settings, `PUBLISHER_X:` without a value, passes on what .env says."""
    reached = {setting_of(variable) for variable in SERVICES[name]["environment"]}
    of_others = {"api": WORKERS_ALONE, "worker": {"worker_devices", *API_ALONE}, "worker-gpu": API_ALONE}
    assert Settings.model_fields.keys() - FIXED - of_others[name] == reached


@pytest.mark.parametrize("name", sorted(OURS))
def test_its_settings_are_valid_with_the_secrets_that_the_script_makes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_secrets(tmp_path / "secrets")
    for variable, value in environment(name).items():
        monkeypatch.setenv(variable, value.replace("/run/secrets", str(tmp_path / "secrets")))
    settings = Settings()
    password = (tmp_path / "secrets" / "postgres-password").read_text()
    assert settings.resolved_database_url == f"postgresql://loram:{password}@postgres:5432/loram"
    if name == "migrate":
        return
    assert settings.secret_bytes() == (tmp_path / "secrets" / "signing-secret").read_bytes()
    assert settings.hub_is_embedded
    assert settings.hub_token is settings.base_model_token is None
    assert settings.local_roots == [Path("/local")]


def test_workers_reach_the_hub_under_the_name_that_people_use() -> None:
    host = with_defaults(SERVICES["api"]["environment"]["PUBLISHER_PUBLIC_URL"]).removeprefix("http://").split(":")[0]
    assert host in SERVICES["api"]["networks"]["default"]["aliases"]


def test_the_example_of_an_environment_has_every_variable_with_its_default() -> None:
    used = dict(VARIABLE.findall((ROOT / "docker-compose.yml").read_text()))
    commented = re.findall(r"(?m)^#(\w+)=", (ROOT / "docker" / "env.example").read_text())
    given = example()
    assert {*given, *commented} - {"COMPOSE_PROJECT_NAME"} == set(used) - {"IMAGE_TAG"}
    for name, value in given.items():
        assert name == "COMPOSE_PROJECT_NAME" or value == used[name], name


def test_every_secret_is_declared_as_a_file_that_no_commit_takes_in() -> None:
    folders = {Path(secret["file"]).parent for secret in COMPOSE["secrets"].values()}
    assert folders == {Path("docker/secrets")}
    assert {"/docker/secrets/", "/.env"} <= set((ROOT / ".gitignore").read_text().splitlines())


def make_secrets(folder: Path) -> str:
    command = ["sh", str(ROOT / "docker" / "make-secrets.sh"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_secrets_are_made_once_for_containers_to_read_and_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == set(COMPOSE["secrets"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in made} == {0o444}
    random = [made[name] for name in ("postgres-password", "redis-password", "signing-secret", "api-key")]
    assert len(set(random)) == 4
    assert all(len(text) >= 43 for text in random)
    assert make_secrets(folder) == "", "all are there"
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_redis_starts_by_the_command_with_the_password_and_keeps_it_out_of_sight(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets")
    port, password = free_port(), (tmp_path / "secrets" / "redis-password").read_text()
    shell, option, script = (with_defaults(word) for word in SERVICES["redis"]["command"])
    script = script.replace("port 6379", f"port {port}").replace("/run/secrets", str(tmp_path / "secrets"))
    with (tmp_path / "redis.log").open("w") as log:
        process = subprocess.Popen([shell, option, script], cwd=tmp_path, stdout=log, stderr=log)
    try:
        with redis.Redis(port=port, password=password) as client:
            wait_until(lambda: answers(client), "start of Redis")
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes() + Path(f"/proc/{process.pid}/environ").read_bytes()
        assert password.encode() not in seen
        _, check = SERVICES["redis"]["healthcheck"]["test"]
        check = with_defaults(check).replace("/run/secrets", str(tmp_path / "secrets"))
        check = check.replace("redis-cli", f"redis-cli -p {port}")
        subprocess.run(["sh", "-c", check], check=True, env={"PATH": os.environ["PATH"]})
    finally:
        process.terminate()
        process.wait(10)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
