import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mirage_sim.models.wan.download import faults

COMMIT = "0" * 40


def publish(folder: Path) -> Path:
    """A folder of the published layout: two shards, two single files."""
    for part in ("transformer", "vae", "text_encoder", "tokenizer", "scheduler", "assets"):
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text("{}")
    (folder / "model_index.json").write_text("{}")
    (folder / "assets" / "film.mp4").write_bytes(b"large and of no use")
    shards = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    for n, shard in enumerate(shards):
        save_file({f"w{n}": torch.arange(3.0)}, folder / "transformer" / shard)
    index = {"weight_map": {"w0": shards[0], "w1": shards[1]}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"w": torch.zeros(2)}, folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({"w": torch.zeros(2)}, folder / "text_encoder" / "model.safetensors")
    return folder


class Hub(BaseHTTPRequestHandler):
    """A local server with the part of the hub's interface that downloads need."""

    def __init__(self, folder: Path, *arguments: object):
        self.folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        files = {str(file.relative_to(self.folder)): file for file in self.folder.rglob("*") if file.is_file()}
        if path.startswith("/api/models/") and "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": COMMIT}
                for name, file in files.items()
            ]
            self.answer(json.dumps(tree).encode())
        elif path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in files]
            self.answer(json.dumps({"id": "a/b", "sha": COMMIT, "siblings": siblings}).encode())
        elif (name := path.partition(f"/resolve/{COMMIT}/")[2]) in files:
            self.answer(files[name].read_bytes())
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = publish(tmp_path / "published")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def run(endpoint: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the command in its own process, because the library reads the hub's address at import."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder.parent / "hf"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "mirage_sim.cli", "download", "wan5b", f"folder={folder}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_download_fetches_only_missing_files(hub: tuple[str, Path], tmp_path: Path) -> None:
    endpoint, _ = hub
    folder = tmp_path / "weights"
    done = run(endpoint, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"folder: {folder}"
    assert faults(folder) == [] and not (folder / "assets").exists()
    again = run("http://127.0.0.1:9", folder)  # no server
    assert again.returncode == 0, again.stderr
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    assert run(endpoint, folder).returncode == 0 and faults(folder) == []


def test_incomplete_repository_is_rejected(hub: tuple[str, Path], tmp_path: Path) -> None:
    endpoint, published = hub
    (published / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    done = run(endpoint, tmp_path / "weights")
    assert done.returncode == 2 and done.stdout == ""
    assert "expected all of the weights, got 1 faults, the first:" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("begun", [False, True])
def test_missing_network_fails_in_one_line(begun: bool, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    if begun:  # an incomplete folder must not count as complete
        publish(folder)
        (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    done = run("http://127.0.0.1:9", folder)
    assert done.returncode == 2 and done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("mirage: error: Wan-AI/Wan2.2-TI2V-5B-Diffusers: could not fetch it to")
    assert "is there a network?" in line and "Traceback" not in done.stderr


def test_faults_are_found_without_reading_weights(tmp_path: Path) -> None:
    assert faults(tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'}: no such folder"]
    folder = publish(tmp_path / "weights")
    assert faults(folder) == []
    shard = folder / "transformer" / "diffusion_pytorch_model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    (folder / "text_encoder" / "config.json").unlink()
    (folder / "tokenizer" / "config.json").unlink()
    assert faults(folder) == [
        f"{folder / 'tokenizer'}: missing",
        f"{shard}: truncated",
        f"{folder / 'text_encoder' / 'config.json'}: missing",
    ]
    shard.unlink()
    assert f"{shard}: missing" in faults(folder)
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    for content in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(content)
        assert f"{index}: expected an index of shards" in faults(folder)
