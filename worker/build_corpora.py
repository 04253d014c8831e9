"""`--corpus NAME=PATH` and `--corpus NAME=hf://owner/name…`: the text of a build without a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import click
from huggingface_hub import get_token
from pydantic import ValidationError

from publisher.corpus import CorpusSource, DatasetShelf
from publisher.errors import RequestFault
from publisher.hub_dataset import HubAccess
from publisher.recipe import Recipe

SCHEME = "hf://"
_OF_DATASET, _OF_CORPUS = ("config", "split", "documents"), ("text_field", "held_out_fraction")


def corpus_sources(recipe: Recipe, options: tuple[str, ...], datasets: Path) -> Mapping[str, CorpusSource]:
    """The corpora that the recipe names, from NAME=PATH and NAME=hf://… options; each has files that can be read, or
    is a dataset that exists, pinned to its commit, whose documents are kept below `datasets`."""
    given = dict(_named(option) for option in options)
    missing = [name for name in recipe.corpus_names() if name not in given]
    if missing:
        raise RequestFault(
            f"the recipe names corpus {', '.join(missing)}, which no --corpus option gives.",
            way_out=f"Add --corpus {missing[0]}=PATH. Given: {', '.join(sorted(given)) or 'none'}.",
        )
    shelf = DatasetShelf(datasets, HubAccess(token=get_token()))
    return {name: _source(name, given[name], shelf) for name in recipe.corpus_names()}


def _named(option: str) -> tuple[str, str]:
    name, equals, place = option.partition("=")
    if not (name and equals and place):
        raise click.BadParameter(f"{option!r} is not NAME=PATH.", param_hint="--corpus")
    return name, place


def _source(name: str, place: str, shelf: DatasetShelf) -> CorpusSource:
    if place.startswith(SCHEME):
        return _dataset(name, place, shelf)
    source = CorpusSource(name=name, path=Path(place).expanduser().resolve())
    source.files()
    return source


def _dataset(name: str, address: str, shelf: DatasetShelf) -> CorpusSource:
    """hf://owner/name[@revision][?config=…&split=…&documents=…&text_field=…&held_out_fraction=…]"""
    parts = urlsplit(address)
    repo_id, _, revision = f"{parts.netloc}{parts.path}".partition("@")
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(asked) - {*_OF_DATASET, *_OF_CORPUS})
    if unknown or parts.fragment:
        raise RequestFault(
            f"corpus {name}: {address} says {unknown[0] if unknown else '#' + parts.fragment}, which is not known.",
            way_out=f"Known after the question mark: {', '.join((*_OF_DATASET, *_OF_CORPUS))}.",
        )
    dataset = {key: asked[key] for key in _OF_DATASET if key in asked}
    dataset |= {"repo_id": repo_id, "revision": shelf.access.pin(repo_id, revision or None)}
    reading = {key: asked[key] for key in _OF_CORPUS if key in asked}
    try:
        return CorpusSource.model_validate({"name": name, "dataset": dataset, "shelf": shelf} | reading)
    except ValidationError as error:
        first = error.errors()[0]
        raise RequestFault(f"corpus {name}: {first['loc'][-1]} in {address}: {first['msg']}.") from error
