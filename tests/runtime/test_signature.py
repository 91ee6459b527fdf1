"""Signed bundles: with trusted keys, no other bundle is accepted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonew_compiled.errors import SonewError, UsageError
from sonew_compiled.runtime import trial
from sonew_compiled.runtime.older_bundle import is_replaceable
from sonew_compiled.runtime.signature import open_signed_bundle, sign_bundle

pytest.importorskip("cryptography", reason="the extra `sign` is not installed")

from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

Refusal = Callable[..., str]


def _write(folder: Path, name: str, private: Any) -> None:
    """A private key, and its public half."""
    private_bytes = private.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    public_bytes = private.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private_bytes)
    (folder / f"{name}.pub").write_bytes(public_bytes)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys `mine`, `other`, and `curve`, which is of another kind."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("mine", "other"):
        _write(folder, name, ed25519.Ed25519PrivateKey.generate())
    _write(folder, "curve", ec.generate_private_key(ec.SECP256R1()))
    return folder


def test_a_signed_bundle_is_trusted(bundle_copy: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_bundle(bundle_copy, keys / "mine.pem")
    both = keys / "both.pub"
    both.write_bytes((keys / "other.pub").read_bytes() + b"a comment\n" + (keys / "mine.pub").read_bytes())
    opened = open_signed_bundle(bundle_copy, both)
    opened.verify()
    monkeypatch.setattr(trial, "choose_target", None)
    trial.try_apart(opened, None)  # type: ignore[arg-type]  # not looked at
    assert is_replaceable(bundle_copy)


def test_what_is_not_signed_by_a_trusted_key_is_refused(bundle_copy: Path, keys: Path, refusal: Refusal) -> None:
    def refused() -> str:
        return refusal(SonewError, lambda: open_signed_bundle(bundle_copy, keys / "mine.pub"))

    assert "is not signed, and only bundles signed by a key of" in refused()
    signature = sign_bundle(bundle_copy, keys / "other.pem")
    assert "or signed by somebody else" in refused()
    whole = sign_bundle(bundle_copy, keys / "mine.pem").read_bytes()
    for damaged in (b"", whole[:-3], b"A" + whole[1:], b"\xff" * 88, whole * 100):
        signature.write_bytes(damaged)
        assert "is not a signature of this manifest.json" in refused()
    signature.write_bytes(whole)
    manifest = bundle_copy / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text())))
    assert "the bundle was changed" in refused()


def test_a_damaged_bundle_is_not_signed(bundle_copy: Path, keys: Path, refusal: Refusal) -> None:
    (bundle_copy / "cpu.vmfb").write_bytes(b"")
    assert "truncated" in refusal(SonewError, lambda: sign_bundle(bundle_copy, keys / "mine.pem"))
    assert not (bundle_copy / "manifest.sig").exists()


def test_files_that_hold_no_key(tiny_bundle: Path, keys: Path, refusal: Refusal) -> None:
    (keys / "text").write_text("nothing")
    (keys / "broken").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    for name in ("text", "broken", "mine.pub", "curve.pem", "none"):
        message = refusal(UsageError, lambda name=name: sign_bundle(tiny_bundle, keys / name))
        assert "no Ed25519 private key" in message or "No such file" in message
    sign = keys.parent / "signed"
    shutil.copytree(tiny_bundle, sign)
    sign_bundle(sign, keys / "mine.pem")
    for name in ("text", "broken", "mine.pem", "curve.pub", "none"):
        message = refusal(UsageError, lambda name=name: open_signed_bundle(sign, keys / name))
        assert "no Ed25519 public key" in message or "No such file" in message


def test_the_command_line(sonew: Callable[..., Any], small: Any, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(keys)
    shutil.copytree(small.bundle, "b")
    monkeypatch.setenv("SONEW_TRUSTED_KEYS", "mine.pub")
    train = ("run", "b", "--data", small.data, "--epochs", 1)
    evaluate = ("eval", "b", "--checkpoint", "sonew-run", "--data", small.data)
    for line in (train, evaluate, ("inspect", "b")):
        result = sonew(*line)
        assert (result.code, result.err.count("\n")) == (1, 1)
        assert "b is not signed" in result.err
    assert sonew("sign", "b", "--key", "mine.pem").err == "wrote b/manifest.sig\n"
    for line in (train, evaluate, ("inspect", "b", "--trusted-keys", "mine.pub")):
        assert sonew(*line).code == 0
    assert sonew("inspect", "b", "--trusted-keys", "other.pub").code == 1
    stopped = sonew(*train, "--trusted-keys", "mine.pub", "--max-steps", 2, "-o", "stopped")
    (said,) = [line for line in stopped.err.splitlines() if "go on with: " in line]
    assert said.endswith(" --trusted-keys mine.pub")
