"""Checkpoints in Google Cloud Storage: TensorStore's driver, with a server that keeps objects in a folder.

TensorFlow's file system, through which etils reads manifests and lists folders, cannot be pointed to another
server than Google's, so etils reads the same folder directly.
"""

import http.server
import json
import pathlib
import shutil
import threading
import urllib.parse

import numpy as np
import pytest
from etils.epath import backend, gpath

from poly_jax import cli
from poly_jax.weights.backbone import read_backbone
from poly_jax.weights.tree import flatten

pytestmark = pytest.mark.usefixtures("own_folder")


class Server(http.server.BaseHTTPRequestHandler):
    """The part of Google Cloud Storage's JSON API that reading and writing arrays needs."""

    root: pathlib.Path

    def do_GET(self):
        """Read an object, or the requested range of it."""
        url = urllib.parse.urlsplit(self.path)
        name = urllib.parse.unquote(url.path.removeprefix("/storage/v1/b/bucket/o/"))
        file = self.root / name
        if not file.is_file():
            self.answer(404, b"{}")
            return
        content = file.read_bytes()
        span = self.headers.get("Range")
        if span is None:
            self.answer(200, content)
            return
        begin, _, end = span.removeprefix("bytes=").partition("-")
        part = content[int(begin) : int(end) + 1 if end else None]
        self.answer(206, part, f"bytes {begin}-{int(begin) + len(part) - 1}/{len(content)}")

    def do_POST(self):
        """Write an object."""
        url = urllib.parse.urlsplit(self.path)
        assert url.path == "/upload/storage/v1/b/bucket/o"
        name = urllib.parse.parse_qs(url.query)["name"][0]
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, json.dumps({"name": name, "generation": "1"}).encode())

    def answer(self, code, content, span=None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-goog-generation", "1")
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Log nothing."""


class Files:
    """etils' file system of local files, for the paths of the bucket."""

    def __init__(self, root):
        self.root = root

    def __getattr__(self, name):
        def call(*args, **options):
            there = [str(arg).replace("gs://bucket", str(self.root)) for arg in args]
            return getattr(backend.os_backend, name)(*there, **options)

        return call


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder that stands for gs://bucket."""
    root = tmp_path / "bucket"
    root.mkdir()
    handler = type("Handler", (Server,), {"root": root})
    server = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://localhost:{server.server_port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "gs", Files(root))
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    yield root
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("source", ["legacy", "checkpoint_1100000"])
def test_a_checkpoint_of_either_format_is_imported_from_a_bucket(shared_data, bucket, source):
    folder = shared_data / "t5x" / "t5x_tiny_v1_1" / source
    shutil.copytree(folder, bucket / "models" / source)
    assert cli.main(["import", f"--from=gs://bucket/models/{source}", "--output=b"]) == 0
    got, expected = flatten(read_backbone("b")), flatten(read_backbone(folder))
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    assert f"imported from gs://bucket/models/{source}" in pathlib.Path("b/model.gin").read_text()


def test_a_checkpoint_is_exported_into_a_bucket(shared_data, bucket):
    folder = shared_data / "t5x" / "t5x_tiny_v1_1" / "legacy"
    arguments = ["export", f"--backbone={folder}", "--format=t5x", "--output=gs://bucket/out"]
    assert cli.main(arguments) == 0
    (written,) = (bucket / "out").iterdir()
    got, expected = flatten(read_backbone(written)), flatten(read_backbone(folder))
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
    assert cli.main(arguments) == 1


def test_a_lost_object_and_an_unreachable_bucket_are_reported_in_one_line(shared_data, bucket, capsys):
    folder = shared_data / "t5x" / "t5x_tiny_v1_1" / "legacy"
    shutil.copytree(folder, bucket / "models")
    lost = next((bucket / "models").rglob("target.decoder.decoder_norm.scale/0"))
    lost.unlink()
    assert cli.main(["import", "--from=gs://bucket/models", "--output=b"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "target.decoder.decoder_norm.scale cannot be read" in shown
    assert cli.main(["import", "--from=s3://bucket/models", "--output=b"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "s3://bucket/models cannot be reached" in shown
