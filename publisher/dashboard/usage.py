"""How to use a published checkpoint: commands to paste, for exactly the commit that was published."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from publisher.manifest.manifest import Manifest
from publisher.manifest.reports import Publication
from publisher.recipe.criteria.spec import PruningMethod

#: the signature's file; docs/verify.md has what it covers
SIGNATURE = "model.sig"
#: the Hub that tools ask unless they are told another
_DEFAULT_HUB = "https://huggingface.co"
_BASE = "path/to/base-model"
_TRAINED = "my-training"


@dataclass(frozen=True)
class Command:
    """`lines` for a POSIX shell or, in the first, for Python."""

    title: str
    lines: str
    note: str = ""


def commands(
    publication: Publication, manifest: Manifest | None, files: Sequence[str], *, private: bool
) -> list[Command]:
    """In the order in which somebody needs them. `files`: the names of what was published."""
    found = [*_settings(publication, private), _load(publication), _train(publication)]
    found += [*_recover(publication, manifest), _verify(publication, signed=False)]
    return found + ([_verify(publication, signed=True)] if SIGNATURE in files else [])


def download_command(publication: Publication) -> str:
    """Gets exactly this checkpoint."""
    endpoint, repo_id, commit = map(shlex.quote, (publication.endpoint, publication.repo_id, publication.commit))
    return f"HF_ENDPOINT={endpoint} hf download {repo_id} \\\n  --revision {commit}"


def _settings(publication: Publication, private: bool) -> Iterator[Command]:
    lines = []
    if not _is_default(publication):
        lines.append(f"export HF_ENDPOINT={shlex.quote(publication.endpoint)}")
    if private:
        lines.append("export HF_TOKEN=…  # a key that may read it")
    if lines:
        yield Command("Once in your shell", "\n".join(lines), "So that what follows finds the checkpoint.")


def _load(publication: Publication) -> Command:
    named = f"{publication.repo_id!r}, revision={publication.commit!r}"
    lines = [
        "# lets transformers load it, and adapters say what they were trained on",
        "import publisher.checkpoint",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({named})",
        f'model = AutoModelForCausalLM.from_pretrained({named}, dtype="auto")',
    ]
    note = "Needs the package loram-publisher with its extra train."
    return Command("Load it in transformers", "\n".join(lines), note)


def _train(publication: Publication) -> Command:
    repo_id, revision = _checkpoint(publication)
    lines = _shell(f"publisher train {repo_id}", revision, f"--data chats.jsonl --output {_TRAINED}")
    return Command("Train a LoRA on it", lines, "Or with PEFT and TRL, as any other model.")


def _recover(publication: Publication, manifest: Manifest | None) -> Iterator[Command]:
    repo_id, revision = _checkpoint(publication)
    given = [f"publisher recover {_TRAINED}/adapter --checkpoint {repo_id}", revision, *_endpoint(publication)]
    if manifest is not None and _lost_single_weights(manifest):
        note = "A masked update has no low rank: what comes out is the base model with the update merged in."
        yield Command("Recover what was trained", _shell(*given, f"--base {_BASE} --output merged"), note)
        return
    # a base model without a public name is wherever whoever recovers has it
    base = "" if manifest is None or manifest.base.is_public else f"--base {_BASE} "
    note = "An adapter for the base model, for plain PEFT."
    yield Command("Recover what was trained", _shell(*given, f"{base}--output recovered"), note)
    merge = f"publisher merge {_BASE} recovered merged"
    yield Command("Merge it into the base model", merge, "For programs that take no adapters.")


def _verify(publication: Publication, *, signed: bool) -> Command:
    repo_id, revision = _checkpoint(publication)
    given = [f"publisher verify {repo_id}", revision, *_endpoint(publication)]
    if not signed:
        note = "Size and sha256 of each file; masks against weights, config and manifest."
        return Command("Verify every file", _shell(*given), note)
    note = "publisher.pem is the publisher's public key, from the publisher and not from the checkpoint."
    return Command("Verify who published it", _shell(*given, "--signature --public-key publisher.pem"), note)


def _shell(command: str, *arguments: str) -> str:
    """One command over several lines."""
    return " \\\n  ".join([command, *arguments])


def _checkpoint(publication: Publication) -> tuple[str, str]:
    return shlex.quote(publication.repo_id), f"--revision {shlex.quote(publication.commit)}"


def _endpoint(publication: Publication) -> list[str]:
    return [] if _is_default(publication) else [f"--endpoint {shlex.quote(publication.endpoint)}"]


def _is_default(publication: Publication) -> bool:
    return publication.endpoint.rstrip("/") == _DEFAULT_HUB


def _lost_single_weights(manifest: Manifest) -> bool:
    pruning = manifest.recipe.get("pruning")
    method = pruning.get("method") if isinstance(pruning, dict) else None
    return method in {each for each in PruningMethod if not each.removes_units}
