"""The keys of a daemon: what its secrets are sealed under, and what its orders are signed with.

Secrets: AES-256-GCM by `cryptography`. What a value is sealed for, the secret's name, is bound to it: a
sealed value that is put in another's place opens nothing. The key is a file of its own, so that
whoever has the journal alone, or a backup, has no secret.

Orders (--sign-orders): Ed25519. The public key is shown by `cronflowd key`, and a worker gets it as a
file (--order-key).
"""

from __future__ import annotations

import os
import secrets
from base64 import b64decode, b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import Exit, Fatal, Refusal
from .disk import or_fatal, read_small
from .secrets import make_key, read_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from ..base.proofs import IsSigned, Sign

ORDER_KEY_NAME = "order.key"  # in the data directory
KEY_NAME = "key"  # of the file, in the data directory; and of the systemd credential
WEB_KEY_NAME = "web.key"  # in the data directory: what sessions at the HTTP door are signed with
FOR_EVER = "without it no secret could be opened any more"
_NONCE_BYTES = 12


class Vault:
    """Seals and opens values, if there is a key."""

    def __init__(self, data: Path) -> None:
        given = os.environ.get("CREDENTIALS_DIRECTORY")
        self._cipher: Any = None
        self.why = f"there is no key: {data / KEY_NAME}"  # why nothing can be opened
        for self._path in [*([Path(given, KEY_NAME)] if given else []), data / KEY_NAME]:
            try:
                is_there = self._path.exists()
            except OSError as error:
                self.why = f"{self._path}: cannot read the key: {error.strerror}"
                break
            if is_there:
                self._read()
                break

    def _read(self) -> None:
        try:
            key = read_key(self._path, "key")
        except Fatal as fatal:
            self.why = fatal.message
        else:
            # Only where there is a key: it takes 30 ms and some MiB.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher, self.why = AESGCM(key), ""

    def make_key(self) -> None:
        """A new key, where there is none. Blocking, for a thread. Raises Refusal."""
        try:
            make_key(self._path, FOR_EVER)
        except Fatal as fatal:
            raise Refusal("internal", f"no key could be made: {fatal.message}") from None
        self._read()

    def seal(self, name: str, value: bytes) -> str:
        """Base64 of a nonce and what the key makes of the value. Raises ValueError, which says why not."""
        if self._cipher is None:
            raise ValueError(self.why)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed: bytes = nonce + self._cipher.encrypt(nonce, value, name.encode())
        return b64encode(sealed).decode()

    def open(self, name: str, sealed: str) -> bytes:
        """The value. Raises ValueError, which says why not."""
        if self._cipher is None:
            raise ValueError(self.why)
        from cryptography.exceptions import InvalidTag

        try:
            data = b64decode(sealed)
            opened: bytes = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], name.encode())
            return opened
        except (InvalidTag, ValueError):
            raise ValueError("it was sealed under another key than this one") from None


# --- orders -------------------------------------------------------------------------------------


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
        with or_fatal(f"{path}: cannot read the order key", Exit.CONFIG):
            key = Ed25519PublicKey.from_public_bytes(b64decode(read_small(path), validate=False))
    except ValueError:
        raise Fatal(Exit.CONFIG, f"{path}: this is not what `cronflowd key` shows") from None

    def is_signed(signature: bytes, text: bytes) -> bool:
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return is_signed
