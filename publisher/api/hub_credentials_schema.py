"""A tenant's Hub in requests and answers."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.config import JsonDict

_EXAMPLE: JsonDict = {"endpoint": "https://huggingface.co", "write_token": "hf_…"}


class HubCredentialRequest(BaseModel):
    """Tokens are never answered."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]}, hide_input_in_errors=True)

    endpoint: str = Field(max_length=500, description="the Hub's address, as for HF_ENDPOINT")
    write_token: SecretStr = Field(min_length=8, max_length=1000, description="may write where variants are published")
    read_token: SecretStr | None = Field(
        default=None,
        min_length=8,
        max_length=1000,
        description="for gated base models and datasets of the service's Hub; null: the service's own",
    )

    @field_validator("endpoint")
    @classmethod
    def _address_of_a_hub(cls, endpoint: str) -> str:
        # not quoted: it may hold a password
        try:
            parts = urlsplit(endpoint)
            port_is_right = parts.port != 0
        except ValueError:
            raise ValueError("this is not an http(s) URL, such as https://huggingface.co") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right:
            raise ValueError("this is not an http(s) URL, such as https://huggingface.co")
        if "@" in parts.netloc or parts.query or parts.fragment or not endpoint.isascii() or not endpoint.isprintable():
            raise ValueError("a user, password, query or fragment has no place here, such as https://huggingface.co")
        return endpoint.rstrip("/")

    @field_validator("write_token", "read_token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        """A client's complaint of a header that it cannot send quotes it."""
        text = "" if token is None else token.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("a token is of printable ASCII characters without spaces")
        return token


class HubCredentialAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    endpoint: str = Field(description="the Hub's address")
    write_token_end: str = Field(description="the write token's last characters")
    read_token_end: str | None = Field(description="the read token's; null: there is none")
    set_by: str = Field(description="id of the API key that set them, or of a person's membership")
    set_at: float = Field(description="seconds since 1970")
    used_at: float | None = Field(description="when a job last published with it, seconds since 1970; null: none has")
