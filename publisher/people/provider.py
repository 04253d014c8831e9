"""Sign-in by OpenID Connect Core 1.0: Authorization Code (section 3.1) with PKCE (RFC 7636), state and nonce."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from authlib.common.urls import add_params_to_uri
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from pydantic import SecretStr

from publisher.people.calls import ProviderAway, SignInRefused, asked, client, read_object
from publisher.people.identity import Identity, identity, is_subject
from publisher.people.metadata import Directory, Metadata
from publisher.people.rules import claim_of

#: signatures whose key only the provider has. With HS256 anybody who knows a public key could "sign" with it.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
#: seconds by which two machines' clocks may differ
LEEWAY = 60
_AGAIN = "Sign in again; if it happens again, tell the service's operator."


@dataclass(frozen=True)
class Registration:
    """This service as the provider knows it. `scopes`: separated by spaces; `seconds`: for one sign-in's calls."""

    issuer: str
    client_id: str
    client_secret: SecretStr | None
    scopes: str
    redirect_uri: str
    seconds: float


@dataclass(frozen=True)
class Attempt:
    """What only the browser that began a sign-in has, and what makes the answer worth nothing elsewhere."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def begin(cls) -> Attempt:
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))


class Provider:
    """For all requests of a process. Its calls block: they belong into publisher.api.outside's lanes.

    `needed`: claims that rules ask for, which userinfo may have where the ID token does not.
    """

    def __init__(self, registration: Registration, needed: Collection[str] = ()) -> None:
        self._registration = registration
        self._needed = {"email", *needed}
        self.directory = Directory(registration.issuer)

    @property
    def issuer(self) -> str:
        return self._registration.issuer

    def authorization_url(self, attempt: Attempt) -> str:
        """Where the browser goes to sign in. Raises ProviderAway."""
        with self._client() as calls:
            endpoint = self.directory.metadata(calls).authorization_endpoint
            url, _ = calls.create_authorization_url(
                endpoint, state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier
            )
        return str(url)

    def identify(self, attempt: Attempt, code: str) -> Identity:
        """Who came back with `code`. Raises ProviderAway, or SignInRefused for a code or an answer that does not fit.

        No token outlives this call.
        """
        with self._client() as calls:
            metadata = self.directory.metadata(calls)
            token = self._exchange(calls, metadata, attempt, code)
            claims = self._checked(calls, token, attempt)
            if metadata.userinfo_endpoint and any(claim_of(claims, name) is None for name in self._needed):
                claims = self._with_userinfo(calls, metadata.userinfo_endpoint, claims)
        return identity(self.issuer, claims)

    def sign_out_url(self, back: str) -> str | None:
        """Where a browser ends its session at the provider, too (RP-Initiated Logout 1.0); None if that is not offered,
        or not known yet. `back`: an address that is registered there."""
        metadata = self.directory.known()
        if metadata is None or metadata.end_session_endpoint is None:
            return None
        asked = {"client_id": self._registration.client_id, "post_logout_redirect_uri": back}
        return str(add_params_to_uri(metadata.end_session_endpoint, list(asked.items())))

    def _client(self) -> OAuth2Client:
        ours = self._registration
        secret = ours.client_secret.get_secret_value() if ours.client_secret else None
        return client(
            ours.seconds,
            client_id=ours.client_id,
            client_secret=secret,
            scope=ours.scopes,
            redirect_uri=ours.redirect_uri,
            code_challenge_method="S256",
        )

    def _exchange(self, calls: OAuth2Client, metadata: Metadata, attempt: Attempt, code: str) -> Mapping[str, Any]:
        secret = self._registration.client_secret
        calls.token_endpoint_auth_method = _auth_method(secret, metadata)
        token = asked(
            self.issuer,
            "the code",
            lambda: calls.fetch_token(
                metadata.token_endpoint, grant_type="authorization_code", code=code, code_verifier=attempt.verifier
            ),
        )
        if not isinstance(token.get("id_token"), str):
            raise ProviderAway(f"{self.issuer} gave no ID token.", way_out="PUBLISHER_OIDC_SCOPES needs openid.")
        return dict(token)

    def _checked(self, calls: OAuth2Client, token: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        """The ID token's claims, as section 3.1.3.7 says. Raises SignInRefused."""
        ours = self._registration
        options = {
            "iss": {"essential": True, "value": ours.issuer},
            "aud": {"essential": True, "value": ours.client_id},
        }
        expected = {"nonce": attempt.nonce, "client_id": ours.client_id, "access_token": token.get("access_token")}
        try:
            signed = self._signed(calls, token["id_token"])
            claims = CodeIDToken(signed.claims, signed.header, options, expected)
            claims.validate(leeway=LEEWAY)
            if not is_subject(claims["sub"]):
                raise ValueError("sub is no text of 1 to 255 characters")
        except (JoseError, ValueError, TypeError, KeyError) as error:
            why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise SignInRefused(f"The ID token of {ours.issuer} is not accepted: {why}.", way_out=_AGAIN) from None
        return dict(claims)

    def _signed(self, calls: OAuth2Client, id_token: str) -> jwt.Token:
        """Raises JoseError unless one of the provider's keys signed it: those of now, if it changed them."""
        keys = self.directory.keys(calls)
        try:
            return _decode(id_token, keys)
        except (InvalidKeyIdError, BadSignatureError):
            newer = self.directory.newer_keys(calls)
            if newer is None:
                raise
            return _decode(id_token, newer)

    def _with_userinfo(self, calls: OAuth2Client, endpoint: str, claims: dict[str, Any]) -> dict[str, Any]:
        """With what the ID token leaves out; where both say something, the signed word counts."""
        found = asked(self.issuer, "userinfo", lambda: read_object(calls.get(endpoint)))
        if found.get("sub") != claims["sub"]:  # section 5.3.2: it may be about somebody else then
            raise SignInRefused(f"{self.issuer}'s userinfo is about somebody else.", way_out=_AGAIN)
        if "email" in claims:  # an address and whether it is verified are one statement
            found.pop("email_verified", None)
        return found | claims


def _auth_method(secret: SecretStr | None, metadata: Metadata) -> str:
    if secret is None:
        return "none"
    return "client_secret_basic" if "client_secret_basic" in metadata.token_auth_methods else "client_secret_post"


def _decode(id_token: str, keys: KeySet) -> jwt.Token:
    return jwt.decode(id_token, keys, registry=JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False))
