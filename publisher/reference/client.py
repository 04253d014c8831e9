"""`python -m publisher.reference.client`: publisher/client/types.py and calls.py, from the OpenAPI document.

Every schema that is sent becomes a TypedDict, and every operation a function that builds its call, with the names of
the document: what the client knows of the service cannot differ from what that says of itself.
"""

from __future__ import annotations

import keyword
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from publisher import client
from publisher.app import create_app
from publisher.settings import Settings

Document = Mapping[str, Any]

WIDTH = 118
_FOLDER = Path(client.__file__).parent
_MADE = "Made from the OpenAPI document by `make docs`; changes belong into publisher/api."
_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_REFERENCE = "#/components/schemas/"
#: words without a name that are written out where they stand
_MOST_INLINED = 4
_PAGED = {"items", "next_cursor"}
_TYPES_HEAD = f'''"""What the service answers and takes, by the names of its OpenAPI document.

{_MADE}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict  # that of 3.11 pydantic cannot check

'''
_CALLS_HEAD = f'''"""Every operation of the service as a function that builds its call, by the names of the document.

{_MADE}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from publisher.client import types
from publisher.client.call import OMIT, Call, Omit, Operation, Page, Streamed, place

'''


def document() -> Document:
    """Of a service with the default settings."""
    with TemporaryDirectory() as folder:
        return create_app(Settings(data_dir=Path(folder))).openapi()


def sources(document: Document) -> dict[str, str]:
    """File in publisher/client → its text."""
    return {"types.py": _types(document), "calls.py": _calls(document)}


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


# --- types ---


def _types(document: Document) -> str:
    schemas = document["components"]["schemas"]
    named = [name for name in sorted(_reached(document)) if not _is_inlined(name, schemas[name])]
    texts = [_alias(name, schemas[name]) for name in named if "enum" in schemas[name]]
    texts.append("\n\n".join(["", *(_class(name, schemas) for name in named if "enum" not in schemas[name])]))
    return _TYPES_HEAD + "\n".join(texts)


def _reached(document: Document) -> set[str]:
    """Schemas that answers and bodies hold; those of webhooks' messages are sent to somebody else."""
    schemas, found = document["components"]["schemas"], set[str]()
    waiting = [
        name
        for _, _, operation in _operations(document)
        for part in (operation.get("requestBody"), operation.get("parameters"), *_good(operation))
        for name in _names_in(part)
    ]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_names_in(schemas[name]))
    return found


def _good(operation: Document) -> list[Document]:
    return [response for status, response in operation["responses"].items() if status < "3"]


def _names_in(part: object) -> list[str]:
    return re.findall(rf"'{_REFERENCE}([^']+)'", str(part))


def _is_inlined(name: str, schema: Document) -> bool:
    """Pages are one generic type; a schema without fields, or whose name is no word, stands where it is used."""
    return _is_page(schema) or not ("properties" in schema or "enum" in schema) or not _is_word(name)


def _is_page(schema: Document) -> bool:
    return set(schema.get("properties", ())) == _PAGED


def _is_word(name: str) -> bool:
    return name.isidentifier() and "__" not in name


def _alias(name: str, schema: Document) -> str:
    return _wrapped_alias(f"{name}: TypeAlias = ", schema["enum"])


def _wrapped_alias(start: str, values: list[str]) -> str:
    line = f"{start}{_literal(values)}"
    if len(line) <= WIDTH + 2:
        return line
    return "\n".join([f"{start}Literal[", *(f"    {_quoted(value)}," for value in values), "]"])


def _class(name: str, schemas: Document) -> str:
    schema = schemas[name]
    said = _docstring(_paragraphs(schema.get("description", "")))
    lines = [f"class {name}(TypedDict):", *said, *([""] if said else [])]
    for field, of in schema["properties"].items():
        _refuse_keyword(name, field)
        kind = _type(of, schemas, prefix="")
        required = field in schema.get("required", ())
        lines += [*_comment(of.get("description", "")), f"    {field}: {kind if required else f'NotRequired[{kind}]'}"]
    return "\n".join(lines) + "\n"


def _type(schema: Document, schemas: Document, *, prefix: str) -> str:
    """A Python type; names of schemas follow `prefix`."""
    if "$ref" in schema:
        return _referred(schema["$ref"].removeprefix(_REFERENCE), schemas, prefix)
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(_type(each, schemas, prefix=prefix) for each in several))
    if words := schema.get("enum") or [schema[key] for key in ("const",) if key in schema]:
        return _literal(words) if len(words) <= _MOST_INLINED else "str"
    return _plain(schema, schemas, prefix)


def _plain(schema: Document, schemas: Document, prefix: str) -> str:
    kind = schema.get("type", "")
    if kind == "array":
        return f"list[{_type(schema.get('items', {}), schemas, prefix=prefix)}]"
    if kind == "object":
        return f"Mapping[str, {_type(_values_of(schema), schemas, prefix=prefix)}]"
    return _SIMPLE.get(kind, "Any")


def _values_of(schema: Document) -> Document:
    inner: object = schema.get("additionalProperties") or next(iter(schema.get("patternProperties", {}).values()), {})
    return inner if isinstance(inner, dict) else {}


def _referred(name: str, schemas: Document, prefix: str) -> str:
    schema = schemas[name]
    if _is_page(schema):
        return f"Page[{_type(schema['properties']['items']['items'], schemas, prefix=prefix)}]"
    return _type(schema, schemas, prefix=prefix) if _is_inlined(name, schema) else f"{prefix}{name}"


# --- calls ---


def _calls(document: Document) -> str:
    schemas = document["components"]["schemas"]
    found = sorted(_operations(document), key=lambda each: each[2]["operationId"])
    functions = "\n\n".join(_function(*each, schemas) for each in found)
    plain = [each[2]["operationId"] for each in found if _answer(each[2], schemas) is not None]
    methods = "\n".join(f"    {name} = Operation({name})" for name in plain)
    return f'{_CALLS_HEAD}\n{functions}\n\nclass Operations:\n    """As methods of a client."""\n\n{methods}\n'


def _function(path: str, method: str, operation: Document, schemas: Document) -> str:
    answer = _answer(operation, schemas)
    parameters = operation.get("parameters", [])
    body = _body(operation, schemas)
    inside = [each for each in parameters if each["in"] == "path"]
    signature = [f"    {each['name']}: str," for each in inside]
    named = [*_body_parameters(body, schemas), *_other_parameters(parameters, schemas)]
    signature += ["    *,", *named] if named else []
    name, kind = operation["operationId"], "Streamed" if answer is None else f"Call[{answer}]"
    head = [f"def {name}(", *signature, f") -> {kind}:"] if signature else [f"def {name}() -> {kind}:"]
    lines = [*head, *_docstring(_said(operation, body)), *_returned(path, method, parameters, body, answer is None)]
    return "\n".join(lines) + "\n"


def _answer(operation: Document, schemas: Document) -> str | None:
    """The type of its answer; None: a stream or a file."""
    contents = [content for response in _good(operation) for content in response.get("content", {}).items()]
    if not contents:
        return "None" if "204" in operation["responses"] else None
    kind, content = contents[0]
    if kind == "application/json":
        return _type(content["schema"], schemas, prefix="types.")
    return "str" if kind == "text/plain" else None


def _body(operation: Document, schemas: Document) -> Document:
    """The schema of what is sent, {} if nothing is."""
    if "requestBody" not in operation:
        return {}
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    found: Document = schemas[schema["$ref"].removeprefix(_REFERENCE)]
    return found


def _body_parameters(body: Document, schemas: Document) -> Iterator[str]:
    for name, schema in body.get("properties", {}).items():
        _refuse_keyword("a body", name)
        kind = _taken(_type(schema, schemas, prefix="types."))
        yield f"    {name}: {kind}," if name in body.get("required", ()) else f"    {name}: {_omissible(kind)} = OMIT,"


def _omissible(kind: str) -> str:
    return f"{kind.removesuffix(' | None')} | Omit{' | None' if kind.endswith(' | None') else ''}"


def _taken(kind: str) -> str:
    """Objects may be any mapping, a list any sequence: who calls need not have built them by the name."""
    kind = re.sub(r"\blist\[", "Sequence[", kind)
    return re.sub(r"(?<![\w.\[])(types\.[A-Z]\w+)(?![\w\]])", r"\1 | Mapping[str, Any]", kind)


def _other_parameters(parameters: list[Document], schemas: Document) -> Iterator[str]:
    """Of query and headers: what is left out is None."""
    for each in parameters:
        if each["in"] != "path":
            kind = re.sub(r"\blist\[", "Sequence[", _type(each["schema"], schemas, prefix="types."))
            yield f"    {_snake(each['name'])}: {kind.removesuffix(' | None')} | None = None,"


def _said(operation: Document, body: Document) -> str:
    """The description, and a line for each parameter."""
    described = {name: schema.get("description", "") for name, schema in body.get("properties", {}).items()}
    described |= {_snake(each["name"]): each["description"] for each in operation.get("parameters", [])}
    lines = "\n".join(f"{name}: {' '.join(text.split())}" for name, text in described.items())
    said = _paragraphs(operation.get("description", operation["summary"]))
    return "\n\n".join(part for part in (said, lines) if part)


def _returned(path: str, method: str, parameters: list[Document], body: Document, is_stream: bool) -> Iterator[str]:
    yield f"    return {'Streamed' if is_stream else 'Call'}("
    yield f'        "{method}",'
    yield f"        {_path(path)},"
    for place, argument in (("query", "query"), ("header", "headers")):
        names = [each["name"] for each in parameters if each["in"] == place]
        if names:
            yield from _dictionary(argument, {name: _snake(name) for name in names})
    if body:
        yield from _dictionary("body", {name: name for name in body["properties"]})
    yield "    )"


def _dictionary(argument: str, entries: Mapping[str, str]) -> Iterator[str]:
    yield f"        {argument}={{"
    yield from (f'            "{name}": {value},' for name, value in entries.items())
    yield "        },"


def _path(path: str) -> str:
    if "{" not in path:
        return f'"{path}"'
    filled = re.sub(r"\{(\w+)\}", lambda at: f"{{place({at[1]}{', keep=CHAR' if at[1] == 'path' else ''})}}", path)
    return 'f"' + filled.replace("CHAR", "'/'") + '"'


# --- texts ---


def _docstring(text: str) -> list[str]:
    lines = _filled(text, WIDTH - 10)
    if not lines:
        return []
    if len(lines) == 1:
        return [f'    """{lines[0]}"""']
    return [f'    """{lines[0]}', *(f"    {line}".rstrip() for line in lines[1:]), '    """']


def _comment(text: str) -> list[str]:
    return [f"    #: {line}" for line in _filled(" ".join(text.split()), WIDTH - 7)]


def _filled(text: str, width: int) -> list[str]:
    """In lines; an empty one stays."""
    return [line for each in text.strip().splitlines() for line in textwrap.wrap(each, width) or [""]]


def _paragraphs(text: str) -> str:
    """Each in one line, however it was broken."""
    return "\n\n".join(" ".join(each.split()) for each in text.split("\n\n"))


def _literal(values: list[str]) -> str:
    return f"Literal[{', '.join(_quoted(value) for value in values)}]"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _snake(name: str) -> str:
    return name.lower().replace("-", "_")


def _refuse_keyword(where: str, name: str) -> None:
    if keyword.iskeyword(name) or not name.isidentifier():
        raise ValueError(f"{where} has a field {name!r}, which is no name in Python: the generator has no word for it")


if __name__ == "__main__":
    for name, text in sources(document()).items():
        (_FOLDER / name).write_text(text)
