"""No file that may be anyone's runs code: each kind of trap is set, read, and found untouched."""

import ast
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import isoloss
from isoloss.corpora.language import load_language
from isoloss.errors import BadCheckpoint, BadData, BadRequest, IsolossError, Untrusted
from isoloss.family import Folder, Foreign
from isoloss.models.load import load, local_folder
from isoloss.store.imports import import_table, read_training_log
from isoloss.store.plain_tables import read_tables
from isoloss.tasks import TaskSpec, load_task
from models import tiny
from report import stores
from tasks.harness_yaml import CHOICES, write_task

PACKAGE = Path(isoloss.__file__).parent


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path):
    """A place that any run code would make; it is absent at the end of the test."""
    place = tmp_path / "sprung"
    yield place
    assert not place.exists()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.save(folder, "gpt2")
    return folder


def copied(folder, to, *without):
    to.mkdir()
    for file in folder.iterdir():
        if file.name not in without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").is_dir()


# ---- pickles


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "consolidated.pth"])
def test_pickled_weights_are_refused(name, checkpoint, trap, tmp_path):
    folder = copied(checkpoint, tmp_path / "c", "model.safetensors")
    torch.save({"w": Trap(trap)}, folder / name)
    with pytest.raises(BadCheckpoint, match="a pickle can run any code"):
        load(Folder(path=folder), dtype="float32", device="cpu")


def test_a_pickle_called_safetensors_is_refused(checkpoint, trap, tmp_path):
    folder = copied(checkpoint, tmp_path / "c", "model.safetensors")
    torch.save({"w": Trap(trap)}, folder / "model.safetensors")
    with pytest.raises(BadCheckpoint, match=r"model.safetensors is broken"):
        load(Folder(path=folder), dtype="float32", device="cpu")


def test_a_pickle_beside_good_weights_is_left_alone(checkpoint, trap, tmp_path):
    folder = copied(checkpoint, tmp_path / "c")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt"):
        torch.save(Trap(trap), folder / name)
    load(Folder(path=folder), dtype="float32", device="cpu")


@pytest.mark.parametrize("name", ["last.ckpt", "dcp"])
def test_a_trainers_own_checkpoint_is_refused(name, checkpoint, trap, tmp_path):
    path = tmp_path / name
    if name == "dcp":
        path.mkdir()
        (path / ".metadata").write_bytes(pickle.dumps(Trap(trap)))
    else:
        torch.save({"state_dict": {"w": torch.zeros(2)}, "hyper_parameters": Trap(trap)}, path)
    with (
        pytest.raises(BadCheckpoint, match=r"mkdir.*it was refused, and nothing was run"),
        local_folder(Foreign(path=path, config=checkpoint)),
    ):
        pass


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.npy", "x.pickle", "x.joblib"])
def test_no_table_log_or_task_is_read_from_a_pickle(name, trap, tmp_path):
    file = tmp_path / name
    file.write_bytes(pickle.dumps(Trap(trap)))
    store = stores.Store.create(tmp_path / "store")
    for read in (
        lambda: read_tables([file]),
        lambda: read_training_log(file),
        lambda: import_table(file, store, family="f", columns={"model": "m", "loss": "l"}),
        lambda: load_task("t", TaskSpec(path=file)),
    ):
        with pytest.raises((BadData, BadRequest)):
            read()


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl", ".json"])
def test_a_pickle_under_another_name_is_no_table(ending, trap, tmp_path):
    file = tmp_path / f"x{ending}"
    file.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(BadData):
        read_training_log(file)


def test_arrays_of_objects_are_refused(trap, tmp_path):
    objects = np.array([Trap(trap)], dtype=object)
    np.savez(tmp_path / "parameters.npz", initial=objects, transition=objects, emission=objects)
    (tmp_path / "language.json").write_text('{"kind": "hmm", "length": 4}')
    with pytest.raises(BadData, match="Object arrays cannot be loaded"):
        load_language(tmp_path)


# ---- code that comes with a checkpoint

EVIL = "import os\nos.mkdir({!r})\nclass Evil:\n    pass\n"


def test_a_model_that_brings_its_own_code_is_refused(checkpoint, trap, tmp_path):
    folder = copied(checkpoint, tmp_path / "c")
    tiny.edit_config(
        folder, model_type="evil", architectures=["Evil"],
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    )  # fmt: skip
    (folder / "evil.py").write_text(EVIL.format(str(trap)))
    with pytest.raises(BadCheckpoint, match="brings its own code, cannot be loaded"):
        load(Folder(path=folder), dtype="float32", device="cpu")


def test_a_known_model_is_read_without_the_code_beside_it(checkpoint, trap, tmp_path):
    folder = copied(checkpoint, tmp_path / "c")
    tiny.edit_config(folder, auto_map={"AutoModelForCausalLM": "evil.Evil"})
    (folder / "evil.py").write_text(EVIL.format(str(trap)))
    loaded = load(Folder(path=folder), dtype="float32", device="cpu")
    assert type(loaded.model).__module__.startswith("transformers.")


def test_a_tokenizer_that_brings_its_own_code_is_not_run(checkpoint, trap, tmp_path):
    folder = copied(checkpoint, tmp_path / "c")
    file = folder / "tokenizer_config.json"
    about = json.loads(file.read_text())
    about |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    file.write_text(json.dumps(about))
    (folder / "evil.py").write_text(EVIL.format(str(trap)))
    try:
        load(Folder(path=folder), dtype="float32", device="cpu")
    except BadCheckpoint as error:
        assert "tokenizer" in error.what


# ---- lm-eval's YAML


@pytest.fixture
def task(tmp_path):
    """A folder with a sound task of three questions, and what makes others in it."""
    rows = [{"query": f"{i}?", "choices": ["a", "b"], "gold": i % 2} for i in range(3)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "yaml"
    folder.mkdir()

    def write(name, **settings):
        return write_task(folder, name, data, **{**CHOICES, **settings})

    write("sound")
    return folder, write


def with_code(folder, trap, name="evil"):
    """A task whose YAML names a function of the file beside it."""
    (folder / "utils.py").write_text(EVIL.format(str(trap)) + "def docs(d):\n    return d\n")
    text = (folder / "sound.yaml").read_text().replace('"sound"', f'"{name}"')
    (folder / f"{name}.yaml").write_text(text[:-1] + ', "process_docs": !function utils.docs}')


def test_a_function_tag_is_refused_and_named(task, trap):
    folder, _ = task
    with_code(folder, trap)
    with pytest.raises(Untrusted, match=r"!function utils.docs.*") as error:
        load_task("evil", TaskSpec(include_path=folder))
    assert "allow_task_code = true" in error.value.remedy
    with pytest.raises(Untrusted, match="!function"):
        load_task("other name", TaskSpec(path=folder / "evil.yaml"))
    assert len(load_task("sound", TaskSpec(include_path=folder)).documents) == 3


def test_a_function_tag_is_followed_where_the_study_allows_it(task, tmp_path):
    folder, _ = task
    with_code(folder, tmp_path / "allowed")
    found = load_task("evil", TaskSpec(include_path=folder, allow_task_code=True))
    assert (tmp_path / "allowed").is_dir() and len(found.documents) == 3


@pytest.mark.parametrize("way", ["include", "group", "inline", "tag"])
def test_a_function_tag_is_found_wherever_it_hides(way, task, trap):
    folder, write = task
    with_code(folder, trap)
    if way == "include":
        (folder / "asked.yaml").write_text("include: evil.yaml\ntask: asked\n")
    elif way == "group":
        (folder / "inner.yaml").write_text("group: inner\ntask: [sound, evil]\n")
        (folder / "asked.yaml").write_text("group: asked\ntask: [{group: inner}]\n")
    elif way == "inline":
        text = "group: asked\ntask:\n- task: mine\n  process_docs: !function utils.docs\n"
        (folder / "asked.yaml").write_text(text)
    else:
        text = (folder / "evil.yaml").read_text()
        (folder / "evil.yaml").write_text(text[:-1] + ', "tag": "asked"}')
    with pytest.raises(Untrusted, match="!function"):
        load_task("asked", TaskSpec(include_path=folder))


def test_a_metric_that_is_a_script_is_refused(task, trap):
    folder, write = task
    (folder / "evil.py").write_text(EVIL.format(str(trap)))
    write("evil", metric_list=[{"metric": str(folder / "evil.py")}])
    with pytest.raises(Untrusted, match="none of lm-eval's, so that it would be a script"):
        load_task("evil", TaskSpec(include_path=folder))


@pytest.mark.parametrize(
    "settings", [{"dataset_path": "evil.py"}, {"dataset_kwargs": {"trust_remote_code": True}}]
)
def test_a_data_set_with_its_own_loader_is_refused(settings, task, trap):
    folder, write = task
    write("evil", **settings)
    with pytest.raises(Untrusted, match="would run code of its own"):
        load_task("evil", TaskSpec(include_path=folder))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.mkdir"])
def test_pythons_own_tags_are_no_data(tag, task, trap):
    folder, _ = task
    text = (folder / "sound.yaml").read_text().replace('"sound"', '"evil"')
    (folder / "evil.yaml").write_text(text[:-1] + f', "x": {tag.format(trap)}}}')
    with pytest.raises(IsolossError, match="plain data|knows no task"):
        load_task("evil", TaskSpec(include_path=folder))
    with pytest.raises(BadData, match="plain data"):
        load_task("evil", TaskSpec(path=folder / "evil.yaml"))


def test_a_template_cannot_reach_python(task, trap):
    folder, write = task
    call = f"{{{{ cycler.__init__.__globals__.os.mkdir('{trap}') }}}}"
    write("evil", doc_to_text=call)
    with pytest.raises(BadData, match="SecurityError|unsafe"):
        load_task("evil", TaskSpec(include_path=folder))


def test_many_aliases_are_looked_at_once(task):
    folder, _ = task
    lines = ["task: evil", "a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    (folder / "evil.yaml").write_text("\n".join(lines))
    with pytest.raises(IsolossError):  # in no time: spelt out these are 9^19 lists
        load_task("evil", TaskSpec(path=folder / "evil.yaml"))


def test_a_file_that_includes_itself_is_refused(task):
    folder, _ = task
    (folder / "loop.yaml").write_text("include: loop.yaml\ntask: loop\n")
    with pytest.raises(IsolossError, match="includes itself|knows no task"):
        load_task("loop", TaskSpec(include_path=folder))


# ---- what the package itself calls


def calls_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_nothing_in_the_package_unpickles_evaluates_or_starts_a_shell():
    starters, found = set(), []
    for file in sorted(PACKAGE.rglob("*.py")):
        for name, options in calls_of(ast.parse(file.read_text())):
            if name.startswith(("subprocess.", "os.exec", "os.spawn", "os.popen", "pty.")):
                starters.add(str(file.relative_to(PACKAGE)))
            bad = name in {"eval", "exec", "os.system", "pickle.load", "pickle.loads", "dill.load",
                           "joblib.load", "yaml.unsafe_load", "yaml.full_load"}  # fmt: skip
            bad |= name == "torch.load" and options.get("weights_only") != "True"
            bad |= name.endswith("np.load") and options.get("allow_pickle", "False") != "False"
            bad |= options.get("shell", "False") != "False"
            bad |= options.get("trust_remote_code", "False") != "False"
            # of the classes of transformers those alone look for code beside the weights
            finds_class = re.match(r"(Auto|auto_class).*\.from_pretrained$", name)
            bad |= finds_class is not None and "trust_remote_code" not in options
            if bad:
                found.append(f"{file.relative_to(PACKAGE)}: {name}({options})")
    assert found == []
    # the user's own commands, convert in a study and --on-change; and this program's own questions
    allowed = {"models/conversion.py", "engine/news.py"}
    allowed |= {"engine/calibration.py", "engine/ray_engine.py", "store/limited_sql.py"}
    assert starters <= allowed, starters - allowed
