"""`publisher demo`: register a model, plan, make a variant, use it as a downstream user would, print one table."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from publisher.client.client import Client
from publisher.client.demo import data, recipe
from publisher.client.demo.service import RunningService, downstream, running_service
from publisher.client.demo.table import (
    Measured,
    UserPerplexity,
    UserTraining,
    certificate_line,
    results_table,
    speed_line,
)
from publisher.client.job_progress import JobProgress
from publisher.client.plan import plan_table
from publisher.client.progress import working
from publisher.corpus.source import CorpusSource, Split
from publisher.errors import InfrastructureFault
from publisher.manifest.manifest import Manifest
from publisher.plan.plan import Plan


@click.command()
@click.option(
    "--data",
    "data_dir",
    default=Path("data/demo"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder that keeps the model, the text and the service's data",
)
@click.option("--prepare", is_flag=True, help="only make the model and the text, and stop")
@click.option("--keep", is_flag=True, help="leave the service running at the end, until Ctrl-C")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda"]),
    help="what the worker and the downstream user compute on; auto: a GPU if there is one",
)
def demo(data_dir: Path, prepare: bool, keep: bool, device: str) -> None:
    """The product's main job on a real model (SmolLM2-135M-Instruct), start to finish, on this machine."""
    # a stop that is asked for, by whatever signal, takes the service along
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console()
    try:
        _run(data_dir.absolute(), console, prepare=prepare, keep=keep, device=device)
    except KeyboardInterrupt:  # by now the service and whoever was at work are gone
        console.print("\nStopped. The same command goes on from what is finished.")
        sys.exit(128 + signal.SIGINT)


def _run(data_dir: Path, console: Console, *, prepare: bool, keep: bool, device: str) -> None:
    started = time.monotonic()
    console.rule("0. model and text, from installed packages")
    with working(console, f"{data.MODEL_NAME} as safetensors"):
        model = data.prepare_model(data_dir / "models")
    with working(console, "text"):
        corpora = data.prepare_corpora(data_dir / "corpora")
    if prepare:
        return
    with running_service(data_dir, console, device) as service:
        measured = _main_job(service, model, corpora, data_dir / "downstream", console)
        console.print(results_table(measured))
        console.print(certificate_line(measured))
        console.print(speed_line(measured))
        console.print(f"The whole demo took {(time.monotonic() - started) / 60:.1f} minutes.")
        _say_where(service, console, keep)
    if measured.user.recovered >= measured.user.base:
        raise InfrastructureFault(
            f"the recovered adapter does not help: held-out perplexity {measured.user.recovered:.2f} with it, "
            f"{measured.user.base:.2f} without.",
            way_out="Align on more tokens (publisher/client/demo/recipe.py).",
        )


def _main_job(
    service: RunningService, model: Path, corpora: dict[str, Path], user_dir: Path, console: Console
) -> Measured:
    with service.client() as client:
        console.rule("1. the service")
        console.print(f"{service.url} answers; its Hub is {service.hub}")
        base = _register(client, model, corpora, console)
        _plan(client, base["id"], console)
        variant = _make_variant(client, base["id"], console)
    user = _be_the_user(service, model, corpora["novel"], user_dir, console)
    manifest = Manifest.parse(variant["manifest"], f"the manifest of {variant['id']}")
    return Measured.of(manifest, user.training, user.perplexity)


def _register(client: Client, model: Path, corpora: dict[str, Path], console: Console) -> Any:
    console.rule("2. register the base model and text")
    base = client.post("/v1/base-models", {"path": str(model), "published_as": data.MODEL_REPOSITORY})
    console.print(f"{base['id']}: {model.name}, {base['parameters']:,} parameters")
    for name, path in corpora.items():
        corpus = client.post("/v1/corpora", {"name": name, "path": str(path)})
        console.print(f"{corpus['id']}: {name}, {path.stat().st_size / 1e6:.1f} MB of text")
    return base


def _plan(client: Client, base_id: str, console: Console) -> None:
    console.rule("3. plan")
    body = {"base_model_id": base_id, "recipe": recipe.RECIPE.model_dump(mode="json")}
    console.print(plan_table(Plan.model_validate(client.post("/v1/plans", body))))


def _make_variant(client: Client, base_id: str, console: Console) -> Any:
    console.rule(f"4. make the variant and publish it as {recipe.REPOSITORY}")
    body = {
        "base_model_id": base_id,
        "recipe": recipe.RECIPE.model_dump(mode="json"),
        "publish": {"repo_id": recipe.REPOSITORY, "private": False},
    }
    made = client.post("/v1/variants", body)
    progress = JobProgress(console)
    state = progress.show(client.follow_job(made["job"]["id"]))
    if state != "succeeded":
        failure = progress.failure or {}
        raise InfrastructureFault(f"the job {state}: {failure.get('message', 'no reason given')}")
    variant = client.get(f"/v1/variants/{made['id']}")
    console.print(f"published: {variant['publication']['url']} at {variant['publication']['commit']}")
    return variant


@dataclass(frozen=True)
class DownstreamResult:
    training: UserTraining
    perplexity: UserPerplexity


def _be_the_user(service: RunningService, model: Path, novel: Path, folder: Path, console: Console) -> DownstreamResult:
    """Somebody else's machine: a folder of its own, the Hub's address, and text."""
    console.rule("5. a downstream user trains on the checkpoint and recovers the adapter")
    shutil.rmtree(folder, ignore_errors=True)
    source = CorpusSource(name="novel", path=novel)
    for split in Split:
        data.write_documents(folder / f"{split}.jsonl", source.documents(split))
    environment = {"HF_ENDPOINT": service.hub, "HF_HOME": str(folder / "hf"), "TRANSFORMERS_VERBOSITY": "error"}
    device = ["--device", service.device]
    sizes = ["--steps", str(recipe.STEPS), "--batch", str(recipe.BATCH), "--length", str(recipe.LENGTH), *device]
    training = downstream(
        console,
        "train LoRA",
        ["train", recipe.REPOSITORY, str(folder / f"{Split.TRAIN}.jsonl"), str(folder / "out"), *sizes],
        environment,
    )
    console.print(f"recovered; that adapter and checkpoint belong together is {training['provenance']}")
    limits = ["--limit", str(recipe.HELD_OUT_TOKENS), "--length", str(recipe.WINDOW), *device]
    held_out, adapter = str(folder / f"{Split.HELD_OUT}.jsonl"), str(folder / "out" / "recovered")
    perplexity = downstream(console, "measure", ["measure", str(model), adapter, held_out, *limits], environment)
    return DownstreamResult(UserTraining.model_validate(training), UserPerplexity.model_validate(perplexity))


def _say_where(service: RunningService, console: Console, keep: bool) -> None:
    if not keep:
        console.print("The service stops now. `make demo KEEP=1` leaves it running; nothing is made twice.")
        return
    console.print(f"Dashboard: {service.url} (sign in with the key {service.key})")
    console.print("The service keeps running; Ctrl-C stops it.")
    with suppress(KeyboardInterrupt):
        service.process.wait()
