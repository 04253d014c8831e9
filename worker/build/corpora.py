"""`--corpus NAME=PATH` and `--corpus NAME=hf://owner/name…`: the text of a build without a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click
from huggingface_hub import get_token
from pydantic import ValidationError

from publisher.corpus.dataset import HubAccess
from publisher.corpus.facts import CorpusFacts, count
from publisher.corpus.needs import check_amount, text_needs
from publisher.corpus.source import CorpusSource, DatasetShelf
from publisher.errors import RequestFault
from publisher.recipe import Recipe, Stop
from publisher.recipe.criteria.register import criterion_spec
from publisher.recipe.stages import Stage

SCHEME = "hf://"
#: which stage reads the text of which part of a recipe
_STAGES = {"pruning": Stage.CALIBRATE, "alignment": Stage.ALIGN, "evaluation": Stage.EVALUATE}
_OF_DATASET, _OF_CORPUS = ("config", "split", "documents"), ("text_field", "held_out_fraction")


def corpus_sources(
    recipe: Recipe, options: tuple[str, ...], datasets: Path, last: Stage = Stage.PACKAGE
) -> Mapping[str, CorpusSource]:
    """The corpora that the recipe's stages up to `last` read, from NAME=PATH and NAME=hf://… options.

    Every document of files is read, so that what cannot be is refused before anything else is done; a dataset exists,
    is pinned to its commit, and its documents are kept below `datasets`.
    """
    given = dict(_named(option) for option in options)
    names = names_read(recipe, last)
    missing = [name for name in names if name not in given]
    if missing:
        raise RequestFault(
            f"the recipe names corpus {', '.join(missing)}, which no --corpus option gives.",
            way_out=f"Add --corpus {missing[0]}=PATH. Given: {', '.join(sorted(given)) or 'none'}.",
        )
    shelf = DatasetShelf(datasets, HubAccess(token=get_token()))
    sources = {name: _source(name, given[name], shelf) for name in names}
    counted = {name: count(source) for name, source in sources.items() if source.dataset is None}
    for need in text_needs(recipe):
        if need.corpus in counted and _includes(last, _STAGES[need.field.split(".")[1]]):
            check_amount(need, counted[need.corpus])
    return {name: _as_counted(source, counted.get(name)) for name, source in sources.items()}


def names_read(recipe: Recipe, last: Stage) -> list[str]:
    """The corpora that stages up to `last` read, each once, in order of first use."""
    pruning, alignment, evaluation = recipe.pruning, recipe.alignment, recipe.evaluation
    names: list[str] = []
    if _includes(last, Stage.CALIBRATE) and criterion_spec(pruning.criterion).reads_text and pruning.calibration:
        names += pruning.calibration.shares
    if _includes(last, Stage.ALIGN) and alignment:
        names += [corpus.name for corpus in alignment.corpora]
        names += evaluation.corpora[:1] if evaluation and alignment.stop is Stop.PROBE else []
    if _includes(last, Stage.EVALUATE) and evaluation:
        names += evaluation.corpora
    return list(dict.fromkeys(names))


def _includes(last: Stage, stage: Stage) -> bool:
    stages = list(Stage)
    return stages.index(stage) <= stages.index(last)


def _named(option: str) -> tuple[str, str]:
    name, equals, place = option.partition("=")
    if not (name and equals and place):
        raise click.BadParameter(f"{option!r} is not NAME=PATH.", param_hint="--corpus")
    return name, place


def _source(name: str, place: str, shelf: DatasetShelf) -> CorpusSource:
    return _dataset(name, place, shelf) if place.startswith(SCHEME) else _files(name, place)


def _files(name: str, place: str) -> CorpusSource:
    """PATH[?text_field=…&held_out_fraction=…]; a question mark may be part of a path that exists."""
    path, mark, query = place.rpartition("?")
    if not mark or _exists(place):
        path, query = place, ""
    asked = _asked(name, place, query, _OF_CORPUS)
    return _checked(name, place, {"path": Path(path).expanduser().resolve()} | asked)


def _exists(place: str) -> bool:
    try:
        return Path(place).expanduser().exists()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def _dataset(name: str, address: str, shelf: DatasetShelf) -> CorpusSource:
    """hf://owner/name[@revision][?config=…&split=…&documents=…&text_field=…&held_out_fraction=…]"""
    parts = urlsplit(address)
    repo_id, _, revision = f"{parts.netloc}{parts.path}".partition("@")
    asked = _asked(name, address, parts.query, (*_OF_DATASET, *_OF_CORPUS))
    if parts.fragment:
        raise RequestFault(f"corpus {name}: {address} says #{parts.fragment}, which is not known.")
    dataset = {key: asked[key] for key in _OF_DATASET if key in asked}
    dataset |= {"repo_id": repo_id, "revision": shelf.access.pin(repo_id, revision or None)}
    reading = {key: asked[key] for key in _OF_CORPUS if key in asked}
    return _checked(name, address, {"dataset": dataset, "shelf": shelf} | reading)


def _asked(name: str, place: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    asked = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(asked) - {*known})
    if unknown or (query and not asked):
        raise RequestFault(
            f"corpus {name}: {place} says {unknown[0] if unknown else query}, which is not known.",
            way_out=f"Known after the question mark: {', '.join(known)}.",
        )
    return asked


def _checked(name: str, place: str, values: dict[str, Any]) -> CorpusSource:
    try:
        return CorpusSource.model_validate({"name": name} | values)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestFault(f"corpus {name}: {first['loc'][-1]} in {place}: {first['msg']}.") from error


def _as_counted(source: CorpusSource, facts: CorpusFacts | None) -> CorpusSource:
    """The source, which has to stay as it was counted; a dataset is read when its turn comes."""
    if facts is None:
        return source
    if facts.is_one_document:
        _say_cut(source, facts)
    return source.model_copy(update={"expected_digest": facts.content_digest})


def _say_cut(source: CorpusSource, facts: CorpusFacts) -> None:
    click.echo(
        f"corpus {source.name} is one document: its first {facts.train_bytes:,} bytes are trained on in "
        f"{facts.train_documents} pieces, its last {facts.held_out_bytes:,} held out in {facts.held_out_documents} "
        "(held_out_fraction).",
        err=True,
    )
