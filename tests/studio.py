"""A small trained family with a corpus and a task, made once, and studies of it."""

import json
from pathlib import Path

FAMILY = """\
name = "tiny"
[language]
kind = "hmm"
vocab = 12
states = 4
length = 8
[train]
batch = 8
steps = 6
checkpoints = [0, 2, 6]
[[grid]]
width = [8, 16]
"""

STUDY = """\
name = "tiny"
[run]
threads = 1
[[family]]
pretrained = "family"
[corpus.heldout]
path = "heldout.txt"
document = "line"
[task.continuation]
path = "continuation.jsonl"
[probe.token_loss]
[probe.task_score]
[probe.optimum]
sentences = 20
"""


def make_studio(folder: Path) -> Path:
    """Train the family into ``folder`` and write its study, text and task beside it."""
    # only here: conftest imports this module before it sets the environment of the libraries
    from isoloss.corpora.language import continuation_task, load_language, to_text
    from isoloss.pretrain import FamilyConfig, train_family

    (folder / "family.toml").write_text(FAMILY)
    (folder / "study.toml").write_text(STUDY)
    train_family(FamilyConfig.load(folder / "family.toml"), folder / "family", processes=1)
    language = load_language(folder / "family" / "language")
    (folder / "heldout.txt").write_text("\n".join(to_text(language.sample(30, seed=1))))
    rows = continuation_task(language, 20, prefix=4, seed=2)
    (folder / "continuation.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder
