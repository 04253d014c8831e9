"""Every process's log on one stream: a JSON object a line for machines, or lines for people at a terminal.

Code logs through the standard library; structlog adds what the work is about and renders. uvicorn's and Celery's own
lines come out the same way.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import MutableMapping
from logging.handlers import WatchedFileHandler
from types import TracebackType
from typing import Any

import structlog

from publisher.logs.fields import add_fields
from publisher.logs.secrecy import Secrecy, secrets_of
from publisher.settings import Settings

Line = MutableMapping[str, Any]

#: loggers that the level is for; libraries tell of warnings, and no more: httpx would log each address, with signatures
_OWN = ("publisher", "worker", "__main__", "uvicorn", "celery")
#: the order of a JSON line's first fields
_FIRST = ("timestamp", "level", "service", "event", "request_id", "tenant", "job", "variant", "attempt", "stage")


def configure(settings: Settings, service: str, *, file: str | None = None, **fields: object) -> None:
    """Have this process log as the settings say, to stderr or to `file`. May be called again.

    `service`: api, hub, worker or job; `fields`: further ones that every line of this process carries.
    """
    handler = logging.StreamHandler(sys.stderr) if file is None else WatchedFileHandler(file)
    handler.name = __name__
    handler.setFormatter(_formatter(settings, {"service": service, **fields}, is_file=file is not None))
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if each.name == __name__]:
        root.removeHandler(earlier)
        earlier.close()
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, settings.log_level_number))
    for name in _OWN:
        logging.getLogger(name).setLevel(settings.log_level_number)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        _take_over(logging.getLogger(name), settings.log_level_number)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_of_thread


def take_over_access_log() -> bool:
    """Silence uvicorn's own access lines, which know neither tenant nor job; whether its options asked for them."""
    access = logging.getLogger("uvicorn.access")
    wanted = access.hasHandlers() and access.isEnabledFor(logging.INFO)
    access.handlers.clear()
    access.propagate = False
    return wanted


def _take_over(logger: logging.Logger, level: int) -> None:
    """What it writes goes where everything goes, and no more of it; if it writes at all (uvicorn's --no-access-log)."""
    if logger.hasHandlers():
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(level, logger.level))


def _formatter(settings: Settings, static: dict[str, object], *, is_file: bool) -> logging.Formatter:
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and (is_file or not sys.stderr.isatty()))

    def add_static(logger: object, method: str, line: Line) -> Line:
        for name, value in static.items():
            if value is not None:
                line.setdefault(name, value)
        return line

    before: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_fields,
        add_static,
        structlog.processors.format_exc_info,
    ]
    after: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _without_colours_of_uvicorn,
        Secrecy(secrets_of(settings)),
        _as_json if as_json else _for_people(),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=after)


def _without_colours_of_uvicorn(logger: object, method: str, line: Line) -> Line:
    line.pop("color_message", None)
    return line


def _as_json(logger: object, method: str, line: Line) -> str:
    ordered = {name: line[name] for name in _FIRST if name in line}
    return json.dumps(ordered | dict(line), default=str, ensure_ascii=False)


def _for_people() -> structlog.dev.ConsoleRenderer:
    # the order of a process's own fields says more than the alphabet's
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and "NO_COLOR" not in os.environ, sort_keys=False)


def _log_uncaught(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, at)
        return
    logging.getLogger("publisher").critical("the process ends: %s", error, exc_info=(kind, error, at))


def _log_uncaught_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
        name = ended.thread.name if ended.thread else "a thread"
        about = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logging.getLogger("publisher").critical("thread %s ends: %s", name, ended.exc_value, exc_info=about)
