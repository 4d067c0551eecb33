import hashlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch.nn import functional

from realesr.errors import ModelError
from realesr.models import download
from realesr.train import vgg as module
from realesr.train.vgg import FILE, LAYERS, Vgg19, find_vgg, load_vgg

CONVS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
CONVS |= {16: (256, 256), 19: (256, 512), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512)}
CONVS |= {30: (512, 512), 32: (512, 512), 34: (512, 512)}
"""Index in torchvision's `features` -> channels in and out."""
POOLS_BEFORE = (5, 10, 19, 28)
CONTENT = b"a file" * 100_000


@pytest.fixture(scope="module")
def state():
    """Return random weights as the standard file has them, of a size that keeps values near 1; with a classifier."""
    random = torch.Generator().manual_seed(0)
    weights = {}
    for index, (into, out) in CONVS.items():
        size = (2 / (9 * into)) ** 0.5
        weights[f"features.{index}.weight"] = torch.randn(out, into, 3, 3, generator=random) * size
        weights[f"features.{index}.bias"] = torch.randn(out, generator=random) * 0.1
    return weights | {"classifier.0.weight": torch.zeros(3, 3), "classifier.0.bias": torch.zeros(3)}


@pytest.fixture(scope="module")
def vgg(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / FILE
    torch.save(state, path)
    return load_vgg(path)


def expected_features(state, image):
    """Compute the network once more, by functions."""
    mean, std = (torch.tensor(each)[None, :, None, None] for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x, outputs = (image - mean) / std, []
    for index in CONVS:
        if index:
            x = functional.relu(x)
        if index in POOLS_BEFORE:
            x = functional.max_pool2d(x, 2)
        x = functional.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        if index in (2, 7, 16, 25, 34):
            outputs.append(x)
    return outputs


def test_its_names_and_shapes_are_those_of_the_standard_file():
    own = {key: tuple(value.shape) for key, value in Vgg19().state_dict().items()}
    assert own == {f"features.{index}.weight": (out, into, 3, 3) for index, (into, out) in CONVS.items()} | {
        f"features.{index}.bias": (out,) for index, (_, out) in CONVS.items()
    }


def test_features_are_those_before_the_relus(vgg, state):
    image = torch.rand(2, 3, 40, 33, generator=torch.Generator().manual_seed(1))
    features = vgg(image)
    assert [each.shape[1:] for each in features] == [
        (64, 40, 33),
        (128, 20, 16),
        (256, 10, 8),
        (512, 5, 4),
        (512, 2, 2),
    ]
    for own, expected in zip(features, expected_features(state, image), strict=True):
        assert own.min() < 0
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-4)


def test_the_layers_weigh_what_the_paper_says():
    assert LAYERS == {2: 0.1, 7: 0.1, 16: 1, 25: 1, 34: 1}


def test_it_is_frozen_but_gradients_reach_the_image(vgg):
    assert not vgg.training
    assert not any(each.requires_grad for each in vgg.parameters())
    image = torch.rand(1, 3, 16, 16, requires_grad=True)
    vgg(image)[-1].sum().backward()
    assert image.grad.abs().sum() > 0


class _Code:
    def __reduce__(self):
        return (open, ("proof", "w"))


@pytest.mark.parametrize("kind", ["rubbish", "code", "other network", "half"])
def test_a_file_without_vgg19_is_told_in_one_line(kind, state, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.pth"
    if kind == "rubbish":
        path.write_bytes(b"rubbish")
    elif kind == "code":
        path.write_bytes(pickle.dumps(_Code()))
    elif kind == "other network":
        torch.save({"conv_first.weight": torch.zeros(2)}, path)
    else:
        torch.save({key: value for key, value in state.items() if "34" not in key}, path)
    with pytest.raises(ModelError, match=r"own\.pth holds no VGG19 \(.*expected vgg19-dcbb.*path of another") as caught:
        load_vgg(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "proof").exists()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REALESR_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_SECONDS_BEFORE_NEXT_ATTEMPT", 0)
    monkeypatch.setattr(module, "SHA256_START", hashlib.sha256(CONTENT).hexdigest()[:8])
    return tmp_path / "models"


class _Server(ThreadingHTTPServer):
    """Serves CONTENT, or what a test puts in its place; None is answered by 404."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content: bytes | None = CONTENT
        self.requests: list[str] = []
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/{FILE}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.server.content is None:
            return self.send_error(404)
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(self.server.content[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_named_file_is_taken_as_it_is(tmp_path, cache):
    path = tmp_path / "own.pth"
    with pytest.raises(ModelError, match=r"VGG19 .*own\.pth is no file: expected vgg19-dcbb9e9d\.pth, which https:"):
        find_vgg(path)
    path.touch()
    assert find_vgg(path) == path


def test_it_is_fetched_once(cache, server):
    assert find_vgg(None, url=server.url) == cache / FILE
    assert (cache / FILE).read_bytes() == CONTENT
    assert find_vgg(None, url=server.url) == cache / FILE
    assert server.requests == [f"/{FILE}"]
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_a_download_that_broke_off_goes_on_where_it_ended_and_tells_how_far_it_is(cache, server):
    server.content = CONTENT[:1000]
    with pytest.raises(ModelError):
        find_vgg(None, url=server.url)
    server.content, server.ranges = CONTENT, []
    amounts = []
    find_vgg(None, url=server.url, on_progress=lambda done, total: amounts.append((done, total)))
    assert server.ranges == ["bytes=1000-"]
    assert amounts[-1] == (len(CONTENT), len(CONTENT))
    assert (cache / FILE).read_bytes() == CONTENT


def test_several_may_fetch_it_at_once(cache, server):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: find_vgg(None, url=server.url).read_bytes(), range(8)))
    assert found == [CONTENT] * 8
    assert [path.name for path in cache.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("content", "problem", "left"),
    [
        (CONTENT[:-1] + b"?", r"gave a file with SHA-256 [0-9a-f]{16}\.\.\., expected [0-9a-f]{8}\.\.\.", []),
        (CONTENT[:1000], r"cannot be fetched \(the connection broke off\)", [f"{FILE}.part"]),
        (None, "is not to be had: the server says 404", []),
    ],
)
def test_without_the_right_file_one_line_says_how_to_get_it(cache, server, content, problem, left):
    server.content = content
    with pytest.raises(ModelError, match=rf"needs vgg19-dcbb9e9d\.pth: .*{problem}.*put it at .*, or leave") as caught:
        find_vgg(None, url=server.url)
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache.iterdir()] == left


def test_without_a_network_one_line_says_how_to_get_it(cache, server):
    server.server_close()
    with pytest.raises(ModelError, match=r"cannot be fetched .*stage2\.perceptual = 0"):
        find_vgg(None, url=server.url)


def test_a_cache_that_cannot_be_written_is_named(cache, server):
    cache.touch()
    with pytest.raises(ModelError, match=r"needs vgg19.*models.* cannot be written: .*REALESR_CACHE"):
        find_vgg(None, url=server.url)
