"""A small provider of identities, OpenID Connect over HTTP on loopback, that a test can make misbehave."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.servers import serve

CLIENT_ID, CLIENT_SECRET = "loram-publisher", "s3cret:with/odd+letters"
Claims = dict[str, Any]


@dataclass
class SmallProvider:
    """`user`: claims of whoever signs in next. `changes`: of the next ID tokens' claims, None takes one away; `sign`
    makes the token; `broken`: path → what it answers instead."""

    issuer: str = ""
    user: Claims = field(default_factory=dict)
    userinfo: Claims | None = None
    changes: Claims = field(default_factory=dict)
    key: RSAKey | ECKey = field(default_factory=lambda: RSAKey.generate_key(2048, auto_kid=True))
    algorithm: str = "RS256"
    sign: Callable[[Claims], str] | None = None
    broken: dict[str, Callable[[], Response]] = field(default_factory=dict)
    secret: str | None = CLIENT_SECRET
    asked: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def well(self) -> None:
        """As it should be; what it had signed before stays good."""
        self.user, self.userinfo, self.changes, self.sign = {}, None, {}, None
        self.broken.clear()
        self.asked.clear()

    def rotate(self, key: RSAKey | ECKey, algorithm: str) -> None:
        self.key, self.algorithm = key, algorithm

    def app(self) -> Starlette:
        routes = {
            "/.well-known/openid-configuration": (self._metadata, "GET"),
            "/authorize": (self._authorize, "GET"),
            "/token": (self._token, "POST"),
            "/keys": (self._keys, "GET"),
            "/userinfo": (self._userinfo, "GET"),
            "/end": (self._end, "GET"),
        }
        return Starlette(
            routes=[
                Route(path, self._told(path, answer), methods=[method]) for path, (answer, method) in routes.items()
            ]
        )

    def _told(self, path: str, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def told(request: Request) -> Response:
            self.asked.append(path)
            if path in self.broken:
                return await run_in_threadpool(self.broken[path])
            found: Response = await answer(request)
            return found

        return told

    async def _metadata(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "end_session_endpoint": f"{self.issuer}/end?theme=dark",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            }
        )

    async def _authorize(self, request: Request) -> Response:
        """The person has a session here, and is sent back at once."""
        asked = dict(request.query_params)
        assert asked["response_type"] == "code", asked
        assert asked["client_id"] == CLIENT_ID
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.issuer, "session_state": "x"}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(back)}", status_code=302)

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        asked = self._codes.pop(form.get("code", ""), None)  # once
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or form.get("redirect_uri") != asked["redirect_uri"]
            or base64.urlsafe_b64encode(challenge).rstrip(b"=").decode() != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant", "error_description": "<b>no</b>"}, status_code=400)
        if form.get("client_id") != CLIENT_ID or form.get("client_secret") != self.secret:
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        token = secrets.token_urlsafe(16)
        claims = self._claims(asked, token)
        id_token = self.sign(claims) if self.sign else self.signed(claims)
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": 60, "id_token": id_token})

    def _claims(self, asked: dict[str, str], token: str) -> Claims:
        digest = hashlib.sha256(token.encode()).digest()
        now = int(time.time())
        claims: Claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims["at_hash"] = base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
        claims |= self.user | self.changes
        return {name: value for name, value in claims.items() if value is not None}

    def signed(self, claims: Claims) -> str:
        return jwt.encode({"alg": self.algorithm, "kid": self.key.kid}, claims, self.key, algorithms=[self.algorithm])

    async def _keys(self, request: Request) -> Response:
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def _userinfo(self, request: Request) -> Response:
        assert request.headers["authorization"].startswith("Bearer ")
        return JSONResponse({"sub": self.user.get("sub")} if self.userinfo is None else self.userinfo)

    async def _end(self, request: Request) -> Response:
        assert request.query_params["client_id"] == CLIENT_ID
        return HTMLResponse('<!doctype html><link rel="icon" href="data:,"><title>Signed out</title>')


@contextmanager
def small_provider(host: str = "127.0.0.1") -> Iterator[SmallProvider]:
    """Until the block is left. `localhost` is another site than 127.0.0.1 to a browser."""
    provider = SmallProvider()
    with serve(provider.app()) as port:
        provider.issuer = f"http://{host}:{port}"
        yield provider
