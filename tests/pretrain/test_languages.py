"""What a family file's [language] becomes, the page that describes it, and the examples."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from isoloss.corpora import Hmm, LmLanguage, to_text
from isoloss.errors import BadData, BadRequest, BadStudy
from isoloss.family import Folder
from isoloss.models.load import load
from isoloss.models.tokenizer import load_tokenizer_of
from isoloss.pretrain import FamilyConfig, family_file, language_config, train_family
from isoloss.pretrain.languages import is_text, load_material, make_language, make_material
from isoloss.pretrain.material import Sentences, put_end
from isoloss.pretrain.text_material import Text
from shared_data import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1)
GRAMMAR = "S -> A B [1.0]\nA -> 'a' [0.5] | 'b' [0.5]\nB -> 'c' [0.3] | A A [0.7]\n"


def language(**values: object) -> language_config.LanguageConfig:
    return FamilyConfig.model_validate(
        {"name": "f", "language": values, "train": {"steps": 1}, "grid": [{"width": 8}]}
    ).language


def save_checkpoint(folder: Path, *, masked: bool = False) -> None:
    """A random model of 12 words and 5 special tokens, with their tokenizer."""
    shape = dict(vocab_size=17, hidden_size=16, num_hidden_layers=1, intermediate_size=24,
                 num_attention_heads=2, max_position_embeddings=12)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # drawn wide, so that words differ in frequency
        made = (
            BertForMaskedLM(BertConfig(**shape))
            if masked
            else LlamaForCausalLM(LlamaConfig(initializer_range=0.3, **shape))
        )
    made.save_pretrained(folder)
    words = Sentences(Hmm.random(12, 2, 6, 0))
    words.tokenizer(window=12).save_pretrained(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a family file with its text, grammar and language model lies."""
    made = tmp_path_factory.mktemp("family")
    (made / "grammar.txt").write_text(GRAMMAR)
    (made / "text.txt").write_text("\n".join(f"line {i} of {i * i}" for i in range(200)))
    save_checkpoint(made / "model")
    save_checkpoint(made / "encoder", masked=True)
    return made


KINDS = {
    "hmm": language(kind="hmm", vocab=12, states=3, length=6),
    "log-bilinear": language(kind="log-bilinear", vocab=9, rank=2, length=5),
    "pcfg": language(kind="pcfg", max_length=8, vocab=20, roots=2, width=3, seed=2),
    "grammar": language(kind="pcfg", grammar="grammar.txt", max_length=4),
    "dyck": language(kind="dyck", length=6),
    "lm": language(kind="lm", path="model", vocab=8, length=5),
    "text": language(kind="text", path="text.txt", document="line", vocab=280, length=20),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_material_saved_and_read_gives_the_same_sequences(kind, folder, tmp_path):
    material = make_material(KINDS[kind], folder=folder, seed=0)
    material.save(tmp_path / "language")
    again = load_material(tmp_path / "language")
    assert type(again) is type(material) is (Text if kind == "text" else Sentences)
    assert again.fingerprint() == material.fingerprint()
    assert again.codes == material.codes and again.vocabulary == material.vocabulary
    assert np.array_equal(again.block(2, 30, SEEDS), material.block(2, 30, SEEDS))
    assert is_text(tmp_path / "language") == (kind == "text")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_material_made_again_is_the_same(kind, folder):
    one, two = (make_material(KINDS[kind], folder=folder, seed=0) for _ in range(2))
    assert one.fingerprint() == two.fingerprint()


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_sequence_is_made_of_words_up_to_its_end(kind, folder):
    material = make_material(KINDS[kind], folder=folder, seed=0)
    rows = material.block(0, 200, SEEDS)
    assert rows.shape == (200, material.length)
    highest = material.vocabulary if kind == "text" else material.codes.words
    assert rows.min() >= -1 and rows.max() < highest
    ended = rows < 0
    assert np.array_equal(ended, np.maximum.accumulate(ended, axis=1))
    lengths = (~ended).sum(axis=1) + material.codes.ends
    # five standard errors of the mean of 200 sentences; where all are of one length, exact
    spread = 5 * lengths.std() / np.sqrt(200)
    assert abs(lengths.mean() - material.tokens_per_sequence) <= spread + 1e-9


def test_the_family_s_seed_serves_where_the_language_gives_none(folder):
    free, fixed = KINDS["hmm"], KINDS["hmm"].replace(seed=3)
    made = {
        (name, seed): make_material(config, folder=folder, seed=seed).fingerprint()
        for name, config in (("free", free), ("fixed", fixed))
        for seed in (3, 4)
    }
    assert made["free", 3] == made["fixed", 3] == made["fixed", 4] != made["free", 4]


# --- a language model's sentences


def test_the_words_of_a_language_model_are_its_most_frequent_tokens_without_special_ones(folder):
    made = make_language(KINDS["lm"], folder=folder, seed=0)
    assert isinstance(made, LmLanguage) and made.start == (12,)
    assert len(made.kept) == 8 and made.kept.max() < 12
    every = make_language(KINDS["lm"].replace(vocab=12), folder=folder, seed=0)
    counts = np.bincount(every.kept[every.sample(2_000, 5)].ravel(), minlength=12)
    # counted again in another sample: the rarest kept one and the most frequent one left out
    # may change places within 5 standard deviations of a count near 10,000 / 12
    left_out = np.setdiff1d(np.arange(12), made.kept)
    assert counts[made.kept].min() > counts[left_out].max() - 5 * np.sqrt(2 * 10_000 / 12)
    assert counts[made.kept].sum() > counts[left_out].sum()


def test_a_masked_model_writes_no_text(folder):
    with pytest.raises(BadStudy, match=r"(?s)writes no text.*encoder"):
        make_material(KINDS["lm"].replace(path="encoder"), folder=folder, seed=0)


def test_a_language_model_without_bos_is_told_where_to_set_it(folder, tmp_path):
    save_checkpoint(tmp_path / "model")
    tokenizer = load_tokenizer_of(tmp_path / "model")
    tokenizer.bos_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(BadStudy, match=r"(?s)no BOS.*tokenizer_config.json"):
        make_material(KINDS["lm"], folder=tmp_path, seed=0)


def test_more_words_than_the_model_writes_are_refused(folder):
    with pytest.raises(BadRequest, match=r"(?s)2000 tokens.*keep fewer"):
        make_material(KINDS["lm"].replace(vocab=2_000), folder=folder, seed=0)


@needs_shared
def test_stories_of_a_trained_model_are_nearly_its_own_text(folder):
    where = str(SHARED / "models" / "stories-260k")
    made = make_language(language(kind="lm", path=where, vocab=100, length=12), folder=folder,
                         seed=0)  # fmt: skip
    assert made.start == (1,) and not {0, 1, 2} & set(made.kept.tolist())
    # of 100 equally likely tokens it would be log 100 = 4.6 nats; the model knows its stories
    assert made.entropy(n=50).value < 3


# --- text is no language


def test_text_has_no_exact_probabilities(folder):
    with pytest.raises(BadRequest, match="probabilities of a text are not known"):
        make_language(KINDS["text"], folder=folder, seed=0)


def test_a_folder_without_a_language_is_told(tmp_path):
    assert not is_text(tmp_path)
    with pytest.raises(BadData, match="holds no language"):
        load_material(tmp_path)


def text_family(folder: Path, steps: int) -> FamilyConfig:
    file = folder / "family.toml"
    file.write_text(
        'name = "text"\n[language]\nkind = "text"\npath = "text.txt"\ndocument = "line"\n'
        f"vocab = 280\nlength = 20\n[train]\nbatch = 16\nsteps = {steps}\n"
        "checkpoints = [30]\n[[grid]]\nwidth = 16\n"
    )
    return FamilyConfig.load(file)


class Killed(Exception):
    pass


def test_a_killed_text_family_ends_with_the_weights_of_an_uninterrupted_one(folder, tmp_path):
    def kill(progress):
        if progress.step == 70:
            raise Killed

    config = text_family(folder, 120)
    train_family(config, tmp_path / "one", processes=1)
    with pytest.raises(Killed):
        train_family(config, tmp_path / "two", progress=kill, processes=1)
    train_family(config, tmp_path / "two", processes=1)
    weights = [sorted((tmp_path / name).glob("*/step-*/*.safetensors")) for name in ("one", "two")]
    assert len(weights[0]) == 3
    assert [p.read_bytes() for p in weights[0]] == [p.read_bytes() for p in weights[1]]
    log = pl.read_parquet(next((tmp_path / "one").glob("*/log.parquet")))
    assert log["tokens_seen"].to_list() == [16 * 20 * step for step in range(1, 121)]
    # from near log 280 = 5.6 nats to below the 4 or so that letter frequencies alone give
    assert log["loss"][0] > 5.2 and log["loss"][-10:].mean() < 3
    loaded = load(Folder(path=weights[0][-1].parent), dtype="float32", device="cpu")
    assert loaded.model.config.vocab_size == len(loaded.tokenizer)
    assert loaded.tokenizer("line 7").input_ids[0] == loaded.model.config.bos_token_id


# --- the examples and their page


EXAMPLES = sorted((ROOT / "examples").glob("*-family.toml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_trains_and_its_loss_falls(example, tmp_path):
    record = train_family(FamilyConfig.load(example), tmp_path, processes=1)
    assert record.runs
    for run in record.runs:
        log = pl.read_parquet(tmp_path / run.name / "log.parquet")
        assert log["loss"][-20:].mean() < log["loss"][:5].mean() - 0.1
        for step in run.checkpoint_steps:
            assert (tmp_path / run.name / f"step-{step:08d}" / "model.safetensors").exists()


TABLES = {
    "`hmm`": language_config.HmmConfig,
    "`log-bilinear`": language_config.LogBilinearConfig,
    "`pcfg`": language_config.PcfgConfig,
    "`dyck`": language_config.DyckConfig,
    "`lm`": language_config.LmConfig,
    "`text`": language_config.TextConfig,
    "`facts`": language_config.FactsConfig,
    "`abilities`": language_config.AbilitiesConfig,
    "a table in `tasks`": language_config.PlantedConfig,
    "`[train]`": family_file.TrainConfig,
    "`[train.adversarial]`": family_file.AdversarialConfig,
    "`[[grid]]`": family_file.GridConfig,
    "top": family_file.FamilyConfig,
}


def as_toml(value: object) -> str:
    if isinstance(value, family_file.LogSpaced):
        return f"{{ log = {value.log} }}"
    if isinstance(value, tuple) and len(value) == 1:
        return as_toml(value[0])
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int):
        return f"{value:_}"
    return {(): "[]"}.get(value, str(value)) if isinstance(value, tuple) else str(value)


def default_of(name: str, kind: type) -> str:
    field = kind.model_fields[name]
    if name == "kind" or field.is_required():
        return "required"
    return "–" if field.default is None else f"`{as_toml(field.default)}`"


@pytest.mark.parametrize("table", list(TABLES))
def test_the_page_lists_every_key_of_a_family_file_with_its_default(table):
    pages = [(ROOT / "docs" / name).read_text("utf-8") for name in ("pretrain.md", "languages.md")]
    page = "".join(pages)
    (rows,) = re.findall(rf"^\| {re.escape(table)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.M)
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", rows, re.M))
    kind = TABLES[table]
    assert listed == {name: default_of(name, kind) for name in kind.model_fields if name != "kind"}


@pytest.mark.parametrize(
    ("part", "length"),
    [
        ({"kind": "facts", "entities": 4, "relations": 2, "objects": 2, "fillers": 2}, 8),
        (
            {
                "kind": "abilities",
                "base": {"kind": "dyck", "length": 4},
                "tasks": [{"kind": "copy", "steps": 2, "weight": 0.3}],
            },
            5,
        ),
    ],
    ids=["facts", "abilities"],
)
def test_planted_languages_are_made_and_read_back(part, length, tmp_path):
    made = make_material(language(**part), folder=tmp_path, seed=3)
    assert made.length == length
    made.save(tmp_path)
    again = load_material(tmp_path)
    assert again.fingerprint() == made.fingerprint()
    np.testing.assert_array_equal(again.block(0, 8, (1, 2)), made.block(0, 8, (1, 2)))


def test_tokenizers_of_masked_models_write_the_end_they_were_trained_with(tmp_path):
    material = Sentences(Hmm.random(12, 3, 4, 0))
    tokenizer = material.tokenizer(window=6)
    put_end(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    words = material.block(0, 1, (0,))
    codes = material.codes
    assert read(to_text(words)[0]).input_ids == [codes.bos, *words[0].tolist(), codes.eos]
