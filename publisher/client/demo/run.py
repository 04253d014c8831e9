"""What `publisher demo` does, step by step."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from publisher.client import types
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


def run(data_dir: Path, console: Console, *, prepare: bool, keep: bool, device: str) -> None:
    """`prepare`: only make model and text. Raises InfrastructureFault if the recovered adapter does not help."""
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


def _register(client: Client, model: Path, corpora: dict[str, Path], console: Console) -> types.BaseModelAnswer:
    console.rule("2. register the base model and text")
    base = client.register_base_model(path=str(model), published_as=data.MODEL_REPOSITORY)
    console.print(f"{base['id']}: {model.name}, {base['parameters']:,} parameters")
    for name, path in corpora.items():
        corpus = client.register_corpus(name=name, path=str(path))
        console.print(f"{corpus['id']}: {name}, {path.stat().st_size / 1e6:.1f} MB of text")
    return base


def _plan(client: Client, base_id: str, console: Console) -> None:
    console.rule("3. plan")
    planned = client.plan_variant(base_model_id=base_id, recipe=recipe.RECIPE.model_dump(mode="json"))
    console.print(plan_table(Plan.model_validate(planned)))


def _make_variant(client: Client, base_id: str, console: Console) -> types.VariantAnswer:
    console.rule(f"4. make the variant and publish it as {recipe.REPOSITORY}")
    made = client.create_variant(
        base_model_id=base_id,
        recipe=recipe.RECIPE.model_dump(mode="json"),
        publish={"repo_id": recipe.REPOSITORY, "private": False},
    )
    assert made["job"] is not None
    progress = JobProgress(console)
    state = progress.show(client.follow_job(made["job"]["id"]))
    if state != "succeeded":
        failure = progress.failure or {}
        raise InfrastructureFault(f"the job {state}: {failure.get('message', 'no reason given')}")
    variant = client.get_variant(made["id"])
    assert variant["publication"] is not None
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
