"""Whether a base model has an embedding for every token that its tokenizer makes, by the tokenizer's JSON files.

More embeddings than tokens are usual: families pad them. Tokens without an embedding come from tokens that were added
while the model was never resized; looking one up is an error on a CPU and the end of the process on a GPU. Those that
are only there when somebody writes them (Gemma 3 names a token for images that its text models have no embedding for)
harm nobody, and are told; those that come by themselves are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher.base_model.files import TEMPLATES, ModelFiles, json_object
from publisher.errors import RequestFault, UnsupportedModel
from publisher.files.json_object import MAX_BYTES

#: read whole at registration: what transformers reads of a tokenizer, besides vocabularies in formats of their own
JSON_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "chat_template.json", "generation_config.json",
)  # fmt: skip
#: what a tokenizer, a collator or packing puts around text without being asked
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
#: of a token's id written as text; Python refuses to read thousands
_ID_DIGITS = 18
_RESIZE = (
    "Call model.resize_token_embeddings(len(tokenizer)) and save the model again, or take the token out of the "
    "tokenizer's files."
)


@dataclass(frozen=True)
class Vocabulary:
    """Token → id of what text is made of (`words`) and of what was `added`; `roles`: "eos_token" → token; `templates`:
    every chat template's text, one after another."""

    words: Mapping[str, int] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    templates: str = ""

    def refuse_beyond(self, embeddings: int, where: str) -> list[str]:
        """Notes on tokens without an embedding. Raises UnsupportedModel for one that comes without being written."""
        for role, token in self.roles.items():
            if self._id(token) >= embeddings:
                raise self._beyond(token, f"the tokenizer's {role}", embeddings, where)
        for token, id in self.words.items():
            if id >= embeddings and token not in self.added:
                raise self._beyond(token, "a word of the tokenizer", embeddings, where)
        beyond = sorted((id, token) for token, id in self.added.items() if id >= embeddings)
        for _, token in beyond:
            if token in self.templates:
                raise self._beyond(token, "in the chat template", embeddings, where)
        named = ", ".join(f"{token} ({id})" for id, token in beyond[:3]) + (", …" if len(beyond) > 3 else "")
        return [f"text with {named} is refused: the model has {embeddings} embeddings"] if beyond else []

    def token_of(self, id: int) -> str:
        """The token of an id, for people."""
        return next((token for token, own in {**self.words, **self.added}.items() if own == id), "of unknown name")

    def _id(self, token: str) -> int:
        """Of a token that the files give no number, the one that transformers gives it: the next."""
        known = self.added.get(token, self.words.get(token))
        if known is not None or not self.words:
            return known or 0
        return max([*self.words.values(), *self.added.values()]) + 1

    def _beyond(self, token: str, what: str, embeddings: int, where: str) -> UnsupportedModel:
        return UnsupportedModel(
            f"token {token!r} of {where}, {what}, has id {self._id(token)}, and the model has {embeddings} embeddings.",
            way_out=_RESIZE,
        )


def read_vocabulary(files: ModelFiles, sizes: Mapping[str, int]) -> Vocabulary:
    """From the JSON files that there are; of a vocabulary in another format nothing is known.

    Raises UnsupportedModel if a file is no JSON object. One that is larger than any of them should be is passed over.
    """
    found = {
        name: json_object(files, sizes, name) for name in JSON_FILES if sizes.get(name, MAX_BYTES + 1) <= MAX_BYTES
    }
    fast, config = found.get("tokenizer.json", {}), found.get("tokenizer_config.json", {})
    roles = {**found.get("special_tokens_map.json", {}), **config}
    decoder = config.get("added_tokens_decoder")
    return Vocabulary(
        words=_words(fast.get("model")) or _ids(found.get("vocab.json", {}).items()),
        added={
            **_ids(found.get("added_tokens.json", {}).items()),
            **_ids((_content(token), id) for id, token in (decoder if isinstance(decoder, dict) else {}).items()),
            **_ids((_content(token), token.get("id")) for token in _objects(fast.get("added_tokens"))),
        },
        roles={role: token for role in ROLES if (token := _content(roles.get(role))) is not None},
        templates="\n".join(_templates(files, sizes, [config, found.get("chat_template.json", {})])),
    )


def id_notes(config: Mapping[str, Any], embeddings: int) -> list[str]:
    """On ids that config.json names and no token can have: generation would never meet them."""
    return [
        f"config.json has {name} = {config[name]}, and the model has {embeddings} embeddings"
        for name in ("bos_token_id", "eos_token_id")
        if isinstance(config.get(name), int) and config[name] >= embeddings
    ]


def refuse_unknown(id: int, vocabulary: Vocabulary, embeddings: int) -> None:
    """Raises RequestFault naming the token `id`, made of a text, if it has no embedding."""
    if id >= embeddings:
        raise RequestFault(
            f"the text holds token {vocabulary.token_of(id)!r}, whose id is {id}, and the model has {embeddings} "
            "embeddings.",
            way_out="Take it out of the text, or resize the base model's embeddings to its tokenizer and save it.",
        )


def _words(model: object) -> dict[str, int]:
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        return _ids(vocab.items())
    pairs = vocab if isinstance(vocab, list) else []  # Unigram: [token, score] in order
    return _ids((pair[0], id) for id, pair in enumerate(pairs) if isinstance(pair, list) and pair)


def _ids(pairs: Iterable[tuple[object, object]]) -> dict[str, int]:
    found = {}
    for token, id in pairs:
        number = int(id) if isinstance(id, str) and id.isdecimal() and len(id) <= _ID_DIGITS else id
        if isinstance(token, str) and isinstance(number, int):
            found[token] = number
    return found


def _content(token: object) -> str | None:
    """Of a token as tokenizer_config.json writes it: its text, or an object that holds it."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _templates(files: ModelFiles, sizes: Mapping[str, int], configs: list[dict[str, Any]]) -> Iterator[str]:
    for config in configs:
        template = config.get("chat_template")
        yield from [template] if isinstance(template, str) else []
        yield from (text for named in _objects(template) if isinstance(text := named.get("template"), str))
    for name, size in sizes.items():
        if name.endswith(".jinja") and (name == "chat_template.jinja" or name.startswith(TEMPLATES)):
            yield files.read(name, 0, min(size, MAX_BYTES)).decode("utf-8", errors="replace")
