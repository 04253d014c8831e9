"""`publisher admin gc`: collect what a machine's stage store, and the embedded Hub, need not keep."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from publisher.client.admin.place import chosen_settings, data_option
from publisher.files.amounts import size
from publisher.hub.garbage import collect_garbage
from publisher.hub.storage import HubStorage
from publisher.settings import Settings
from publisher.store.database import Database
from worker.jobs.upkeep import going_on, stage_limits
from worker.storage.collection import Limits, Removed, collect
from worker.storage.uses import nobody


def size_of(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise click.BadParameter(f"{text!r} is no size such as 200GiB.") from error


@click.command()
@data_option
@click.option(
    "--work",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="instead: the folder of `publisher build --work`",
)
@click.option("--limit", callback=size_of, metavar="SIZE", help="most that stays  [default: PUBLISHER_STAGES_BYTES]")
@click.option("--dry-run", is_flag=True, help="only say what would go")
def gc(data_dir: Path | None, work: Path | None, limit: int | None, dry_run: bool) -> None:
    """Delete remains of processes that died, and the longest unused stages, as far as the limits ask for it.

    What a job needs that is not over stays. Of the embedded Hub goes what no commit has.
    """
    if work is not None:
        return _say(collect(work, Limits(limit), still_wanted=nobody, dry_run=dry_run), dry_run=dry_run)
    chosen = chosen_settings(data_dir)
    _say(_stages(chosen, limit, dry_run=dry_run), dry_run=dry_run)
    if chosen.hub_is_embedded and chosen.hub_dir.is_dir():
        removed = collect_garbage(HubStorage(chosen.hub_dir), dry_run=dry_run)
        click.echo(f"Hub: {_freed(dry_run)} {size(removed.bytes)} in {removed.files:,} files.")
    return None


def _stages(chosen: Settings, limit: int | None, *, dry_run: bool) -> list[Removed]:
    limits = stage_limits(chosen)
    database = Database(chosen.resolved_database_url)
    try:
        wanted = Limits(limits.most if limit is None else limit, limits.keep_free)
        return collect(chosen.stages_dir, wanted, still_wanted=going_on(database), dry_run=dry_run)
    finally:
        database.close()


def _say(removed: list[Removed], *, dry_run: bool) -> None:
    for each in removed:
        click.echo(f"{size(each.freed):>10}  {each.item.what} {each.item.name}: {each.why}")
    freed = size(sum(each.freed for each in removed))
    click.echo(f"Stages: {_freed(dry_run)} {freed} in {len(removed):,} folders and files.")


def _freed(dry_run: bool) -> str:
    return "would free" if dry_run else "freed"
