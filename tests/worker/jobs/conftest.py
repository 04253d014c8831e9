from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from publisher.hub_client.patience import impatient
from tests.worker.jobs.publishing import Publishing, publishing


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishing]:
    """The stages before publishing are made once."""
    constants.HF_HUB_DISABLE_XET = True
    with publishing(tmp_path_factory.mktemp("publishing")) as made:
        yield made


@pytest.fixture
def jobs(service: Publishing) -> Iterator[Publishing]:
    """With nobody in the middle yet, and a client as jobs' processes have it."""
    service.middle.reset()
    impatient()
    yield service
    service.middle.reset()
    set_client_factory(default_client_factory)
