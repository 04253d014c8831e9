"""Who is signed in: a signed, expiring cookie that carries nothing but an id, of an API key or of a membership."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from publisher.signing.keyring import Keyring
from publisher.signing.signer import Signer, unhex

SESSION_COOKIE = "publisher_session"
#: exists only between the sign-in form and its answer, so that the form has a CSRF token, too
SIGN_IN_COOKIE = "publisher_sign_in"
#: a working day; signing in again takes one paste
SESSION_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Session:
    """What a genuine cookie says; whether the key or membership still counts, and nobody signed out, only the database
    knows.

    `stands_on` is the id of the API key, or of the person's membership, that it was begun with. `id` is the cookie's
    sha256, which gives nothing away; `expires` in seconds since 1970.
    """

    stands_on: str
    csrf: str
    id: str
    expires: float


class Sessions:
    """Writes and reads the cookies. `secure`: only over https."""

    def __init__(self, secret: bytes | Keyring, *, secure: bool) -> None:
        self._session, self._csrf = Signer(secret, "dashboard session"), Signer(secret, "dashboard csrf")
        self._secure = secure

    def seal(self, stands_on: str, expires: float | None = None) -> str:
        """The session cookie's value; `expires` in seconds since 1970, 12 hours from now by default."""
        until = int(time.time() + SESSION_SECONDS if expires is None else expires)
        # a number of its own: who signs out and in again within a second has another session
        claims = f"{stands_on}.{secrets.token_hex(8)}.{until}"
        return f"{claims}.{self._session.sign(claims).hex()}"

    def open(self, value: str) -> Session | None:
        """None if the value is none of ours, changed, or over."""
        claims, _, mac = value.rpartition(".")
        if not self._session.is_genuine(claims, unhex(mac)):
            return None
        stands_on, *_, until = claims.split(".")
        if time.time() >= int(until):
            return None
        return Session(stands_on, self.csrf(value), hashlib.sha256(value.encode()).hexdigest(), float(until))

    def csrf(self, cookie: str) -> str:
        """The token that a form must carry beside this cookie: no other site can read or compute it."""
        return self._csrf.sign(cookie).hex()

    def is_genuine(self, token: str, cookie: str | None) -> bool:
        """Whether a form came from a page that was served together with this cookie."""
        return bool(cookie) and self._csrf.is_genuine(cookie or "", unhex(token))

    def begin(self, response: Response, stands_on: str, expires: float | None = None) -> Session:
        """Sign in; until `expires`, in seconds since 1970, where a session before ends then."""
        seconds = SESSION_SECONDS if expires is None else max(0, int(expires - time.time()))
        sealed = self.seal(stands_on, expires)
        self._set(response, SESSION_COOKIE, sealed, seconds, path="/")
        response.delete_cookie(SIGN_IN_COOKIE, path="/login")
        begun = self.open(sealed)
        assert begun is not None
        return begun

    def end(self, response: Response) -> None:
        """Sign out."""
        response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict", secure=self._secure)

    def offer(self, request: Request, response: Response, cookie: str) -> None:
        """Keep `cookie` for as long as somebody may look at the sign-in form."""
        if request.cookies.get(SIGN_IN_COOKIE) != cookie:
            self._set(response, SIGN_IN_COOKIE, cookie, SESSION_SECONDS, path="/login")

    @staticmethod
    def sign_in_cookie(request: Request) -> str:
        """The form's cookie: the one that the browser already has (forms in two tabs both work), or a new one."""
        return request.cookies.get(SIGN_IN_COOKIE) or secrets.token_urlsafe(24)

    def _set(self, response: Response, name: str, value: str, seconds: int, *, path: str) -> None:
        response.set_cookie(
            name, value, max_age=seconds, path=path, httponly=True, samesite="strict", secure=self._secure
        )
