"""A real server with the dashboard; each test signs in as a tenant of its own."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from publisher.api.fan_out import FanOut
from publisher.api.service import Service
from publisher.app import create_app
from publisher.settings import Settings
from publisher.store.database import Database
from tests.dashboard.chromium import Chromium, chromium
from tests.dashboard.rows import Account
from tests.servers import listen

CSRF = re.compile(r'name="csrf" value="([0-9a-f]+)"')


@dataclass(frozen=True)
class RunningDashboard:
    url: str
    database: Database
    fan_out: FanOut
    service: Service
    data: Path

    @property
    def corpora(self) -> Path:
        """A folder that text may be registered from."""
        folder = self.data / "corpora"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def streams(self) -> int:
        """How many are open."""
        return len(self.fan_out.listeners)

    def account(self, key_name: str = "laptop") -> Account:
        return Account.create(self.database, f"tenant-{secrets.token_hex(6)}", key_name)

    def browser(self) -> httpx.Client:
        """Keeps cookies, follows nothing by itself."""
        return httpx.Client(base_url=self.url, timeout=30)

    @contextmanager
    def signed_in(self, account: Account) -> Iterator[httpx.Client]:
        with self.browser() as browser:
            assert sign_in(browser, account.key).status_code == 303
            yield browser


def sign_in(browser: httpx.Client, key: str, **fields: str) -> httpx.Response:
    """Load the form and send it."""
    form = browser.get("/login")
    return browser.post("/login", data={"csrf": csrf(form), "key": key} | fields)


def csrf(response: httpx.Response) -> str:
    found = CSRF.search(response.text)
    assert found is not None, response.text
    return found[1]


@contextmanager
def serve(data: Path, port: int = 0, **changes: Any) -> Iterator[RunningDashboard]:
    """The application on `port` (0: a free one) until the block is left. The reaper sleeps, so that tests decide."""
    listener = listen(port)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    defaults: dict[str, Any] = {"data_dir": data / "data", "public_url": url, "reaper_seconds": 3600}
    settings = Settings(**(defaults | changes))
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        httpx.get(f"{url}/healthz", timeout=60).raise_for_status()
        yield RunningDashboard(url, app.state.service.database, app.state.fan_out, app.state.service, settings.data_dir)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="package")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with serve(tmp_path_factory.mktemp("dashboard")) as running:
        yield running


@pytest.fixture(scope="package")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    """One that takes Hubs on this machine, and leaves webhooks' deliveries as the pages have made them."""
    changes = {"allow_private_addresses": True, "webhook_poll_seconds": 3600}
    with serve(tmp_path_factory.mktemp("quiet"), **changes) as running:
        yield running


@pytest.fixture
def account(dashboard: RunningDashboard) -> Account:
    return dashboard.account()


@pytest.fixture
def browser(dashboard: RunningDashboard, account: Account) -> Iterator[httpx.Client]:
    """Signed in."""
    with dashboard.signed_in(account) as browser:
        yield browser


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A browser's window as large as a laptop's; a file that wants another has a fixture of this name."""
    with chromium(tmp_path_factory.mktemp("chromium")) as window:
        window.emulate(1280, 900)
        yield window
