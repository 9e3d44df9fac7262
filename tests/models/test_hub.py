"""The hub path against a stand-in of its HTTP interface on loopback.

Clients run in processes of their own: the endpoint and offline mode are read once, at import.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isoloss.family import Folder
from isoloss.models.inspect import describe
from models import tiny
from models.hub_stand_in import HubStandIn

REPO = "someone/toy"
PRELUDE = f"""
import json, os, sys
from pathlib import Path
from isoloss.errors import IsolossError
from isoloss.family import Folder, Hub
from isoloss.models.cache import CheckpointCache
from isoloss.models.hub import list_revisions, pin
from isoloss.models.inspect import describe
REPO = {REPO!r}
def hub(revision, repo=REPO): return Hub(repo=repo, revision=revision)
def cache(budget=None):
    return CheckpointCache(folder=Path(os.environ["CACHE"]), budget_bytes=budget)
def say(value): print(json.dumps(value))
def told(call):
    try:
        call()
    except IsolossError as error:
        say([type(error).__name__, str(error)])
def fetch(source, cache, **options):
    with cache.hold(source, **options) as folder: return str(folder)
"""


class Client:
    def __init__(self, tmp_path: Path, endpoint: str) -> None:
        self.cache = tmp_path / "cache"
        self._env = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "CACHE": str(self.cache),
        }

    def start(self, code: str) -> subprocess.Popen:
        command = [sys.executable, "-c", PRELUDE + code]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return subprocess.Popen(command, env=self._env, text=True, **pipes)

    def run(self, code: str) -> list:
        process = self.start(code)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert err == ""  # nothing of the libraries' reaches the terminal
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    steps = {"step0": 0, "step1000": 1, "step2000": 2}
    for name, seed in steps.items():
        tiny.save(root / name, "gpt-neox", seed=seed, shard_size="10KB" if seed == 1 else "1GB")
    (root / "main").symlink_to(root / "step2000")
    return {name: root / name for name in ["main", *steps]}


@pytest.fixture
def stand_in(folders):
    with HubStandIn(REPO, folders) as server:
        yield server


@pytest.fixture
def client(tmp_path, stand_in) -> Client:
    return Client(tmp_path, stand_in.endpoint)


def weight_bytes_sent(stand_in) -> int:
    return sum(n for name, n in stand_in.bytes_sent.items() if name.endswith(".safetensors"))


def bytes_in(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir())


def test_revisions_that_follow_the_pattern_are_listed_by_step(client, stand_in):
    (found,) = client.run('say([[r.step, r.commit] for r in list_revisions(REPO, "step{step}")])')
    assert found == [[s, stand_in.commit(f"step{s}")] for s in (0, 1000, 2000)]
    assert stand_in.requests == {"refs": 1}


@pytest.mark.parametrize("lfs", [True, False])
def test_a_hub_checkpoint_and_its_folder_have_one_description(client, stand_in, folders, lfs):
    stand_in.lfs = lfs  # without it small weights lie in git, and their sha256 must be computed
    code = """
for name in ("step0", "step1000", "step2000"):
    d = describe(hub(name))
    say([d.weights_hash, d.params_total, d.params_non_embedding, d.bytes, d.dtype, d.config])
"""
    for name, got in zip(("step0", "step1000", "step2000"), client.run(code), strict=True):
        d = describe(Folder(path=folders[name]))
        mine = [d.weights_hash, d.params_total, d.params_non_embedding, d.bytes, d.dtype, d.config]
        assert got == mine


def test_digests_are_listed_without_a_byte_of_any_file(client, stand_in, folders):
    code = """
from isoloss.models.hub import HubFiles
from isoloss.models.inspect import hash_shards, shards_of
say(hash_shards(shards_of(HubFiles(hub("step0")))))
"""
    assert client.run(code) == [describe(Folder(path=folders["step0"])).weights_hash]
    assert stand_in.requests == {"info": 1, "tree": 1}


def test_describing_a_large_file_fetches_its_header_alone(tmp_path):
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "big"
    folder.mkdir()
    save_file({"model.norm.weight": torch.zeros(1_000_000)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    with HubStandIn(REPO, {"main": folder}) as stand_in:
        code = 'say(describe(hub("main")).params_total)'
        assert Client(tmp_path, stand_in.endpoint).run(code) == [1_000_000]
        assert weight_bytes_sent(stand_in) <= 100_000 < 4_000_000


def test_a_download_is_whole_checked_and_made_once(client, stand_in, folders):
    code = 'for _ in range(2): say(fetch(hub("step1000"), cache()))'
    first, second = client.run(code)
    assert first == second
    for file in folders["step1000"].iterdir():
        assert (Path(first) / file.name).read_bytes() == file.read_bytes()
    assert weight_bytes_sent(stand_in) == describe(Folder(path=folders["step1000"])).bytes
    before = stand_in.requests.copy()
    code = (
        f'say(fetch(Hub(repo=REPO, revision="x", commit="{stand_in.commit("step1000")}"), cache()))'
    )
    assert client.run(code) == [first]
    assert stand_in.requests == before  # a pinned checkpoint on disk needs no network


def test_a_dropped_connection_goes_on_at_the_last_byte(client, stand_in, folders):
    stand_in.drop_after = [5000, 3000]
    code = 'seen = []; fetch(hub("step0"), cache(), progress=lambda *p: seen.append(p)); say(seen)'
    (seen,) = client.run(code)
    size = (folders["step0"] / "model.safetensors").stat().st_size
    assert weight_bytes_sent(stand_in) == size  # nothing came twice
    asked = [r for r in stand_in.ranges if r.startswith("model.safetensors:")][-3:]
    assert asked == [f"model.safetensors:bytes={n}-" for n in (0, 5000, 8000)]
    assert seen[-1][1:] == [seen[-1][2]] * 2
    done = next(client.cache.glob("*/model.safetensors"))
    assert done.read_bytes() == (folders["step0"] / "model.safetensors").read_bytes()


def test_a_connection_that_falls_silent_is_dropped_and_taken_up_again(client, stand_in, folders):
    client._env["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
    stand_in.drop_after = [5000]
    stand_in.resume.clear()
    client.run('fetch(hub("step0"), cache())')
    stand_in.resume.set()
    assert weight_bytes_sent(stand_in) == (folders["step0"] / "model.safetensors").stat().st_size


def test_a_download_whose_process_died_goes_on_in_the_next(client, stand_in, folders):
    code = """
def die(name, have, total):
    if name == "model.safetensors" and have >= 4000: os._exit(9)
fetch(hub("step0"), cache(), progress=die)
"""
    stand_in.drop_after = [4000]
    process = client.start(code)
    process.communicate(timeout=120)
    assert process.returncode == 9
    part = next(client.cache.glob("*/model.safetensors.part"))
    kept = part.stat().st_size
    stand_in.reset()
    client.run('fetch(hub("step0"), cache())')
    size = (folders["step0"] / "model.safetensors").stat().st_size
    assert weight_bytes_sent(stand_in) == size - kept
    assert not part.exists()


def test_a_damaged_part_is_fetched_anew(client, stand_in, folders):
    (name,) = client.run('say(fetch(hub("step0"), cache(), weights=False))')
    (Path(name) / "model.safetensors.part").write_bytes(b"x" * 1000)
    client.run('fetch(hub("step0"), cache())')
    got = (Path(name) / "model.safetensors").read_bytes()
    assert got == (folders["step0"] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_file_with_another_digest_is_refused(client, stand_in, file):
    stand_in.altered.add(file)
    ((kind, text),) = client.run('told(lambda: fetch(hub("step0"), cache()))')
    assert kind == "BadCheckpoint"
    assert f"the downloaded file {file} does not have the digest" in text
    assert not list(client.cache.glob(f"*/{file}"))


def test_a_missing_revision_names_the_nearest(client):
    code = """
told(lambda: describe(hub("step100")))
told(lambda: fetch(hub("stp2000"), cache()))
told(lambda: describe(Hub(repo=REPO, revision="step1000", commit="0" * 40)))
"""
    described, fetched, pinned = client.run(code)
    assert described[0] == fetched[0] == pinned[0] == "CheckpointMissing"
    assert "nearest: step1000     (4 revisions known)" in described[1]
    assert "nearest: step2000" in fetched[1]


def test_a_missing_repository_is_named(client):
    ((kind, text),) = client.run('told(lambda: describe(hub("main", "someone/toys")))')
    assert kind == "BadStudy"
    assert "'someone/toys'" in text


def test_a_hub_that_does_not_answer_and_offline_mode_say_what_to_do(tmp_path, stand_in):
    silent = Client(tmp_path, "http://127.0.0.1:9")
    ((kind, text),) = silent.run('told(lambda: describe(hub("main")))')
    assert kind == "HubUnreachable"
    assert "HF_ENDPOINT" in text
    offline = Client(tmp_path, stand_in.endpoint)
    offline._env["HF_HUB_OFFLINE"] = "1"
    ((kind, text),) = offline.run('told(lambda: describe(hub("main")))')
    assert kind == "HubUnreachable"
    assert "unset HF_HUB_OFFLINE" in text


# the disk budget


def test_the_least_recently_used_checkpoint_goes_first(client, folders):
    room = bytes_in(folders["step0"]) + bytes_in(folders["step2000"]) + 20_000
    code = f"""
box = cache({room})
a = fetch(hub("step0"), box)
b = fetch(hub("step2000"), box)
fetch(hub("step0"), box)
c = fetch(hub("step1000"), box)
say([os.path.exists(p) for p in (a, b, c)])
say(box.used_bytes() <= {room})
"""
    assert client.run(code) == [[True, False, True], True]


def test_a_checkpoint_in_use_is_never_evicted(client, folders):
    size = max(bytes_in(folders[n]) for n in ("step0", "step2000"))
    code = f"""
box = cache({int(1.5 * size)})
with box.hold(hub("step0")) as held:
    told(lambda: fetch(hub("step2000"), box))
    say(sorted(p.name for p in held.path.glob("*.safetensors")))
fetch(hub("step2000"), box)
say(held.path.exists())
"""
    (kind, text), kept, exists = client.run(code)
    assert kind == "DiskFull"
    assert "in use" in text
    assert kept == ["model.safetensors"]
    assert not exists


def test_another_process_s_checkpoint_is_in_use_too(client, folders):
    size = max(bytes_in(folders[n]) for n in ("step0", "step2000"))
    code = f"""
with cache({int(1.5 * size)}).hold(hub("step0")) as held:
    print(held, flush=True); sys.stdin.readline()
"""
    holder = client.start(code)
    held = Path(holder.stdout.readline().strip())
    other = f'told(lambda: fetch(hub("step2000"), cache({int(1.5 * size)})))'
    ((kind, _),) = client.run(other)
    assert kind == "DiskFull"
    assert (held / "model.safetensors").exists()
    holder.communicate("\n", timeout=60)
    assert client.run(other) == []
    assert not held.exists()


def test_a_checkpoint_larger_than_the_budget_states_both_numbers(client, folders, stand_in):
    ((kind, text),) = client.run('told(lambda: fetch(hub("step0"), cache(1000)))')
    assert kind == "DiskFull"
    assert "budget 1,000 bytes" in text
    needed = sum(
        p.stat().st_size
        for p in folders["step0"].iterdir()
        if p.suffix in {".json", ".safetensors"}
    )
    assert f"{needed:,} bytes" in text
    assert weight_bytes_sent(stand_in) == 0


def test_two_processes_fetch_one_checkpoint_once(client, stand_in, folders):
    code = 'say(fetch(hub("step1000"), cache()))'
    running = [client.start(code) for _ in range(3)]
    outputs = {process.communicate(timeout=120)[0] for process in running}
    assert len(outputs) == 1
    assert weight_bytes_sent(stand_in) == describe(Folder(path=folders["step1000"])).bytes


# loading


def test_a_hub_checkpoint_loads_as_its_folder_does(client, stand_in):
    code = """
import torch
from isoloss.models.load import load, load_tokenizer
from isoloss.models.tokenizer import tokenizer_hash
from isoloss.models.fingerprint import sketch
box = cache()
alone = tokenizer_hash(load_tokenizer(hub("step1000"), cache=box))
say(list(box.folder.glob("*/*.safetensors")))
got = load(hub("step1000"), dtype="float32", device="cpu", cache=box)
say(tokenizer_hash(got.tokenizer) == alone)
say(sketch(got.model).tolist())
"""
    from isoloss.models.fingerprint import sketch

    weights_before, same, sketched = client.run(code)
    assert weights_before == []
    assert same
    assert sketched == sketch(tiny.make("gpt-neox", seed=1)).tolist()
