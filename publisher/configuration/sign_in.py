"""Sign-in of people by OpenID Connect."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from publisher.configuration.empty import none_if_empty
from publisher.people.addresses import is_safe
from publisher.people.rules import Rule


class SignInSettings(BaseModel):
    """Sign-in of people"""

    oidc_issuer: str | None = Field(
        default=None,
        description="provider of identities (OpenID Connect) whose people may sign in on the dashboard, exactly as its "
        "discovery document names it; empty: keys alone",
    )
    oidc_client_id: str | None = Field(default=None, description="this service's name at oidc_issuer")
    oidc_client_secret: SecretStr | None = Field(
        default=None, description="this service's secret at oidc_issuer; empty: a public client, by PKCE alone"
    )
    oidc_scopes: str = Field(default="openid profile email", description="what oidc_issuer is asked for")
    oidc_name: str = Field(
        default="single sign-on", min_length=1, max_length=60, description="how the sign-in page calls oidc_issuer"
    )
    oidc_rules: list[Rule] = Field(
        default_factory=list,
        description="who belongs to which tenant without an invitation, by claim or e-mail domain: docs/sign-in.md",
    )
    oidc_help: str = Field(
        default="the operator of this service",
        min_length=1,
        max_length=200,
        description="whom people ask who sign in and belong to no tenant",
    )
    oidc_seconds: float = Field(default=10, gt=0, description="how long a sign-in waits for oidc_issuer")

    _not_set = field_validator("oidc_issuer", "oidc_client_id", mode="before")(none_if_empty)

    @field_validator("oidc_issuer")
    @classmethod
    def _safe_issuer(cls, url: str | None) -> str | None:
        if url is not None and (not is_safe(url) or "?" in url or "#" in url):
            raise ValueError("this is not an https URL without ? and # (http is for this machine alone)")
        return url  # whole: some issuers end with a slash

    @field_validator("oidc_scopes")
    @classmethod
    def _with_openid(cls, scopes: str) -> str:
        if "openid" not in scopes.split():
            raise ValueError("openid is missing: without it nobody is identified")
        return scopes

    @model_validator(mode="after")
    def _whole_registration(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError("oidc_issuer and oidc_client_id belong together: set both, or none")
        return self
