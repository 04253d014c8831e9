"""`publisher admin tenant`: the teams that share an installation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy.orm import Session

from publisher.client.admin.installation import installation
from publisher.client.admin.place import data_option
from publisher.hub.names import check_namespace
from publisher.jobs.suspension import pause_running, resume_tenant
from publisher.store import namespaces, tenants
from publisher.store.models import Tenant


@click.group()
def tenant() -> None:
    """Make, look at, suspend and resume tenants: teams that share this installation and see nothing of each other."""


@tenant.command()
@data_option
@click.argument("name")
def create(name: str, data_dir: Path | None) -> None:
    """Make a tenant, with the namespace of its name in the embedded Hub."""
    check_namespace(name)
    with installation(data_dir) as at, at.database.write() as session:
        made = tenants.create_tenant(session, name)
        own = name in namespaces.namespaces_of(session, made.id)
    click.echo(f"Made tenant {name}. Its first key: publisher admin key create --tenant {name}")
    if not own:
        click.echo(
            f"Namespace {name} of the Hub is another tenant's; grant it one: publisher admin tenant grant {name} …"
        )


@tenant.command("list")
@data_option
def list_(data_dir: Path | None) -> None:
    """List tenants, with their namespaces, folders and unfinished jobs."""
    with installation(data_dir) as at, at.database.read() as session:
        for row in tenants.all_tenants(session):
            click.echo("\n  ".join(_described(session, row)))


def _described(session: Session, row: Tenant) -> list[str]:
    lines = [f"{row.name}  ({row.id}, since {moment(row.created_at)})"]
    if row.suspended_at is not None:
        lines.append(f"suspended since {moment(row.suspended_at)}")
    lines.append(f"namespaces: {', '.join(namespaces.namespaces_of(session, row.id)) or 'none'}")
    if row.local_roots is not None:
        lines.append(f"folders: {', '.join(row.local_roots) or 'none'}")
    jobs = tenants.unfinished_jobs(session, row.id)
    lines.append(f"jobs: {', '.join(f'{number} {state}' for state, number in sorted(jobs.items())) or 'none'}")
    return lines


@tenant.command()
@data_option
@click.argument("name")
def suspend(name: str, data_dir: Path | None) -> None:
    """Nobody acts for a tenant any more: its keys, sessions and streams end, queued jobs wait, running ones pause."""
    with installation(data_dir) as at:
        with at.database.write() as session:
            tenants.suspend(session, tenants.find_tenant(session, name))
        with at.database.write() as session:
            paused = pause_running(session)
    click.echo(f"Tenant {name} is suspended; {len(paused)} running jobs pause. publisher admin tenant resume {name}")


@tenant.command()
@data_option
@click.argument("name")
def resume(name: str, data_dir: Path | None) -> None:
    """End a suspension: keys work again, and the jobs that it paused go on."""
    with installation(data_dir) as at:
        with at.database.write() as session:
            resumed = resume_tenant(session, tenants.find_tenant(session, name, locked=False))
        at.send(resumed)
    click.echo(f"Tenant {name} goes on; {len(resumed)} paused jobs are queued again.")


@tenant.command()
@data_option
@click.argument("name")
@click.argument("namespace")
def grant(name: str, namespace: str, data_dir: Path | None) -> None:
    """Give a tenant a namespace of the embedded Hub."""
    check_namespace(namespace)
    with installation(data_dir) as at, at.database.write() as session:
        namespaces.grant(session, namespace, tenants.find_tenant(session, name))
    click.echo(f"Namespace {namespace} is tenant {name}'s.")


@tenant.command()
@data_option
@click.argument("name")
@click.argument("namespace")
def ungrant(name: str, namespace: str, data_dir: Path | None) -> None:
    """Take a namespace back: nobody makes repositories there until it is granted again. Those that there are stay."""
    with installation(data_dir) as at, at.database.write() as session:
        namespaces.ungrant(session, namespace, tenants.find_tenant(session, name))
    click.echo(f"Namespace {namespace} is nobody's.")


@tenant.command()
@data_option
@click.argument("name")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--default", "as_settings", is_flag=True, help="those of PUBLISHER_LOCAL_ROOTS again")
@click.option("--none", "from_none", is_flag=True, help="from Hubs alone")
def roots(name: str, paths: tuple[Path, ...], as_settings: bool, from_none: bool, data_dir: Path | None) -> None:
    """Say from which folders a tenant may register by path, instead of those of the settings; or show them."""
    if (bool(paths), as_settings, from_none).count(True) > 1:
        raise click.UsageError("give PATHS, --default or --none")
    with installation(data_dir) as at, at.database.write() as session:
        row = tenants.find_tenant(session, name)
        if paths or as_settings or from_none:
            tenants.set_local_roots(session, row, None if as_settings else paths, at.settings.data_dir)
        kept = row.local_roots
    folders = "the folders of the settings" if kept is None else ", ".join(kept) or "no folder"
    click.echo(f"Tenant {name} registers from {folders}.")
    for path in paths:
        if not path.is_dir():
            click.echo(f"There is no folder {path} on this machine.", err=True)


def moment(at: float) -> str:
    """`at` in seconds since 1970."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
