"""Counting a large corpus in a process of its own: where it is counted, nothing else of the process gets a turn.

A thread would not do: parsing a long line and sorting a million digests hold Python's lock for a second and more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from publisher.corpus.facts import CorpusFacts, count
from publisher.corpus.source import CorpusSource
from publisher.errors import InfrastructureFault, PublisherError, RequestFault

#: bytes of files; less is counted sooner than a process starts
LARGE = 2_000_000
_SHOWN_OF_A_TRACEBACK = 400


def count_apart(source: CorpusSource, seconds: float) -> CorpusFacts:
    """`count(source)`, in another process if the corpus is large. Raises InfrastructureFault if that takes more than
    `seconds` or is killed."""
    size = sum(path.stat().st_size for path in source.files() if path.is_file())
    return count(source) if size <= LARGE else _count_in_process(source, seconds)


def _count_in_process(source: CorpusSource, seconds: float) -> CorpusFacts:
    command = [sys.executable, "-m", "publisher.corpus.count_process"]
    without_settings = {name: value for name, value in os.environ.items() if not name.startswith("PUBLISHER_")}
    try:
        done = subprocess.run(
            command,
            env=without_settings,
            input=source.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureFault(
            f"counting corpus {source.name} took more than {seconds:g} s.", way_out="Register it in parts."
        ) from error
    except subprocess.CalledProcessError as error:
        last = str(error.stderr)[-_SHOWN_OF_A_TRACEBACK:].strip().rpartition("\n")[2]
        raise InfrastructureFault(
            f"counting corpus {source.name} was broken off: {last or 'the process was killed'}.", way_out="Try again."
        ) from error
    said = json.loads(done.stdout)
    if "facts" in said:
        return CorpusFacts.model_validate(said["facts"])
    fault = RequestFault if said["blame"] == "request" else InfrastructureFault
    raise fault(said["message"], field=said["field"], way_out=said["way_out"])


def main() -> None:
    """A CorpusSource as JSON in; {"facts": …}, or whose fault it is that there are none, out."""
    os.nice(5)  # requests come first
    source = CorpusSource.model_validate_json(sys.stdin.read())
    try:
        said: dict[str, object] = {"facts": count(source).model_dump()}
    except PublisherError as error:
        blame = "request" if isinstance(error, RequestFault) else "infrastructure"
        said = {"blame": blame, "message": error.message, "field": error.field, "way_out": error.way_out}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
