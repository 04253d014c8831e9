"""`publisher up` supervises its processes, and they end with it however it ends."""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from huggingface_hub import HfApi, hf_hub_download

from publisher.client.up import is_ready, port_of_hub, service_environment
from publisher.errors import RequestFault
from tests.e2e.conftest import KEY, Service, start_service, wait_ready

pytestmark = pytest.mark.e2e


def until_ready_again(service: Service) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if is_ready(service.url):
                return
        except httpx.TransportError:
            continue
    pytest.fail("the API did not come back")


def test_no_process_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    wait_ready(service)
    children = psutil.Process(service.process.pid).children(recursive=True)
    assert len(children) >= 2
    service.process.kill()
    service.process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_a_process_that_was_killed_is_started_again(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    try:
        wait_ready(service)
        worker, api = service.worker(), service.api()
        api.kill()
        api.wait()
        until_ready_again(service)
        assert service.api().pid != api.pid
        assert service.worker().pid == worker.pid
    finally:
        service.stop()
    assert service.process.returncode == 0


def test_the_hub_answers_at_the_root_of_a_port_and_under_the_api(tmp_path: Path) -> None:
    service = start_service(tmp_path / "data")
    try:
        wait_ready(service)
        said = (service.data / "up.log").read_text()
        (address,) = re.findall(r"Hub: (\S+)", said)
        assert urlsplit(address).path == ""
        assert urlsplit(address).port != urlsplit(service.url).port
        api = HfApi(endpoint=address, token=KEY)
        name = api.whoami()["name"]
        repo = api.create_repo(f"{name}/rooted")
        assert str(repo) == f"{address}/{name}/rooted"
        content = os.urandom(100)
        api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id=repo.repo_id)
        for endpoint in (address, f"{service.url}/hub"):
            got = hf_hub_download(
                repo.repo_id, "w.safetensors", endpoint=endpoint, cache_dir=tmp_path / str(len(endpoint)), token=False
            )
            assert Path(got).read_bytes() == content
    finally:
        service.stop()


def test_the_port_of_the_hub_is_given_up_where_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBLISHER_HUB_ENDPOINT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert port_of_hub("127.0.0.1", port - 1, None) is None
        with pytest.raises(RequestFault, match="--hub-port"):
            port_of_hub("127.0.0.1", port - 1, port)
    assert port_of_hub("127.0.0.1", port - 1, None) == port
    assert port_of_hub("127.0.0.1", port - 1, 0) is None
    monkeypatch.setenv("PUBLISHER_HUB_ENDPOINT", "https://huggingface.co")
    assert port_of_hub("127.0.0.1", port - 1, None) is None


def test_settings_that_lie_in_files_win_as_those_in_variables_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PUBLISHER_PUBLIC_URL", raising=False)
    monkeypatch.setenv("PUBLISHER_PUBLIC_URL_FILE", str(tmp_path / "url"))
    environment = service_environment("127.0.0.1", 8000, None, tmp_path, [])
    assert "PUBLISHER_PUBLIC_URL" not in environment
    assert environment["PUBLISHER_DATA_DIR"] == str(tmp_path)
