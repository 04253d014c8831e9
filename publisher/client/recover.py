"""`publisher recover`: what was trained on a checkpoint, for the base model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.client.exit_codes import Told
from publisher.client.progress import bytes_shown
from publisher.errors import PublisherError

if TYPE_CHECKING:
    from publisher.checkpoint.recovery import RecoveryReport

#: by publisher.checkpoint.provenance.Provenance, which is not imported here for `--help` to need no torch
_SAID = {
    "verified": "verified: the adapter was trained on this checkpoint",
    "unverified": "unverified: the adapter does not say on which checkpoint",
    "forced": "forced: the adapter says that it was trained on another checkpoint",
}


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("adapter", required=False, type=_FOLDER)
@click.option("--from-merged", type=_FOLDER, metavar="DIR", help="In place of ADAPTER: a tuned copy of the checkpoint.")
@click.option("--checkpoint", required=True, metavar="DIR_OR_REPO", help="What the adapter was trained on.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A folder that does not exist yet.")
@click.option("--revision", help="Commit, branch or tag of the checkpoint's repository.")
@click.option("--endpoint", metavar="URL", help="Hub of the checkpoint's repository; HF_ENDPOINT by default.")
@click.option(
    "--base",
    metavar="DIR_OR_REPO",
    help="The base model, if it is not where the manifest says. A folder, if weights were pruned one by one.",
)
@click.option(
    "--strength",
    type=float,
    help="Strength: times the adapter's update. By default what the checkpoint's certificate found; 1: as trained.",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    help="Make it a LoRA of this rank, and say what that leaves out.",
)
@click.option("--merge", is_flag=True, help="Merge it into a copy of the base model, in folder BASE.")
@click.option("--strict", is_flag=True, help="Refuse what would not be exactly the trained update.")
@click.option(
    "--force", is_flag=True, help="Recover although the adapter is of another checkpoint, or BASE of another size."
)
def recover(
    *,
    adapter: Path | None,
    from_merged: Path | None,
    checkpoint: str,
    output: Path,
    revision: str | None,
    endpoint: str | None,
    base: str | None,
    strength: float | None,
    rank: int | None,
    merge: bool,
    strict: bool,
    force: bool,
) -> None:
    """Recover the adapter in folder ADAPTER, trained on a LoRAM checkpoint, for the base model.

    OUTPUT becomes an adapter for the base model: of the same method where it can be exact, else a LoRA. If the
    checkpoint lost single weights (semi-structured or unstructured pruning) no adapter holds the masked update: then,
    and with --merge, OUTPUT is the base model with it merged in, and BASE has to be a folder.

    With --from-merged it is a whole model that was trained from the checkpoint, by whatever tool: its difference to the
    checkpoint is merged into BASE or, with --rank, made a LoRA.

    An adapter says which checkpoint it was trained on, if `import publisher.checkpoint` came before loading that:
    then recovery says "verified", or refuses the wrong checkpoint. An adapter that says nothing is "unverified".
    """
    if (adapter is None) == (from_merged is None):
        raise click.UsageError("Name either a folder ADAPTER or, with --from-merged, that of a model.")
    if from_merged is not None and (strict or merge or strength is not None):
        raise click.UsageError("--strict, --merge and --strength are for adapters, not for --from-merged.")
    from publisher.checkpoint.folder import commit_of, open_checkpoint
    from publisher.checkpoint.model_weights import Repository
    from publisher.checkpoint.recovery import recover_adapter
    from publisher.checkpoint.recovery.from_merged import recover_merged

    try:
        folder = open_checkpoint(checkpoint, revision, endpoint, weights=False)
        repository = (
            None if Path(checkpoint).is_dir() else Repository(checkpoint, commit_of(folder) or revision, endpoint)
        )
        with bytes_shown("merge") as show:
            if from_merged is not None:
                report = recover_merged(
                    from_merged, folder, output, base_model=base, rank=rank, repository=repository, force=force,
                    progress=show,
                )  # fmt: skip
            else:
                assert adapter is not None
                report = recover_adapter(
                    adapter, folder, output, base_model=base, strength=strength, repository=repository, force=force,
                    rank=rank, merge=merge, strict=strict, progress=show,
                )  # fmt: skip
    except PublisherError as error:
        raise Told(error) from error
    click.echo(_account(report, chosen=strength is None, copy=from_merged is not None))


def _account(report: RecoveryReport, *, chosen: bool, copy: bool) -> str:
    """What was done, and lines of Python to use it. `chosen`: the strength is the checkpoint's; `copy`: it was made of
    a tuned copy, which says nothing of where it comes from."""
    provenance = "compared with it, weight by weight" if copy else _SAID[report.provenance]
    trained = f"Trained on: {report.trained_on or 'not named by the adapter'} ({provenance})\n"
    if report.strength != 1:
        by = ", as this checkpoint's certificate found; --strength 1 leaves it as trained" if chosen else ""
        trained += f"Strength: {report.strength:g} times what was trained{by}\n"
    trained += "".join(f"Note: {note}\n" for note in report.notes)
    if report.merged:
        return (
            f"Merged the update of {report.tensors} tensors into the base model {report.base_model}: "
            f"{report.parameters_after:,} parameters in {report.output}\n"
            f"{trained}\n"
            "from transformers import AutoModelForCausalLM\n"
            f'model = AutoModelForCausalLM.from_pretrained({str(report.output)!r}, dtype="auto")'
        )
    if report.served:
        trained += f"Serves in: {'; '.join(map(str, sorted(report.served, key=lambda each: not each.taken)))}\n"
    pinned = f", revision={report.revision!r}" if report.revision else ""
    labels = f", num_labels={report.labels}" if report.labels else ""
    resized = f"base.resize_token_embeddings({report.vocabulary})\n" if report.vocabulary else ""
    return (
        f"Recovered {report.tensors} tensors ({report.widened} widened) for {report.base_model} into {report.output}\n"
        f"{trained}\n"
        f"from peft import PeftModel; from transformers import {report.loaded_by}\n"
        f"base = {report.loaded_by}.from_pretrained({report.base_model!r}{pinned}{labels})\n{resized}"
        f"model = PeftModel.from_pretrained(base, {str(report.output)!r})"
    )
