"""The process that reads a dataset: what is asked on stdin, texts on stdout, one JSON string a line.

Its last line is an object: empty if all was read, else whose fault it is. Whoever reads a dataset need not trust its
author: only readers of plain data are used. The library itself runs no scripts, and refuses a card that names files of
this machine or of other repositories.
"""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import datasets
import httpx
import httpx2
import pyarrow
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from publisher.errors import RequestFault
from publisher.hub_client.patience import impatient, is_away, retry_after

READERS = ("json", "parquet", "csv", "text", "arrow")
_RETRIES = 3
_PAUSE = 5
_NETWORK = (HfHubHTTPError, httpx.TransportError, httpx2.TransportError, OSError)
_DATASET = (
    DatasetsError,
    RepositoryNotFoundError,
    EntryNotFoundError,
    RuntimeError,
    ValueError,
    pyarrow.ArrowException,
    zlib.error,
    lzma.LZMAError,
    EOFError,
)


def main() -> None:
    asked = json.load(sys.stdin)
    impatient()
    try:
        for text in texts(asked):
            print(json.dumps(text), flush=asked["first_only"])
        last: dict[str, Any] = {}
    except RequestFault as error:
        last = {"blame": "request", "message": error.message, "field": error.field, "way_out": error.way_out}
    except GatedRepoError as error:
        last = _request_fault(asked, error)
    except _NETWORK as error:
        last = _network_fault(asked, error) if _is_the_network(error) else _request_fault(asked, error)
    except _DATASET as error:
        last = _network_fault(asked, error) if _lies_below(error) else _request_fault(asked, error)
    print(json.dumps(last), flush=True)


def texts(asked: dict[str, Any]) -> Iterator[str]:
    """Up to `documents` rows' texts; blank and missing ones are left out, but counted."""
    field = asked["text_field"]
    for number, row in enumerate(_stream(asked).take(asked["documents"]), 1):
        if field not in row:
            raise _no_column(asked, row)
        text = row[field]
        if text is None or (isinstance(text, str) and not text.strip()):
            continue
        if not isinstance(text, str):
            raise RequestFault(f"{_name(asked)}: row {number} has no text in field {field!r}.", field="text_field")
        yield text
        if asked["first_only"]:
            return
    if asked["first_only"]:
        raise RequestFault(f"{_name(asked)}: its first {asked['documents']:,} rows hold no text.", field="text_field")


def _stream(asked: dict[str, Any]) -> datasets.IterableDataset:
    for retries in ("STREAMING_READ_MAX_RETRIES", "STREAMING_OPEN_MAX_RETRIES"):
        setattr(datasets.config, retries, _RETRIES)  # the job itself is tried again
    for pause in ("STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL", "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL"):
        setattr(datasets.config, pause, _PAUSE)  # minutes by default; a job waits them without a worker
    builder = datasets.load_dataset_builder(
        asked["repo_id"], asked["config"], revision=asked["revision"], token=asked["token"] or False
    )
    _refuse_programs(asked, builder)
    stream = builder.as_streaming_dataset(split=asked["split"])
    if stream.features is not None and asked["text_field"] not in stream.features:
        raise _no_column(asked, stream.features)
    return stream


def _refuse_programs(asked: dict[str, Any], builder: datasets.DatasetBuilder) -> None:
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in READERS:
        raise RequestFault(
            f"{_name(asked)} is read as {reader}, which is not plain text.",
            field="dataset",
            way_out=f"Formats that are read: {', '.join(READERS)}.",
        )


def _no_column(asked: dict[str, Any], columns: Any) -> RequestFault:
    return RequestFault(
        f"{_name(asked)} has no column {asked['text_field']!r}.",
        field="text_field",
        way_out=f"Columns: {', '.join(columns)}.",
    )


def _name(asked: dict[str, Any]) -> str:
    return f"dataset {asked['repo_id']} at {asked['revision'][:12]}"


def _of_the_dataset(error: BaseException) -> bool:
    """Whether what looks like the network's fault is the dataset's: it or a file of it is missing, gated or damaged.

    What pyarrow cannot unpack is an OSError, of no kind and without a number, as none of the network's is.
    """
    missing = (DatasetsError, RepositoryNotFoundError, EntryNotFoundError, FileNotFoundError)
    is_unpacking = isinstance(error, gzip.BadGzipFile) or (type(error) is OSError and error.errno is None)
    return is_unpacking or isinstance(error, missing)


def _is_the_network(error: BaseException) -> bool:
    """A file that is missing is the dataset's fault, unless it is so because the Hub did not answer for it."""
    return not _of_the_dataset(error) or _is_away(error) or _lies_below(error)


def _lies_below(error: BaseException) -> bool:
    """Whether the network's fault lies below what the library made of it."""
    cause = error.__cause__ or error.__context__
    if cause is None:
        return False
    return _is_away(cause) or (isinstance(cause, _NETWORK) and not _of_the_dataset(cause)) or _lies_below(cause)


def _is_away(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and is_away(error.response.status_code)
    return isinstance(error, (httpx.TransportError, httpx2.TransportError))


def _request_fault(asked: dict[str, Any], error: Exception) -> dict[str, str | None]:
    return {
        "blame": "request",
        "message": f"{_name(asked)} cannot be read: {error}",
        "field": "dataset",
        "way_out": "Check config and split; a gated one needs access and PUBLISHER_BASE_MODEL_TOKEN; "
        "datasets with a script of their own are not run.",
    }


def _network_fault(asked: dict[str, Any], error: Exception) -> dict[str, Any]:
    answer = _answer_below(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return {
        "blame": "infrastructure" if full else "hub",
        "message": f"the Hub broke off while {_name(asked)} was read: {type(error).__name__}: {error}",
        "way_out": "Check PUBLISHER_BASE_MODEL_ENDPOINT and the network, then try again.",
        "retry_after": retry_after(answer.headers) if answer is not None else None,
    }


def _answer_below(error: BaseException | None) -> Any:
    """What the Hub answered, below whatever the library made of it; None if it did not."""
    if error is None or isinstance(error, HfHubHTTPError):
        return None if error is None else error.response
    return _answer_below(error.__cause__ or error.__context__)


if __name__ == "__main__":
    main()
