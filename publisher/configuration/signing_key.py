"""The key that published checkpoints are signed with: a private key of an elliptic curve, as PEM."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from publisher.errors import RequestFault

#: NIST P-256, P-384 and P-521: what OpenSSF model signing has a hash for
CURVES = ("secp256r1", "secp384r1", "secp521r1")
_MAKE = "Make one: `openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem`."


@dataclass(frozen=True)
class ModelKey:
    """`pem` is the key alone, whatever stood around it, and never shown; `id`: sha256 (hex) of the public key as PEM,
    by which signatures name it."""

    pem: str = field(repr=False)
    id: str

    @classmethod
    def read(cls, pem: str, where: str) -> ModelKey:
        """Raises RequestFault, naming `where` and nothing of the key, for what is no such key, or has a passphrase."""
        try:
            key = load_pem_private_key(pem.encode(), password=None)
        except TypeError:
            raise RequestFault(
                f"the key in {where} has a passphrase, which nobody is there to type.",
                way_out="Store it without, where nobody else can read it: `openssl ec -in KEY -out signing-key.pem`.",
            ) from None
        except (ValueError, UnsupportedAlgorithm):  # what they say may quote it
            raise RequestFault(f"{where} holds no private key as PEM.", way_out=_MAKE) from None
        if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name not in CURVES:
            raise RequestFault(f"the key in {where} is of no curve of {', '.join(CURVES)}.", way_out=_MAKE)
        alone = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(alone.decode("ascii"), _id_of(key.public_key()))


def public_key_id(pem: bytes, where: str) -> str:
    """The `id` of a public key. Raises RequestFault for what is none of these curves."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise RequestFault(
            f"{where} holds no public key, as PEM, of one of the curves {', '.join(CURVES)}.",
            way_out="Of a private key: `openssl ec -in signing-key.pem -pubout -out public-key.pem`.",
        )
    return _id_of(key)


def _id_of(key: EllipticCurvePublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
