"""A study file is read whole or refused with the line, the key and the nearest right one."""

from pathlib import Path

import pytest

from isoloss.config import parse_bytes
from isoloss.errors import BadStudy
from isoloss.study import Study

STUDY = """\
name = "stories"

[run]
dtype = "float32"

[[family]]
name = "tinystories"

  [[family.model]]
  name = "stories-260k"
  checkpoints = [{ path = "models/stories-260k", step = 2000, tokens = 1_000_000 }]

  [[family.model]]
  name = "pythia-70m"
  hub = "EleutherAI/pythia-70m"
  revision = "step{step}"
  steps = [0, 1, 1000]

[corpus.wikitext]
path = "text/valid.txt"
context = 512

[task.hellaswag]
path = "hellaswag.jsonl"
num_fewshot = 0

[probe.token_loss]
[probe.task_score]
task = "hellaswag"
at = "last:3"
"""


def load(text: str = STUDY, **options) -> Study:
    return Study.from_text(text, folder=Path("/studies"), **options)


def test_a_study_keeps_its_text_and_resolves_paths_from_its_folder():
    study = load()
    assert study.text == STUDY
    assert study.path("text/valid.txt") == Path("/studies/text/valid.txt")
    assert study.corpus["wikitext"].context == 512
    assert study.probe.task_score.at == "last:3"
    assert study.probe.optimum is None


@pytest.mark.parametrize(
    ("old", "new", "key", "line", "nearest"),
    [
        ("num_fewshot", "num_fewshots", "task.hellaswag.num_fewshots", 25, "num_fewshot"),
        ("dtype", "dtyp", "run.dtyp", 4, "dtype"),
        ("step = 2000", "stepp = 2000", "family[0].model[0].checkpoints[0].stepp", 11, "step"),
        ("revision =", "revison =", "family[0].model[1].revison", 16, "revision"),
        ("[corpus.wikitext]", "[corpora.wikitext]", "corpora", 19, "corpus"),
        ("[probe.token_loss]", "[probe.token_los]", "probe.token_los", 27, "token_loss"),
    ],
)
def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_key(old, new, key, line, nearest):
    with pytest.raises(BadStudy) as error:
        load(STUDY.replace(old, new, 1))
    assert f"{key}: there is no key" in str(error.value)
    assert f"study.toml, line {line}" in error.value.asked
    assert error.value.nearest == nearest


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("context = 512", "context = 512\nstride = 600", "stride cannot exceed context"),
        ('at = "last:3"', 'at = "lasst:3"', "steps are a list"),
        ('hub = "EleutherAI/pythia-70m"', "", "needs either checkpoints or hub"),
        ('path = "text/valid.txt"', "", "a corpus needs either path or dataset"),
        (
            'name = "stories-260k"',
            'name = "stories-260k"\n  revision = "step{step}"',
            "revision applies to a hub repository",
        ),
        ('task = "hellaswag"', 'task = "hellaswg"', "there is no [task.hellaswg]"),
        ('name = "stories"', "name = stories", "not valid TOML"),
    ],
)
def test_an_option_that_cannot_apply_is_refused_with_its_reason(old, new, reason):
    with pytest.raises(BadStudy, match=reason.replace("[", r"\[")):
        load(STUDY.replace(old, new, 1))


@pytest.mark.parametrize(
    ("axis", "name"),
    [
        ('loss = "wikitext"', "wikitext"),
        ('loss = "wikitext:bits_per_byte"', "wikitext:bits_per_byte"),
        ('loss = "train_log"', "train_log"),
        ('loss = { task = "lambada", transform = "ln" }', "lambada:perplexity"),
    ],
)
def test_the_axis_is_a_corpus_a_log_or_a_task(axis, name):
    assert load(f"{STUDY}\n[axis]\n{axis}\n").axis.name == name


def test_an_axis_that_no_corpus_has_is_refused():
    with pytest.raises(BadStudy, match="no .corpus.wikitex. in the study"):
        load(f'{STUDY}\n[axis]\nloss = "wikitex"\n')


def test_overrides_go_before_the_file():
    study = load(
        overrides=["run.dtype=bfloat16", "corpus.wikitext.tokens=1000", "family.0.name='x y'"]
    )
    assert study.run.dtype == "bfloat16"
    assert study.corpus["wikitext"].tokens == 1000
    assert study.family[0].name == "x y"


@pytest.mark.parametrize("override", ["run.dtype", "=3", "family.7.name=x", "name.x.y=1"])
def test_an_override_without_a_place_is_refused(override):
    with pytest.raises(BadStudy):
        load(overrides=[override])


def test_a_missing_file_names_a_near_one(tmp_path):
    (tmp_path / "stories.toml").write_text(STUDY)
    with pytest.raises(BadStudy) as error:
        Study.load(tmp_path / "storys.toml")
    assert error.value.nearest == "stories.toml"


def test_sizes_are_powers_of_1024():
    assert [parse_bytes(t) for t in ("512", "1KiB", "1.5GiB", "2GB")] == [
        512, 1024, 1536 * 1024**2, 2 * 1024**3,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no size"):
        parse_bytes("free")
