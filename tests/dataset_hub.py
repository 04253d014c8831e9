"""A Hub that serves datasets: the few addresses that `datasets` and huggingface_hub ask for, over files in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests.servers import serve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "89abcdef0123456789abcdef0123456789abcdef"


@dataclass
class DatasetHub:
    """`repos` maps an id to its files. `commit` is what main points to. `downloads` counts the reads of files.

    `limited` maps an id to the seconds after which it is to be asked for again."""

    endpoint: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    commit: str = COMMIT
    downloads: list[str] = field(default_factory=list)
    limited: dict[str, str] = field(default_factory=dict)


@contextmanager
def serve_datasets() -> Iterator[DatasetHub]:
    hub = DatasetHub()
    with serve(_application(hub)) as port:
        hub.endpoint = f"http://127.0.0.1:{port}"
        yield hub


def _application(hub: DatasetHub) -> FastAPI:
    app = FastAPI()

    @app.get("/api/datasets/{owner}/{name}")
    @app.get("/api/datasets/{owner}/{name}/revision/{revision}")
    def info(owner: str, name: str, revision: str = "main") -> Response:
        repo = f"{owner}/{name}"
        if refused := _refused(hub, repo, revision):
            return refused
        siblings = [{"rfilename": path} for path in hub.repos[repo]]
        commit = hub.commit if revision == "main" else revision
        gated = repo in hub.gated
        return JSONResponse({"id": repo, "sha": commit, "siblings": siblings, "private": False, "gated": gated})

    @app.get("/api/datasets/{owner}/{name}/tree/{revision}")
    @app.get("/api/datasets/{owner}/{name}/tree/{revision}/{path:path}")
    def tree(owner: str, name: str, revision: str, path: str = "", recursive: bool = False) -> Response:
        files, start = hub.repos[f"{owner}/{name}"], f"{path}/" if path else ""
        inside = {file: file.removeprefix(start) for file in files if file.startswith(start)}
        if not inside:
            return _error(404, "EntryNotFound")
        folders = {f"{start}{rest.partition('/')[0]}" for rest in inside.values() if "/" in rest}
        shown = [file for file, rest in inside.items() if recursive or "/" not in rest]
        return JSONResponse([_entry(file, files[file]) for file in shown] + [_folder(name) for name in folders])

    @app.post("/api/datasets/{owner}/{name}/paths-info/{revision}")
    async def paths_info(owner: str, name: str, revision: str, request: Request) -> Response:
        files = hub.repos[f"{owner}/{name}"]
        form = await request.form()
        paths = form.getlist("paths") or (await request.json())["paths"]
        return JSONResponse([_entry(str(path), files[str(path)]) for path in paths if path in files])

    @app.api_route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def resolve(owner: str, name: str, revision: str, path: str, request: Request) -> Response:
        repo = f"{owner}/{name}"
        if refused := _refused(hub, repo, revision):
            return refused
        if repo in hub.gated:
            return _error(403, "GatedRepo")
        if path not in hub.repos[repo]:
            return _error(404, "EntryNotFound")
        if request.method == "GET":
            hub.downloads.append(path)
        return _content(hub.repos[repo][path], revision, request.headers.get("range"))

    return app


def _refused(hub: DatasetHub, repo: str, revision: str) -> Response | None:
    if repo in hub.limited:
        return JSONResponse({"error": "too many"}, 429, headers={"Retry-After": hub.limited[repo]})
    if repo not in hub.repos:
        return _error(404, "RepoNotFound")
    return None if revision in ("main", COMMIT, LATER) else _error(404, "RevisionNotFound")


def _error(status: int, code: str) -> Response:
    return JSONResponse({"error": code}, status, headers={"X-Error-Code": code})


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _content(content: bytes, commit: str, asked: str | None) -> Response:
    headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
    if asked is None:
        return Response(content, headers=headers, media_type="application/octet-stream")
    start, _, end = asked.removeprefix("bytes=").partition("-")
    last = min(int(end or len(content)), len(content) - 1)
    headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
    return Response(content[int(start) : last + 1], 206, headers, "application/octet-stream")
