"""A request for a variant while somebody fills it in: fields and JSON say the same, whichever was changed last."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Self

from pydantic import ValidationError

from publisher.api.variants_schema import VariantRequest
from publisher.dashboard.faults import Fault, of_model
from publisher.dashboard.form_fields import FormField, body_of, fields_of, optional_parts, texts_of, value_at
from publisher.errors import RequestFault
from publisher.files.json_object import parse_object
from publisher.recipe import Recipe

#: fields that are shown at once, in this order; all others are folded under "More"
EVERYDAY = (
    "recipe.pruning.ratio",
    "recipe.pruning.criterion",
    "recipe.pruning.calibration.corpora",
    "recipe.alignment.corpora",
    "recipe.alignment.tokens",
    "recipe.quantization.scheme",
    "recipe.evaluation.corpora",
    "recipe.evaluation.require_certificate",
    "publish.repo_id",
    "publish.private",
)
_RECIPE = "recipe"
_LONGEST_NONCE = 64
#: fields that a recipe cannot be without
_STAND_INS = {"pruning.ratio": 0.5}
#: what the page's script says, in place of a digest, when a field was changed last
FIELDS_COUNT = "fields"


@dataclass(frozen=True)
class Group:
    """Fields that belong together; `part`: the one of the recipe that may be left out."""

    path: str
    title: str
    fields: tuple[FormField, ...]
    is_optional: bool = False

    @property
    def everyday(self) -> list[FormField]:
        here = {field.path: field for field in self.fields}
        return [here[path] for path in EVERYDAY if path in here]

    @property
    def more(self) -> list[FormField]:
        return [field for field in self.fields if field.path not in EVERYDAY]


@cache
def all_fields() -> tuple[FormField, ...]:
    """Of a request, but for the base model, which is chosen above them."""
    return tuple(field for field in fields_of(VariantRequest) if field.path != "base_model_id")


@cache
def groups() -> tuple[Group, ...]:
    """The recipe's parts, where it is published, and what stands alone."""
    found: dict[str, list[FormField]] = {}
    for field in all_fields():
        steps = field.path.split(".")
        found.setdefault(".".join(steps[:2] if len(steps) > 2 else steps[:-1]), []).append(field)
    alone = [field for path in ("", _RECIPE) for field in found.pop(path, [])]
    optional = set(optional_parts(VariantRequest))
    made = [Group(path, path.rpartition(".")[2], tuple(fields), path in optional) for path, fields in found.items()]
    return (*made, Group("other", "other", tuple(alone)))


@cache
def optional() -> tuple[str, ...]:
    """Paths of the groups that may be left out."""
    return tuple(group.path for group in groups() if group.is_optional)


@cache
def places() -> frozenset[str]:
    """Where a fault may stand."""
    return frozenset({"json", "gib", "base_model_id"}).union(
        (field.path for field in all_fields()), (group.path for group in groups())
    )


@dataclass(frozen=True)
class Draft:
    """`texts`: what stands in each field; `parts`: the optional ones that are wanted; `json`: the recipe's JSON as it
    stands in its box. `nonce` makes a form that is sent twice one request. `unread`: why the JSON is no recipe."""

    base_model_id: str
    texts: Mapping[str, str]
    parts: frozenset[str]
    json: str
    nonce: str
    gib: str = ""
    unread: Fault | None = None

    @classmethod
    def begin(cls, base_model_id: str, recipe: Mapping[str, Any], publish: Mapping[str, Any]) -> Self:
        body = {_RECIPE: recipe, "publish": publish}
        parts = frozenset(part for part in optional() if value_at(body, part) is not None)
        texts = texts_of(all_fields(), body)
        return cls(base_model_id, texts, parts, written(recipe), secrets.token_hex(16))

    @classmethod
    def typed(cls, form: Mapping[str, Any]) -> Self:
        """What a form holds. Its JSON counts where it is not the one that the page came with."""
        sent = {name: str(value) for name, value in form.items()}
        texts = {field.path: sent.get(field.path, "") for field in all_fields()}
        parts = frozenset(part for part in optional() if f"part:{part}" in sent)
        text = sent.get("json", "").replace("\r\n", "\n")
        draft = cls(
            base_model_id=sent.get("base_model_id", ""),
            texts=texts,
            parts=parts,
            json=text,
            nonce=sent.get("nonce", "")[:_LONGEST_NONCE] or secrets.token_hex(16),
            gib=sent.get("gib", "").strip(),
        )
        is_as_it_was = not text.strip() or sent.get("json_was") in {FIELDS_COUNT, digest(text)}
        return draft.by_fields() if is_as_it_was else draft.by_json()

    def by_json(self) -> Self:
        """With the fields as the JSON says; where it cannot be read, as they are."""
        try:
            recipe = parse_object(self.json.encode(), "the recipe")
        except RequestFault as fault:
            return replace(self, unread=Fault("json", fault.message))
        except UnicodeEncodeError:
            return replace(self, unread=Fault("json", "it holds half of a surrogate pair."))
        return replace(self.with_recipe(recipe), json=self.json.lstrip("\ufeff"))

    def by_fields(self) -> Self:
        return replace(self, json=written(self.body[_RECIPE]))

    def with_recipe(self, recipe: Mapping[str, Any]) -> Self:
        """The same with another recipe."""
        made = type(self).begin(self.base_model_id, recipe, {})
        kept = {path: text for path, text in self.texts.items() if not path.startswith(f"{_RECIPE}.")}
        return replace(self, texts={**made.texts, **kept}, parts=made.parts, json=made.json, unread=None)

    @property
    def body(self) -> dict[str, Any]:
        """Of the request, as far as it was filled in."""
        off = [part for part in optional() if part not in self.parts]
        body = {_RECIPE: {}, "publish": {}} | body_of(all_fields(), self.texts, off)
        for part in self.parts:  # wanted, though all its fields may be blank
            body[_RECIPE].setdefault(part.rpartition(".")[2], {})
        return {"base_model_id": self.base_model_id, **body}

    @property
    def recipe(self) -> Any:
        """What the JSON says; None where it cannot be read."""
        return None if self.unread else json.loads(self.json)

    @property
    def request(self) -> dict[str, Any]:
        """The body with the recipe as the JSON has it."""
        return self.body | {_RECIPE: self.recipe}

    @property
    def json_digest(self) -> str:
        """Of the JSON that the page comes with: who changes it changes this. Where the fields do not say all of it, it
        counts until somebody changes a field."""
        return digest(self.json) if self.unread is None and _mean_the_same(self.body[_RECIPE], self.recipe) else ""

    def faults(self) -> Iterable[Fault]:
        """What is wrong with it in itself."""
        if self.unread is not None:
            return [self.unread]
        try:
            VariantRequest.model_validate(self.request)
        except ValidationError as error:
            # which base model it is, is chosen and not typed
            return [fault for fault in of_model(error) if fault.field != "base_model_id"]
        return []

    def right_part(self, faults: Iterable[Fault]) -> Recipe | None:
        """The recipe without the fields that are wrong in themselves, so that the others can be looked at; None where
        that is none."""
        if self.unread is not None:
            return None
        recipe = deepcopy(self.recipe)
        for path in {fault.field.removeprefix(f"{_RECIPE}.") for fault in faults if fault.field}:
            _replace(recipe, path, _STAND_INS.get(path))
        try:
            return Recipe.model_validate(recipe)
        except ValidationError:
            return None


def _replace(part: Any, path: str, stand_in: Any) -> None:
    """Take away what is at `path`, or put the `stand_in` there."""
    *way, name = path.split(".")
    for step in way:
        part = part.get(step) if isinstance(part, dict) else None
    if isinstance(part, dict):
        part.pop(name, None)
        if stand_in is not None:
            part[name] = stand_in


def _mean_the_same(recipe: Any, other: Any) -> bool:
    if recipe == other:
        return True
    try:
        return Recipe.model_validate(recipe).digest == Recipe.model_validate(other).digest
    except ValidationError:
        return False


def written(recipe: Any) -> str:
    return json.dumps(recipe, indent=2, ensure_ascii=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
