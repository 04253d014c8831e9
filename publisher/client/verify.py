"""`publisher verify`: whether a checkpoint is as it was published, agrees with itself, and who signed it."""

from __future__ import annotations

import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.client.exit_codes import Exit, Told
from publisher.client.extras import require
from publisher.client.output import Form, Output, output_options, say
from publisher.client.progress import bytes_counted
from publisher.errors import InfrastructureFault, NotFound, PublisherError

if TYPE_CHECKING:
    from publisher.checkpoint.verification import Verification


@click.command()
@click.argument("checkpoint", metavar="DIR_OR_REPO")
@click.option("--revision", help="Commit, branch or tag of the checkpoint's repository.")
@click.option("--endpoint", metavar="URL", help="Hub of the checkpoint's repository; HF_ENDPOINT by default.")
@click.option(
    "--base",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The base model's folder: its files are compared with what the checkpoint was made from.",
)
@click.option("--signature", is_flag=True, help="Check who signed it, too; goes with --public-key.")
@click.option(
    "--public-key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The publisher's public key, as PEM, which you have from the publisher and not from the checkpoint.",
)
@output_options
def verify(
    *,
    checkpoint: str,
    revision: str | None,
    endpoint: str | None,
    base: Path | None,
    signature: bool,
    public_key: Path | None,
    output: Output,
) -> None:
    """Check a checkpoint: all files, weights included, are whole; masks, weights, config and manifest agree; and with
    --signature it is the publisher's.

    A repository is downloaded. Exits 1 with a line for everything that is missing, not as it was published, or
    contradicts something else.
    """
    if signature != (public_key is not None):
        raise click.UsageError("--signature and --public-key FILE go together: a signature alone says nothing.")
    if signature:
        require("sign")
    from publisher.checkpoint.verification import Verification as Found

    try:
        found = verification_of(_opened(checkpoint, revision, endpoint), base, public_key)
    except (NotFound, InfrastructureFault) as error:  # there is nothing to say of
        raise Told(error) from error
    except PublisherError as error:
        problems, document = [" ".join(str(error).split())], dict.fromkeys(each.name for each in fields(Found))
    else:
        problems, document = [*found.problems], asdict(found)
        _say(found)
    for problem in problems:
        say(f"Error: {problem}")
    _answer(output, checkpoint, {"checkpoint": checkpoint, "whole": not problems} | document | {"problems": problems})
    if problems:
        sys.exit(Exit.FAILED)


def verification_of(folder: Path, base: Path | None = None, public_key: Path | None = None) -> Verification:
    """With a bar of bytes on stderr. Raises RequestFault for what is no checkpoint."""
    from publisher.checkpoint.verification import bytes_to_read, verify_checkpoint

    with bytes_counted("compare", bytes_to_read(folder, base=base is not None)) as count:
        return verify_checkpoint(folder, base=base, public_key=public_key, on_bytes=count)


def _opened(checkpoint: str, revision: str | None, endpoint: str | None) -> Path:
    from publisher.checkpoint.folder import open_checkpoint

    return open_checkpoint(checkpoint, revision, endpoint)


def _say(found: Verification) -> None:
    if found.others:
        say(f"Note: beside the checkpoint's own files there are {', '.join(found.others)}.")
    if found.signed and found.signed_by is None:
        say("Note: it is signed; --signature --public-key FILE checks by whom.")


def _answer(output: Output, checkpoint: str, document: dict[str, Any]) -> None:
    if output.form is Form.JSON or (output.form is Form.QUIET and document["whole"]):
        output.item(document, (), named_by="checkpoint")
    if output.form is not Form.HUMAN or not document["whole"]:
        return
    click.echo(f"{checkpoint}: all {document['files']} files are as they were published")
    if document["base_files"] is not None:
        click.echo(
            f"{checkpoint}: made from the base model given, of whose files {document['base_files']} are the same"
        )
    if document["signed_by"] is not None:
        click.echo(f"{checkpoint}: signed with the key {document['signed_by']}")
