"""Checkpoints at URLs: found, fetched whole and once, and the same cells as from a folder."""

import pytest

from isoloss import Study, run
from isoloss.engine.arrivals import Arrivals
from isoloss.engine.resolve import find
from isoloss.errors import BadCheckpoint, BadStudy, CheckpointMissing
from isoloss.family import Folder, Remote
from isoloss.models.cache import default_cache
from isoloss.models.converted import convert, hold_converted, remembered
from isoloss.models.inspect import describe
from isoloss.models.remote import RemoteFiles, find_remote
from isoloss.places import cache_folder
from isoloss.places.remote import PlaceUnreachable
from isoloss.store import Store
from isoloss.store.schema import VOLATILE
from store.servers import PASSWORD, S3, Road, Sftp

STUDY = """\
name = "far"
[run]
threads = 1
cache_budget = "{budget}"
[[family]]
name = "far"
  [[family.model]]
  name = "w8"
  checkpoints = {checkpoints}
[corpus.heldout]
path = "heldout.txt"
document = "line"
[probe.token_loss]
"""


@pytest.fixture(scope="module")
def folders(studio):
    """The checkpoints of one run, by their names."""
    trained = min(p for p in (studio / "family").iterdir() if p.name.startswith("gpt"))
    return {folder.name: folder for folder in sorted(trained.glob("step-*"))}


@pytest.fixture(scope="module")
def s3(folders):
    with S3() as server:
        for name, folder in folders.items():
            server.put_folder(folder, f"far/{name}")
        yield server


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, s3):
    monkeypatch.setenv("ISOLOSS_CACHE", str(tmp_path / "cache"))
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)


def study_of(studio, checkpoints, budget="1GiB"):
    return Study.from_text(STUDY.format(checkpoints=checkpoints, budget=budget), folder=studio)


def cells_of(store):
    return store.cells().collect().drop(*VOLATILE).sort("cell")


def numbers_of(store):
    table = store.measurements().collect().drop("source")
    return table.sort("cell", "metric", "step")


def size_of(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


def test_the_cells_of_checkpoints_at_a_url_are_those_of_the_folders(s3, studio, folders, tmp_path):
    at_home = study_of(studio, f'"{next(iter(folders.values())).parent}/step-*"')
    run(at_home, out=tmp_path / "home")
    with Road(s3.port) as road:
        far = study_of(studio, '"s3://bucket/far/step-*"')
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{road.port}")
            first = run(far, out=tmp_path / "far")
            fetched, road.bytes = road.bytes, 0
            again = run(far, out=tmp_path / "far")
    home, away = Store(tmp_path / "home"), Store(tmp_path / "far")
    assert first.failed == 0 and again.done == 0
    assert cells_of(away).equals(cells_of(home))
    assert numbers_of(away).equals(numbers_of(home))
    sources = away.checkpoints().collect()["source"].to_list()
    assert sources == [f"s3://bucket/far/{name}" for name in folders]
    # a finished study fetches no weights
    weights = sum((folder / "model.safetensors").stat().st_size for folder in folders.values())
    assert fetched > weights > road.bytes


def test_a_budget_for_one_checkpoint_is_kept_to_and_all_are_measured(studio, folders, tmp_path):
    budget = int(1.5 * max(size_of(folder) for folder in folders.values()))
    study = study_of(studio, '"s3://bucket/far/step-*"', budget=f"{budget}B")
    assert run(study, out=tmp_path / "run").failed == 0
    assert 0 < default_cache().used_bytes() <= budget


def test_folders_are_found_by_a_pattern_with_their_steps_and_a_miss_names_the_nearest(folders):
    found = find_remote("s3://bucket/*/step-0*")
    assert [one.facts.step for one in found] == [0, 2, 6]
    assert [one.url for one in found] == [f"s3://bucket/far/{name}" for name in folders]
    with pytest.raises(CheckpointMissing) as missing:
        find_remote("s3://bucket/far/stop-*")
    assert "step-0" in str(missing.value)
    with pytest.raises(CheckpointMissing) as missing:
        describe(Remote(url="s3://bucket/far/step-00000003"))
    assert "step-0000000" in str(missing.value)


def test_a_connection_that_breaks_gives_the_same_weights_and_a_dead_one_nothing(
    s3, folders, monkeypatch
):
    name, folder = list(folders.items())[-1]
    source, cache = Remote(url=f"s3://bucket/far/{name}"), default_cache()
    with Road(s3.port) as road:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{road.port}")
        monkeypatch.setattr("isoloss.places.remote._FIRST_PATIENCE_SECONDS", 0.5)
        monkeypatch.setattr("isoloss.places.remote.PATIENCE_SECONDS", 0.5)
        road.cut_after = [None, None] + [5_000] * 20  # listings come, weights do not
        with pytest.raises(PlaceUnreachable):
            convert(source, cache)
        held = [file for file in cache.folder.rglob("*.safetensors") if file.is_file()]
        assert not held and remembered_is_none(source, cache, monkeypatch)
        monkeypatch.setattr("isoloss.places.remote.PATIENCE_SECONDS", 60.0)
        road.cut_after = [None, 5_000, 5_000]
        known = convert(source, cache)
    assert known.weights_hash == describe(Folder(path=folder)).weights_hash


def remembered_is_none(source, cache, monkeypatch):
    monkeypatch.setattr("isoloss.places.remote._FIRST_PATIENCE_SECONDS", 10.0)
    return remembered(source, cache) is None


def test_a_checkpoint_that_is_written_anew_while_it_is_fetched_is_refused(s3, folders, tmp_path):
    first, *_, last = folders.values()
    s3.put_folder(first, "moving/step-1")
    files = RemoteFiles(Remote(url="s3://bucket/moving/step-1"))
    assert files.listing
    s3.client().put_object(
        Bucket="bucket", Key="moving/step-1/model.safetensors",
        Body=(last / "model.safetensors").read_bytes() + b"more",
    )  # fmt: skip
    with pytest.raises(BadCheckpoint, match="changed while it was fetched"):
        files.fetch(tmp_path)


def test_weights_that_changed_since_they_were_measured_are_refused(s3, studio, folders, tmp_path):
    first, second, third = folders.values()
    s3.put_folder(first, "changing/step-1")
    s3.put_folder(second, "changing/step-2")
    study = study_of(studio, '"s3://bucket/changing/step-*"')
    assert run(study, out=tmp_path / "run").failed == 0
    s3.put_folder(third, "changing/step-2")
    assert run(study, out=tmp_path / "run").failed == 1
    reason = Store(tmp_path / "run").failures().collect()["reason"][0]
    assert "not those that were measured before" in reason


def test_a_checkpoint_over_sftp_is_listed_by_hand_and_no_login_is_kept(
    studio, folders, tmp_path, monkeypatch
):
    name, folder = list(folders.items())[-1]
    with Sftp(tmp_path / "sftp") as sftp:
        monkeypatch.setattr("fsspec.config.conf", {"sftp": {"known_hosts": str(sftp.hosts)}})
        (sftp.root / "far").mkdir()
        for file in folder.iterdir():
            (sftp.root / "far" / file.name).write_bytes(file.read_bytes())
        study = study_of(studio, f'[{{ path = "{sftp.url("far")}", step = 6 }}]')
        assert run(study, out=tmp_path / "run").failed == 0
    points = Store(tmp_path / "run").checkpoints().collect()
    assert points["source"].to_list() == [f"sftp://[hidden]@127.0.0.1:{sftp.port}/far"]
    assert points["weights_hash"].to_list() == [describe(Folder(path=folder)).weights_hash]
    for place in (tmp_path / "run", cache_folder()):
        for file in place.rglob("*"):
            assert PASSWORD not in str(file)
            assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()


def test_a_checkpoint_that_is_being_sent_is_waited_for(s3, studio, folders):
    folder = list(folders.values())[-1]
    study = study_of(studio, '"s3://bucket/coming/step-*"')
    client = s3.client()
    weights = (folder / "model.safetensors").read_bytes()
    for name in ("config.json", "training.json"):
        client.put_object(Bucket="bucket", Key=f"coming/step-6/{name}",
                          Body=(folder / name).read_bytes())  # fmt: skip
    arrivals = Arrivals(settle=60.0)
    assert not arrivals.look(find(study, so_far=True)) and arrivals.waiting
    client.put_object(Bucket="bucket", Key="coming/step-6/model.safetensors", Body=weights[:-10])
    assert not arrivals.look(find(study, so_far=True))
    client.put_object(Bucket="bucket", Key="coming/step-6/model.safetensors", Body=weights)
    assert not arrivals.look(find(study, so_far=True))  # whole, and not yet still for long enough
    settled = Arrivals(settle=0.0)
    assert [one.point.checkpoint.step for one in settled.look(find(study))] == [6]


def test_a_command_that_converts_is_not_run_on_a_url(studio, tmp_path):
    study = study_of(studio, '"s3://bucket/far/step-*"\n  convert = "convert {{src}} {{dst}}"')
    with pytest.raises(BadStudy, match="at a URL"):
        run(study, out=tmp_path / "run")


def test_a_folder_that_is_held_stays_as_long_as_the_block(folders):
    name, folder = next(iter(folders.items()))
    source = Remote(url=f"s3://bucket/far/{name}")
    with hold_converted(source, default_cache()) as held:
        assert (held / "model.safetensors").read_bytes() == (
            folder / "model.safetensors"
        ).read_bytes()
