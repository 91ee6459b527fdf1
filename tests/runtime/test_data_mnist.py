"""The full MNIST: its places, its verification, its download, and `sonew data`.

The files are small stand-ins with their own hashes; the mirrors are a server on this machine.
"""

import gzip
import hashlib
import re
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonew_compiled.errors import SonewError
from sonew_compiled.runtime.data import load_dataset, mnist
from sonew_compiled.runtime.data.fetch import MIRRORS, fetch_mnist
from sonew_compiled.runtime.data.mnist import FILES, verify_mnist

Sonew = Callable[..., Any]
DEAD = "http://127.0.0.1:9/"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def stand_ins() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 300), ("t10k", 40)):
        files[f"{part}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx(generator.integers(0, 10, count, dtype=np.uint8))
    return files


CONTENTS = stand_ins()
PACKED = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
# The same contents in other bytes: continuing a download of one with the other gives garbage.
REPACKED = {name: gzip.compress(content, 1, mtime=1) for name, content in CONTENTS.items()}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sets the hashes of the stand-ins, no $SONEW_DATA, an empty cache, and no proxy."""
    monkeypatch.setattr(mnist, "SHA256", {name: hashlib.sha256(c).hexdigest() for name, c in CONTENTS.items()})
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    monkeypatch.delenv("SONEW_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fill(folder: Path, *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / f"{name}{'.gz' if packed else ''}").write_bytes(PACKED[name] if packed else CONTENTS[name])
    return folder


class Mirror(BaseHTTPRequestHandler):
    """Behaves as the first part of the path says; `server.requests` has (path, Range header) of every request."""

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))  # type: ignore[attr-defined]
        _, behaviour, file = self.path.split("/")
        name = file.removesuffix(".gz")
        content = {"repacked": REPACKED, "plain": CONTENTS}.get(behaviour, PACKED)[name]
        if behaviour == "wrong":
            content = gzip.compress(b"not these digits")
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "endless":
            self.send_response(200)
            self.end_headers()
            self.send_quietly(bytes(1 << 20), times=1000)
            return
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and behaviour != "norange":
            start = int(asked[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            told = start + 1 if behaviour == "shifted" else start
            self.send_header("Content-Range", f"bytes {told}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if behaviour == "silent":
            self.server.released.wait(10)  # type: ignore[attr-defined]
        elif behaviour == "breaking":
            self.send_quietly(rest[: len(content) // 3 + 1])
        elif behaviour == "empty":
            self.send_quietly(b"")
        else:
            self.send_quietly(rest)

    def send_quietly(self, content: bytes, times: int = 1) -> None:
        try:
            for _ in range(times):
                self.wfile.write(content)
        except OSError:  # The client has closed the connection.
            pass

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Mirror)
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    def url(self, behaviour: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{behaviour}/"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def assert_fetched(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.gz" for name in FILES)
    assert [row.status for row in verify_mnist(folder)] == ["valid"] * 4


@pytest.mark.parametrize("packed", [True, False], ids=["gz", "plain"])
@pytest.mark.parametrize("subfolder", [".", "mnist", "MNIST/raw"])
def test_loads_the_four_files(tmp_path: Path, subfolder: str, packed: bool) -> None:
    fill(tmp_path / "d" / subfolder, packed=packed)
    data = load_dataset("mnist", data_dir=tmp_path / "d")
    assert data.name == "mnist"
    assert {name: array.shape for name, array in data.train.items()} == {"image": (300, 28, 28), "label": (300,)}
    assert {name: array.dtype for name, array in data.test.items()} == {"image": np.uint8, "label": np.int32}
    assert data.train["image"].tobytes() == CONTENTS["train-images-idx3-ubyte"][16:]
    assert bytes(data.test["label"].astype(np.uint8)) == CONTENTS["t10k-labels-idx1-ubyte"][8:]


def test_the_fingerprint_is_the_same_wherever_it_lies(tmp_path: Path) -> None:
    packed = load_dataset("mnist", data_dir=fill(tmp_path / "a"))
    plain = load_dataset("mnist", data_dir=fill(tmp_path / "b", packed=False))
    assert packed.fingerprint == plain.fingerprint


def test_looks_in_data_dir_then_the_variable_then_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, variable, cache = tmp_path / "given", tmp_path / "variable", tmp_path / "cache/mnist"
    monkeypatch.setenv("SONEW_DATA", str(variable))
    with pytest.raises(SonewError) as caught:
        load_dataset("mnist", data_dir=given)
    message = str(caught.value)
    assert "\n" not in message
    assert f"is not in {given}, {variable}, {cache};" in message
    assert f"`sonew data fetch --data-dir {given}`" in message
    for folder in (cache, variable, given):
        fill(folder)
        assert mnist.find(given) == folder
    assert mnist.find(None) == variable


def test_a_folder_with_some_of_the_files_is_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "d")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(SonewError, match=r"lacks t10k-labels-idx1-ubyte\)"):
        load_dataset("mnist", data_dir=folder)
    assert mnist.find(folder, complete=False) == folder
    fill(tmp_path / "cache/mnist")
    assert mnist.find(folder, complete=False) == tmp_path / "cache/mnist"


@pytest.mark.parametrize("name", FILES)
def test_other_contents_are_refused(tmp_path: Path, name: str) -> None:
    path = fill(tmp_path / "d") / f"{name}.gz"
    path.write_bytes(gzip.compress(CONTENTS[name][:-1] + b"\xff"))
    with pytest.raises(SonewError) as caught:
        load_dataset("mnist", data_dir=tmp_path / "d")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert f"expected {hashlib.sha256(CONTENTS[name]).hexdigest()}" in message
    assert message.endswith(f"`sonew data fetch --data-dir {tmp_path / 'd'}`")


def test_verify_tells_each_file_apart(tmp_path: Path) -> None:
    folder = fill(tmp_path / "d")
    (folder / f"{FILES[0]}.gz").unlink()
    (folder / f"{FILES[1]}.gz").write_bytes(PACKED[FILES[1]][:-10])
    (folder / f"{FILES[2]}.gz").write_bytes(PACKED[FILES[0]])
    rows = verify_mnist(folder)
    assert [(row.file, row.status) for row in rows] == list(
        zip(FILES, ["missing", "invalid", "invalid", "valid"], strict=True)
    )
    assert "corrupt gzip" in rows[1].detail
    assert "SHA-256" in rows[2].detail


def test_fetches_and_tells_of_the_progress(tmp_path: Path, server: Server) -> None:
    seen: dict[str, tuple[int, int | None]] = {}
    rows = fetch_mnist(
        tmp_path / "new/folder", mirrors=[server.url("good")], progress=lambda n, *counts: seen.update({n: counts})
    )
    assert [(row.file, row.status) for row in rows] == [(name, "fetched") for name in FILES]
    assert_fetched(tmp_path / "new/folder")
    assert seen == {name: (len(PACKED[name]), len(PACKED[name])) for name in FILES}


def test_valid_files_stay_and_others_are_replaced(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / FILES[0]).write_bytes(CONTENTS[FILES[0]])
    (folder / f"{FILES[1]}.gz").write_bytes(b"\x1f\x8b damaged")
    (folder / FILES[1]).write_bytes(b"damaged as well")
    rows = fetch_mnist(folder, mirrors=[server.url("good")])
    assert [row.status for row in rows] == ["valid", "fetched", "fetched", "fetched"]
    assert [path for path, _ in server.requests] == [f"/good/{name}.gz" for name in FILES[1:]]
    assert [row.status for row in verify_mnist(folder)] == ["valid"] * 4


@pytest.mark.parametrize("bad", ["missing", "wrong", "empty", "endless", "dead", "nonsense"])
def test_the_next_mirror_helps_out(tmp_path: Path, server: Server, bad: str) -> None:
    mirror = {"dead": DEAD, "nonsense": "nonsense"}.get(bad) or server.url(bad)
    fetch_mnist(tmp_path, mirrors=[mirror, server.url("good")])
    assert_fetched(tmp_path)


def test_a_mirror_that_falls_silent_is_left(tmp_path: Path, server: Server) -> None:
    fetch_mnist(tmp_path, mirrors=[server.url("silent"), server.url("good")], timeout=0.1)
    assert_fetched(tmp_path)


def test_goes_on_where_a_transfer_broke_off(tmp_path: Path, server: Server) -> None:
    fetch_mnist(tmp_path, mirrors=[server.url("breaking")])
    assert_fetched(tmp_path)
    step = len(PACKED[FILES[0]]) // 3 + 1
    asked = [asked for path, asked in server.requests if FILES[0] in path]
    assert asked == [None, f"bytes={step}-", f"bytes={2 * step}-"]


def test_goes_on_from_an_earlier_run(tmp_path: Path, server: Server) -> None:
    (tmp_path / f"{FILES[0]}.gz.part").write_bytes(PACKED[FILES[0]][:1000])
    # This file was complete when the download was stopped.
    (tmp_path / f"{FILES[1]}.gz.part").write_bytes(PACKED[FILES[1]])
    fetch_mnist(tmp_path, mirrors=[server.url("good")])
    assert_fetched(tmp_path)
    assert server.requests[0] == (f"/good/{FILES[0]}.gz", "bytes=1000-")
    assert [path for path, _ in server.requests] == [f"/good/{name}.gz" for name in (FILES[0], *FILES[2:])]


@pytest.mark.parametrize("behaviour", ["good", "norange", "repacked"])
@pytest.mark.parametrize("left", [b"garbage", bytes(1 << 20)], ids=["short", "long"])
def test_starts_anew_if_what_was_left_is_of_no_use(tmp_path: Path, server: Server, behaviour: str, left: bytes) -> None:
    (tmp_path / f"{FILES[0]}.gz.part").write_bytes(left)
    fetch_mnist(tmp_path, mirrors=[server.url(behaviour)])
    assert_fetched(tmp_path)


def test_mirrors_that_packed_the_file_differently_do_not_mix(tmp_path: Path, server: Server) -> None:
    (tmp_path / f"{FILES[0]}.gz.part").write_bytes(PACKED[FILES[0]][:5000])
    fetch_mnist(tmp_path, mirrors=[server.url("shifted"), server.url("repacked")])
    assert_fetched(tmp_path)
    assert (tmp_path / f"{FILES[0]}.gz").read_bytes() == REPACKED[FILES[0]]


def test_a_mirror_that_unpacks_the_files_serves_as_well(tmp_path: Path, server: Server) -> None:
    fetch_mnist(tmp_path, mirrors=[server.url("plain")])
    assert_fetched(tmp_path)
    assert len(load_dataset("mnist", data_dir=tmp_path).train["image"]) == 300


def test_when_all_mirrors_fail_the_reasons_and_the_remedy_are_told(tmp_path: Path, server: Server) -> None:
    with pytest.raises(SonewError) as caught:
        fetch_mnist(tmp_path, mirrors=[DEAD, server.url("missing"), server.url("wrong"), server.url("endless")])
    message = str(caught.value)
    assert "\n" not in message
    for said in ("127.0.0.1:9: ", "HTTP 404 Not Found", "SHA-256 differs", "more than 32 MiB", str(tmp_path), *FILES):
        assert said in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SonewError, match=r"cannot write to .*--data-dir"):
        fetch_mnist(tmp_path / "file/d", mirrors=[DEAD])


def test_the_mirrors_are_https_folders() -> None:
    assert len(MIRRORS) >= 3
    assert all(re.fullmatch(r"https://[^?#]+/", mirror) for mirror in MIRRORS)


def test_command_fetch(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, sonew: Sonew) -> None:
    monkeypatch.setattr("sonew_compiled.runtime.data.fetch.MIRRORS", (server.url("good"),))
    result = sonew("data", "fetch", "--json")
    assert result.code == 0
    report = result.json
    assert report["directory"] == str(tmp_path / "cache/mnist")
    assert report["usable"] is True
    assert [(row["file"], row["status"]) for row in report["files"]] == [(name, "fetched") for name in FILES]
    assert_fetched(tmp_path / "cache/mnist")

    monkeypatch.setenv("SONEW_DATA", str(tmp_path / "elsewhere"))
    assert f"fetched  {FILES[0]}: {tmp_path / 'elsewhere'}" in sonew("data", "fetch").out
    assert sonew("data", "fetch", "--data-dir", tmp_path / "elsewhere").out.count("valid ") == 4


def test_command_verify(tmp_path: Path, sonew: Sonew) -> None:
    folder = fill(tmp_path / "d")
    command = ("data", "verify", "--data-dir", folder, "--json")
    result = sonew(*command)
    assert result.code == 0
    assert result.json["usable"] is True

    (folder / f"{FILES[0]}.gz").write_bytes(b"")
    (folder / f"{FILES[1]}.gz").unlink()
    result = sonew(*command)
    assert result.code == 1
    assert f"{FILES[0]} is invalid, {FILES[1]} is missing" in result.err
    assert f"sonew data fetch --data-dir {folder}" in result.err
    assert result.json["usable"] is False
    assert [row["status"] for row in result.json["files"]] == ["invalid", "missing", "valid", "valid"]


def test_command_verify_without_the_files(sonew: Sonew) -> None:
    result = sonew("data", "verify")
    assert (result.code, result.out) == (1, "")
    assert "`sonew data fetch`" in result.err


def test_command_verify_of_the_embedded_digits(monkeypatch: pytest.MonkeyPatch, sonew: Sonew) -> None:
    monkeypatch.undo()  # The real hashes.
    report = sonew("data", "verify", "--data", "mnist-10k", "--json").json
    assert report["usable"] is True
    assert [row["file"] for row in report["files"]] == list(FILES[2:])
