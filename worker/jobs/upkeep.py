"""The stage store of a worker's machine: its limits by the settings, and which jobs still want what is in it."""

from __future__ import annotations

import logging
import shutil
import threading

from sqlalchemy.exc import SQLAlchemyError

from publisher.files.amounts import size
from publisher.settings import Settings
from publisher.store.database import Database
from publisher.store.faults import why_away
from publisher.store.resources import unfinished
from worker.storage.collection import Limits, Upkeep, collect
from worker.storage.uses import StillWanted

logger = logging.getLogger(__name__)

#: of the disk, and at most
_FREE_SHARE, _MOST_FREE = 20, 4 * 2**30


def stage_limits(settings: Settings) -> Limits:
    """Those that are not set depend on the disk."""
    folder = next(path for path in (settings.data_dir, *settings.data_dir.absolute().parents) if path.exists())
    share = min(shutil.disk_usage(folder).total // _FREE_SHARE, _MOST_FREE)
    return Limits(settings.stages_bytes, share if settings.disk_free_bytes is None else settings.disk_free_bytes)


def stage_upkeep(database: Database, settings: Settings) -> Upkeep:
    return Upkeep(stage_limits(settings), going_on(database), collects=True)


def going_on(database: Database) -> StillWanted:
    """Which of some jobs are not over: queued, running or paused. All of them while the database does not say."""

    def still_wanted(jobs: frozenset[str]) -> frozenset[str]:
        if not jobs:
            return jobs
        try:
            with database.read() as session:
                return unfinished(session, jobs)
        except SQLAlchemyError as error:
            logger.warning("no job's stages are collected: %s", why_away(error))
            return jobs

    return still_wanted


def collect_in_background(database: Database, settings: Settings) -> None:
    """When a worker starts: what processes that died have left, and what is above the limits. Returns at once."""
    threading.Thread(target=_collect, args=(database, settings), name="stage-upkeep", daemon=True).start()


def _collect(database: Database, settings: Settings) -> None:
    upkeep = stage_upkeep(database, settings)
    try:
        removed = collect(settings.stages_dir, upkeep.limits, still_wanted=upkeep.still_wanted)
    except OSError as error:
        return logger.warning("stages were not collected: %s", error)
    finally:
        database.close()
    if removed:
        logger.info("collected %s in %d stages and remains", size(sum(r.freed for r in removed)), len(removed))
    return None
