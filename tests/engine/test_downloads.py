"""What is said where weights cannot be downloaded."""

import http.client
import http.server
import socket
import threading
import urllib.request

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from misalign_det.apis.error_reporting import config_in_use, errors_in_one_line
from misalign_det.engine.checkpoint import read_checkpoint, tensors_only
from misalign_det.engine.downloads import explain_download
from misalign_det.errors import CheckpointError


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        if self.path.startswith("/page"):  # of a proxy, say
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Please log in.</html>")
        elif self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"ffff\r\nPK")
        else:
            self.send_error(int(self.path.split("/")[1]))

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.fixture
def closed():
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return f"http://127.0.0.1:{found.getsockname()[1]}"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "hub/checkpoints"


def refusal(name):
    with pytest.raises(CheckpointError) as error, tensors_only():
        read_checkpoint(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_network(closed, hub):
    assert refusal(f"{closed}/a.pth") == (
        f"{closed}/a.pth cannot be downloaded ([Errno 111] Connection refused). Behind a proxy "
        f"set https_proxy; without a network download the file elsewhere, and put it at "
        f"{hub}/a.pth, where it is found."
    )
    torch.save({"state_dict": {}}, hub / "a.pth")  # as it says
    assert read_checkpoint(f"{closed}/a.pth") == {"state_dict": {}}


def test_what_a_server_answers(server, hub):
    assert refusal(f"{server}/404/a.pth") == (
        f"{server}/404/a.pth does not exist (HTTP 404). Check the address."
    )
    said = refusal(f"{server}/407/a.pth")
    assert said.startswith(f"{server}/407/a.pth cannot be downloaded (HTTP 407 Proxy Auth")
    assert f"put it at {hub}/a.pth" in said


def test_a_download_that_ends_early(server):
    said = refusal(f"{server}/cut/a.pth")
    assert "cannot be downloaded (the connection ended before the file did)." in said


def test_a_page_in_place_of_the_file(server, hub):
    said = refusal(f"{server}/page/a.pth")
    assert said == (
        f"{hub}/a.pth is no checkpoint, or is cut short. It was downloaded from "
        f"{server}/page/a.pth; delete it, and see what that address gives."
    )


def test_weights_that_the_model_loads_itself(closed, server, monkeypatch):
    """Not through this package, so that the tool explains the error itself."""
    monkeypatch.setattr("misalign_det.apis.error_reporting.atexit.register", lambda f: None)
    init_cfg = dict(type="Pretrained", checkpoint=f"{closed}/b.pth")

    def ends_with(name):
        with pytest.raises(SystemExit) as end, errors_in_one_line("x.py"), tensors_only():
            config_in_use.set(Config(dict(model=dict(backbone=dict(init_cfg=init_cfg)))))
            CheckpointLoader.load_checkpoint(name, map_location="cpu")
        return end.value.code

    said = ends_with(f"{closed}/b.pth")
    assert said.startswith(f"x.py: error: {closed}/b.pth cannot be downloaded (")
    assert said.endswith(" Or train without them: --cfg-options model.backbone.init_cfg=None")
    assert "is no checkpoint, or is cut short." in ends_with(f"{server}/page/b.pth")


def test_other_downloads(closed):
    try:
        urllib.request.urlopen(f"{closed}/a.json")
    except OSError as error:
        text = explain_download(error)
    assert text.startswith(f"{closed}/a.json cannot be downloaded ([Errno 111] Connection refused)")


def test_other_errors():
    assert explain_download(OSError("x")) is None
    assert explain_download(http.client.IncompleteRead(b"")) is None


def test_a_disk_that_takes_no_file(server, monkeypatch):
    """That is an error of the disk, which names the file itself."""

    def refuse(name, *args):
        raise NotADirectoryError(20, "Not a directory", name)

    monkeypatch.setattr(torch.hub, "open", refuse, raising=False)
    with pytest.raises(NotADirectoryError) as error:
        torch.hub.load_state_dict_from_url(f"{server}/404/a.pth")
    assert explain_download(error.value) is None
