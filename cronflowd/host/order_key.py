"""The key that orders are signed with (--sign-orders), and the public one that workers know it by.

Ed25519 by `cryptography`. The private key never leaves the data directory. The public one is
shown by `cronflowd key`, and a worker gets it as a file (--order-key).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import Exit, Fatal
from .disk import exit_of, read_small
from .secrets import make_key, read_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ..base.proofs import IsSigned, Sign

ORDER_KEY_NAME = "order.key"  # in the data directory


def _private_key(data: Path) -> Ed25519PrivateKey:
    """The key, made where there is none. Raises Fatal."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = data / ORDER_KEY_NAME
    if not path.exists():
        make_key(path, "workers know the daemon by it")
    return Ed25519PrivateKey.from_private_bytes(read_key(path, "order key"))


def read_signer(data: Path) -> Sign:
    """What signs orders. Raises Fatal."""
    return _private_key(data).sign


def public_key(data: Path) -> str:
    """The public key as one line of base64. Raises Fatal."""
    return b64encode(_private_key(data).public_key().public_bytes_raw()).decode()


def read_verifier(path: Path) -> IsSigned:
    """Whether a signature is that of the key whose public half a file holds. Raises Fatal."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(b64decode(read_small(path), validate=False))
    except OSError as error:
        raise Fatal(
            exit_of(error, Exit.CONFIG), f"{path}: cannot read the order key: {error.strerror}"
        ) from error
    except ValueError:
        raise Fatal(Exit.CONFIG, f"{path}: this is not what `cronflowd key` shows") from None

    def is_signed(signature: bytes, text: bytes) -> bool:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return is_signed
