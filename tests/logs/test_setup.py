"""What processes of the service write: read by a machine, line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

#: as a process of the service begins
BEGIN = """
import logging, sys, threading
from publisher.logs import fields
from publisher.logs.setup import configure
from publisher.settings import Settings
configure(Settings(), "worker", device="cpu")
logger = logging.getLogger("publisher.jobs")
"""


def run(script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {f"PUBLISHER_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-c", BEGIN + script], env=environment, capture_output=True, text=True, check=False
    )


def lines_of(script: str, **settings: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(script, **settings).stderr.splitlines()]


def test_each_line_is_an_object_that_says_what_it_is_about() -> None:
    (line,) = lines_of('fields.begin(job="job_1", stage=None); logger.warning("%s waits", "it", extra={"seconds": 3})')
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        **{"level": "warning", "service": "worker", "event": "it waits", "job": "job_1"},
        **{"seconds": 3, "logger": "publisher.jobs", "device": "cpu"},
    }


def test_a_thread_tells_the_lines_of_the_task_that_it_works_for() -> None:
    script = """
import asyncio
async def request():
    fields.begin(request_id="r1")
    await asyncio.to_thread(fields.tell, tenant="ten_1")
    logger.warning("answered")
asyncio.run(request())
logger.warning("another")
"""
    answered, another = lines_of(script)
    assert (answered["request_id"], answered["tenant"]) == ("r1", "ten_1")
    assert "tenant" not in another


def test_what_ends_a_process_or_a_thread_is_a_line_with_its_traceback_and_without_secrets() -> None:
    script = """
def work(): raise ValueError("Bearer " + "abc" * 9)
thread = threading.Thread(target=work); thread.start(); thread.join()
work()
"""
    done = run(script, log_format="json")
    of_thread, of_process = (json.loads(line) for line in done.stderr.splitlines())
    assert done.returncode == 1
    assert of_thread["level"] == of_process["level"] == "critical"
    assert "in work" in of_process["exception"]
    assert "abcabc" not in done.stderr


def test_the_level_is_for_our_own_code_and_libraries_only_warn() -> None:
    script = (
        'for name in ("publisher.x", "httpx"): logging.getLogger(name).info("one"); logging.getLogger(name).error("2")'
    )
    assert [line["event"] for line in lines_of(script)] == ["one", "2", "2"]
    assert [line["event"] for line in lines_of(script, log_level="error")] == ["2", "2"]


SERVED = """
import logging.config
from uvicorn.config import LOGGING_CONFIG
logging.config.dictConfig(LOGGING_CONFIG)
configure(Settings(), "hub")
logging.getLogger("uvicorn.error").info("Started")
request = ("127.0.0.1:1", "GET", "/a?signature=abcdef", "1.1", 200)
logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *request)
"""


def test_what_a_server_writes_comes_out_like_everything_else() -> None:
    started, access = lines_of(SERVED)
    assert (started["service"], started["event"]) == ("hub", "Started")
    assert access["event"] == '127.0.0.1:1 - "GET /a?signature=[hidden] HTTP/1.1" 200'
    assert lines_of(SERVED, log_level="warning") == []  # publisher up: a terminal is not for a line per request


def test_access_lines_that_the_server_was_told_to_leave_out_stay_out() -> None:
    # as uvicorn does for --no-access-log
    silence = """
access = logging.getLogger("uvicorn.access")
access.handlers, access.propagate = [], False
configure("""
    silenced = SERVED.replace("\nconfigure(", silence)
    assert [line["event"] for line in lines_of(silenced)] == ["Started"]


def test_a_process_that_configures_twice_says_everything_once() -> None:
    assert len(lines_of('configure(Settings(), "job"); logger.warning("once")')) == 1


def test_people_get_lines_instead_of_objects() -> None:
    shown = run('fields.begin(job="job_1"); logger.warning("it waits")', log_format="console").stderr
    assert "it waits" in shown
    assert "job=job_1" in shown
    assert not shown.startswith("{")


def test_what_libraries_warn_of_is_a_line_too(tmp_path: Path) -> None:
    (line,) = lines_of('import warnings; warnings.warn("old")')
    assert line["logger"] == "py.warnings"
    assert "old" in line["event"]
