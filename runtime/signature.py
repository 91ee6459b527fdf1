"""The signature of a bundle's author: Ed25519 over the manifest, which has the hashes of all files."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sonew_compiled.contract import MANIFEST_FILE, SIGNATURE_FILE
from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime.bundle import Bundle, open_bundle
from sonew_compiled.runtime.json_files import read_content
from sonew_compiled.runtime.schema import Unfit
from sonew_compiled.runtime.tensorfile import write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# The prefix keeps a signature over a manifest from being valid for anything else.
_PREFIX = b"sonew-compiled bundle\n"
_LARGEST_KEY = 1 << 20
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


def sign_bundle(bundle: Path, key: Path) -> Path:
    """Signs a whole bundle, and returns the path of the signature, which becomes part of the bundle.

    Args:
      bundle: the directory.
      key: a file with an Ed25519 private key in PEM, without a password.

    Raises:
      UsageError: the file holds no such key.
      SonewError: the bundle is damaged, or cannot be written to.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key(key)
    try:
        private = load_pem_private_key(content, password=None)
    except Exception as error:  # the library raises many kinds of exceptions for invalid keys
        raise _no_key(key, "private", type(error).__name__) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise _no_key(key, "private", "it is of another kind")
    opened = open_bundle(bundle)
    opened.verify()
    signature = private.sign(_PREFIX + opened.manifest_bytes)
    write_atomically(bundle / SIGNATURE_FILE, [base64.b64encode(signature), b"\n"])
    return bundle / SIGNATURE_FILE


def open_signed_bundle(path: Path, keys: Path) -> Bundle:
    """Opens a bundle that one of some keys must have signed.

    Args:
      path: the directory.
      keys: a file with one or more Ed25519 public keys in PEM.

    Raises:
      UsageError: the file holds no such keys, or the directory is no bundle.
      SonewError: the bundle has no signature, or one by another key or of other contents, or its manifest is damaged.
    """
    opened = open_bundle(path)
    _check(opened, keys)
    return replace(opened, is_trusted=True)


def _check(opened: Bundle, keys: Path) -> None:
    from cryptography.exceptions import InvalidSignature

    trusted = _public_keys(keys)
    path = opened.path / SIGNATURE_FILE
    try:
        signature = base64.b64decode(read_content(path, largest=1_000).strip(), validate=True)
    except FileNotFoundError:
        raise SonewError(
            f"{opened.path} is not signed, and only bundles signed by a key of {keys} may be used: use `sonew sign`"
        ) from None
    except (OSError, Unfit, binascii.Error):
        signature = b""
    for key in trusted:
        try:
            key.verify(signature, _PREFIX + opened.manifest_bytes)
        except InvalidSignature:
            continue
        return
    raise SonewError(
        f"{path} is not a signature of this {MANIFEST_FILE} by any key in {keys}: the bundle was changed, or signed by "
        "somebody else"
    )


def _public_keys(path: Path) -> list[Ed25519PublicKey]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = []
    for block in _PEM.findall(_read_key(path)):
        try:
            key = load_pem_public_key(block)
        except Exception as error:
            raise _no_key(path, "public", type(error).__name__) from None
        if not isinstance(key, Ed25519PublicKey):
            raise _no_key(path, "public", "one is of another kind")
        found.append(key)
    if not found:
        raise _no_key(path, "public", "it has no PUBLIC KEY")
    return found


def _read_key(path: Path) -> bytes:
    try:
        return read_content(path, largest=_LARGEST_KEY)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give a file of keys") from None
    except Unfit as error:
        raise UsageError(f"{path} cannot be read ({error}): give a file of keys") from None


def _no_key(path: Path, kind: str, why: str) -> UsageError:
    return UsageError(
        f"{path} holds no Ed25519 {kind} key in PEM ({why}): make one with `openssl genpkey -algorithm ed25519`"
        + ("" if kind == "private" else " and `openssl pkey -pubout`")
    )
