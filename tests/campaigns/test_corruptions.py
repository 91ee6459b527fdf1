"""Damage to every file that a command reads, and the end of each command."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from campaigns import damage
from campaigns.conduct import check_end, seeds, within_limits
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime import EpochMetrics, open_bundle, open_device, owner, read_metrics, save_parameters
from sonew_compiled.runtime.metrics import MetricsFile
from sonew_compiled.runtime.trial import remember_made_here, try_apart

EndsWell = Callable[..., int]
Log = Callable[[str], None]
Restored = Callable[[], None]

BUNDLE, RUN = Path("small.bundle"), Path("run")
TRAIN = ("run", "small.bundle", "--data", "data.npz", "--epochs", 1, "--max-steps", 2, "-o", "new")
RESUME = ("run", "small.bundle", "--resume", "run", "--data", "data.npz", "--epochs", 7)
EVALUATE = ("eval", "small.bundle", "--checkpoint", "run", "--data", "data.npz")


@pytest.fixture(autouse=True)
def _in_place(place: Path) -> None:
    """Gives each test a folder that it may damage."""


def _either(path: Path, rng: random.Random) -> None:
    """Damages a JSON file, either as JSON or as bytes."""
    content = path.read_bytes()
    path.write_bytes(damage.of_bytes(content, rng) if rng.random() < 0.25 else damage.of_json(json.loads(content), rng))


def test_manifests(ends_well: EndsWell, restored: Restored) -> None:
    for seed in seeds(30):
        rng = random.Random(seed)
        _either(BUNDLE / "manifest.json", rng)
        commands = (("inspect", BUNDLE), ("inspect", BUNDLE, "--json"), ("inspect", BUNDLE, "--kernels"))
        if ends_well(seed, *rng.choice(commands)) == 0:
            # A readable executable may still be invalid code, which the trial then reports.
            ends_well(seed, *rng.choice((TRAIN, EVALUATE)))
        restored()


def _put(name: str, content: bytes) -> None:
    """A file of the bundle, and its hash."""
    (BUNDLE / name).write_bytes(content)
    manifest = json.loads((BUNDLE / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (BUNDLE / "manifest.json").write_text(json.dumps(manifest))


def test_executables_whose_hash_fits(sonew_apart: Callable[..., Any], restored: Restored, log: Log) -> None:
    """If a trial finds no fault, the command runs in a process of its own, which a fault would end."""
    for seed in seeds(3):
        _put("cpu.vmfb", damage.of_bytes((BUNDLE / "cpu.vmfb").read_bytes(), random.Random(seed)))
        with within_limits(f"seed {seed}"):
            try:
                try_apart(open_bundle(BUNDLE), open_device())
            except SonewError as error:
                log(f"seed {seed}: {error}")
                check_end(1, f"sonew: {error}", f"seed {seed}")
            else:
                ended = sonew_apart(*TRAIN, cwd=Path.cwd())
                log(f"seed {seed}: {ended.code}: {ended.err[-200:].strip()}")
                check_end(ended.code, ended.err, f"seed {seed}")
        restored()


def test_parameters(ends_well: EndsWell, restored: Restored) -> None:
    """In a bundle, with a hash that fits; `sonew compile --params` reads them by the same function."""
    rng = np.random.default_rng(0)
    shapes = {"params/down": (36, 5), "params/up": (5, 36)}
    save_parameters(Path("own"), {name: rng.random(shape, np.float32) for name, shape in shapes.items()})
    content = Path("own").read_bytes()
    for seed in seeds(4):
        _put("params.safetensors", damage.of_bytes(content, random.Random(seed)))
        # The program is the same, and needs no trial again.
        remember_made_here(open_bundle(BUNDLE).manifest)
        ends_well(seed, *TRAIN)
        restored()


def test_signatures_and_keys(ends_well: EndsWell, restored: Restored) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ends = []
    for seed in seeds(8):
        rng = random.Random(seed)
        Path("key.pem").write_bytes(private)
        Path("keys.pub").write_bytes(public)
        assert ends_well(seed, "sign", BUNDLE, "--key", "key.pem") == 0
        path = rng.choice((Path("key.pem"), Path("keys.pub"), BUNDLE / "manifest.sig", BUNDLE / "manifest.json"))
        path.write_bytes(damage.of_bytes(path.read_bytes(), rng))
        if path.name == "key.pem":
            ends_well(seed, "sign", BUNDLE, "--key", "key.pem")
        else:
            ends.append(ends_well(seed, "inspect", BUNDLE, "--trusted-keys", "keys.pub"))
        restored()
    # The keys and signatures that are still valid can be damaged only in comments and white space.
    assert ends.count(0) <= len(ends) // 2


def _damage_header(path: Path, rng: random.Random) -> None:
    """Writes a damaged header that is still well-formed for safetensors."""
    tensors = safetensors.numpy.load(path.read_bytes())
    with safetensors.safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["sonew"])
    text = damage.of_json(header, rng).decode(errors="surrogatepass")
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"sonew": text}))


def test_checkpoints(ends_well: EndsWell, restored: Restored) -> None:
    for seed in seeds(12):
        rng = random.Random(seed)
        path = max(RUN.glob("step-*"))
        if rng.random() < 0.5:
            _damage_header(path, rng)
        else:
            path.write_bytes(damage.of_bytes(path.read_bytes(), rng))
        ends_well(seed, *rng.choice((RESUME, EVALUATE)))
        restored()


def test_metrics(ends_well: EndsWell, restored: Restored) -> None:
    rows = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    for seed in seeds(8):
        rng = random.Random(seed)
        (RUN / "metrics.jsonl").write_bytes(damage.of_lines(rows, rng))
        ends_well(seed, *rng.choice((("plot", RUN), RESUME)))
        restored()


def _old_names(rng: random.Random) -> bytes:
    return damage.of_json(["bundle", "step-00000001.safetensors", "../precious", "../precious/thesis.tex"], rng)


def test_locks_and_replacements(ends_well: EndsWell, restored: Restored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_PATIENCE", 0.1)
    left = {"host": "here", "process": 1, "since": "2026-01-01 00:00:00"}
    for seed in seeds(6):
        rng = random.Random(seed)
        (RUN / ".owner").write_bytes(damage.of_json(left, rng))
        (RUN / ".replacing").mkdir()
        (RUN / ".replacing" / "old-files.json").write_bytes(_old_names(rng))
        ends_well(seed, *RESUME)
        restored()


def test_data(ends_well: EndsWell, restored: Restored) -> None:
    images = np.load("data.npz")["train_image"]
    for seed in seeds(12):
        rng = random.Random(seed)
        kind = rng.choice(("npz", "packed npz", "npy", "idx", "idx.gz", "folder"))
        path = Path(f"odd.{kind[-3:]}")
        if kind == "npz":
            content = Path("data.npz").read_bytes()
        elif kind == "packed npz":
            np.savez_compressed(path, train_image=images, test_image=images[:20])
            content = path.read_bytes()
        elif kind == "folder":
            path = Path("odd")
            path.mkdir()
            np.save(path / "test_image.npy", images[:20])
            path /= "train_image.npy"
            np.save(path, images)
            content = path.read_bytes()
        elif kind == "npy":
            np.save(path, images)
            content = path.read_bytes()
        else:
            path = Path("odd-idx3-ubyte")
            content = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in images.shape) + images.tobytes()
            if kind == "idx.gz":
                path = Path("odd-idx3-ubyte.gz")
                # Damage to what is packed goes with a checksum that fits.
                content = gzip.compress(damage.of_bytes(content, rng) if rng.random() < 0.5 else content)
        path.write_bytes(damage.of_bytes(content, rng))
        given = path.parent if kind == "folder" else path
        ends_well(seed, "run", BUNDLE, "--data", given, "--epochs", 1, "--max-steps", 2, "-o", "new")
        restored()


ROW: dict[str, Any] = {
    "kind": "train",
    "settings": {
        "kind": "train",
        "model": "autoencoder",
        "optimizer": {"name": "adam", "learning_rate": 0.001, "b1": 0.9, "b2": 0.999, "eps": 1e-8},
        "precision": "f32",
        "target": "cpu",
        "device": "local-task",
        "batch_size": 1000,
        "seed": 0,
        "epochs": 2,
        "steps": None,
        "data": "mnist-10k",
    },
    "versions": {"python": "3.13.0", "jax": "0.10.0"},
    "machine": {
        "cpu": "AMD EPYC",
        "cpu_features": ["avx2"],
        "threads": 2,
        "platform": "Linux",
        "device": "local-task",
        "device_description": "the CPU",
        "driver": "local",
    },
    "bundle": "0" * 64,
    "error": None,
    "roofline": {"copy_bytes_per_second": 1e10, "flops_per_second": 1e11, "how": "copies"},
    "curve": [{"epoch": n, "step": 9 * n, "seconds": 0.1 * n, "loss": 3.0 / n} for n in (1, 2, 3)],
    "to_loss": [{"loss": 2.0, "steps": 18, "seconds": 0.2}],
    "gflops": 1.5,
    "step_flops": 1e6,
    "step_bytes": 1e5,
    "train_loss": 1.0,
    "peak_resident_bytes": 10**8,
    "step_p50_seconds": 0.01,
}


def test_rows(place: Path, restored: Restored, log: Log) -> None:
    """Read, made a table and drawn: what `sonew bench --resume` does when nothing is left to run."""
    from sonew_compiled.bench import rows
    from sonew_compiled.bench.report import write_report

    both = [ROW, ROW | {"settings": ROW["settings"] | {"seed": 1}, "error": "it failed\n  somewhere"}]
    refused = 0
    for seed in seeds(3):
        (place / "rows.jsonl").write_bytes(damage.of_lines(both, random.Random(seed)))
        try:
            found = rows.latest(rows.read_rows(place))
            if found:
                write_report([row | {"to_loss": rows.to_losses(row.get("curve", []), [1.0])} for row in found], place)
            log(f"seed {seed}: {len(found)} rows")
        except SonewError as error:
            refused += 1
            log(f"seed {seed}: {error}")
            check_end(1, f"sonew: {error}", f"seed {seed}")
        restored()
    assert refused


def test_rows_and_metrics_that_end_anywhere(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut off within the last line, after any byte: that line is left out with a note, and lines can be added."""
    from sonew_compiled.bench import rows

    def add_metrics(step: int) -> None:
        file = MetricsFile(place, step=step, source=place)
        file.append(EpochMetrics(step=99, epoch=11, loss=1.5, learning_rate=0.1, seconds=1.0, examples_per_second=1.0))

    metrics = (RUN / "metrics.jsonl").read_bytes()
    row = json.dumps(ROW).encode() + b"\n"
    journals: tuple[tuple[str, bytes, Any, Any], ...] = (
        ("metrics.jsonl", metrics, lambda: read_metrics(place), lambda: add_metrics(98)),
        ("rows.jsonl", 2 * row, lambda: rows.read_rows(place), lambda: rows.append_row(place, ROW)),
    )
    for name, content, read, add in journals:
        lines = content.splitlines(keepends=True)
        begin, stride = len(content) - len(lines[-1]), 1 if "SONEW_CAMPAIGN" in os.environ else 50
        for end in (*range(begin, len(content) - 1, stride), len(content) - 1):
            (place / name).write_bytes(content[:end])
            caplog.clear()
            is_whole = end == len(content) - 1
            assert len(read()) == len(lines) - (not is_whole), end
            is_cut = not is_whole and content[end - 1 : end] != b"\n"
            assert ("the last line was cut off, and is left out" in caplog.text) == is_cut, end
            add()
            caplog.clear()
            assert len(read()) == len(lines) + is_whole, end
            assert not caplog.text


def test_notes_of_a_benchmark(place: Path) -> None:
    """A damaged note either gives rows that can be read again, or counts as missing."""
    from sonew_compiled.bench import rows
    from sonew_compiled.bench.benchmark import _read_note

    figures = {"step_flops": 1e6, "compile_seconds": 2.5, "artifact_bytes": 10**5, "kernels": None, "parameters": 360}
    note = {"versions": {"jax": "0.10.0"}, "bundle": "0" * 64, "compiled": figures}
    found = 0
    for seed in seeds(20):
        rng = random.Random(seed)
        (place / "note.json").write_bytes(damage.of_json(note, rng) if seed % 4 else damage.of_bytes(b"{}", rng))
        if (noted := _read_note(place / "note.json")) is not None:
            found += 1
            (place / "rows.jsonl").unlink(missing_ok=True)
            rows.append_row(place, ROW | noted["compiled"])
            assert len(rows.read_rows(place)) == 1, seed
    assert found


def test_studies(place: Path, restored: Restored, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened and gone on with by trials that train nothing."""
    from sonew_compiled.bench import _search
    from sonew_compiled.bench._trial import TrialEpoch
    from sonew_compiled.bench.tuning import TuneSettings, tune

    class Trainer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def epochs(self, *, epochs: int, learning_rate: float, **_: Any) -> Any:
            for epoch in range(1, epochs + 1):
                yield TrialEpoch(epoch=epoch, loss=learning_rate + 1 / epoch, state=None)  # type: ignore[arg-type]

        def losses(self, state: None) -> tuple[float, float]:
            return 1.0, 1.5

    manifest = SimpleNamespace(setting_limits={}, precision="f32")
    monkeypatch.setattr(_search, "Trainer", Trainer)
    monkeypatch.setattr(_search, "compile_step", lambda *_, **__: SimpleNamespace(manifest=manifest, digest="a"))
    monkeypatch.setattr(_search, "load_dataset", lambda *_, **__: SimpleNamespace(fingerprint="b"))

    def go_on(folder: Path, trials: int) -> None:
        tune(TuneSettings(optimizer="adam", model="my:model", epochs=4), folder, trials=trials)

    go_on(place, 8)
    rows = [json.loads(line) for line in (place / "study.journal").read_text().splitlines()]
    refused = 0
    for seed in seeds(10):
        restored()
        (place / "study.journal").write_bytes(damage.of_lines(rows, random.Random(seed)))
        try:
            go_on(place, 9)
            log(f"seed {seed}: one trial more")
        except SonewError as error:
            refused += 1
            log(f"seed {seed}: {error}")
            check_end(1, f"sonew: {error}", f"seed {seed}")
    assert refused
