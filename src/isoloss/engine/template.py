"""A working, commented study file for somebody who has none yet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isoloss.errors import BadRequest

_OPENING = """\
# A study: what to measure on which family. Paths are relative to this file.
#   isoloss plan {file}     what would run, and what it costs
#   isoloss run {file}      measure; stopped at any moment, it goes on where it was
name = "study"
seed = 0

[run]                             # how, never what: only dtype and threads enter a result
device = "auto"                   # auto, cpu, cuda, cuda:1
dtype = "float32"                 # float32, bfloat16, float16, float64
memory_budget = "1GiB"            # for activations; results do not depend on it
threads = 2
# cell_timeout = "2h"             # a result that takes longer is stopped and counted as failed

[[family]]
"""

_FAMILY = """\
name = "family"

{models}
"""

_CORPUS = """\
# A text on which the loss is measured: the axis of every figure.
[corpus.{name}]
path = {path}{room}# a file, a folder of files, or a .jsonl with a text_key
document = {document}           # what separates documents: file, line, blank-line, separator:TEXT
context = 512                     # tokens a window; stride = context unless given
# tokens = 50_000                 # at most so many; all where absent

"""

_ABILITIES = """\
# Abilities. Without a path it is lm-evaluation-harness's task of that name.
"""

_EXAMPLE_TASK = """\
[task.arc_easy]
num_fewshot = 0
limit = 200                       # a seeded sample, the same at every checkpoint

# [task.mine]
# path = "mine.jsonl"             # rows of query, choices, gold

"""

_TOKEN_LOSS = "[probe.token_loss]                # on every corpus\n"
_TASK_SCORE = """\
[probe.task_score]                # on every task
# at = "last:3"                   # all, last:3, log:20, or a list of steps
"""

_PRETRAINED = """\
pretrained = {folder}

# Exact, since the language is known: the expected loss, the optimum, and the distance to it.
[probe.optimum]
sentences = 1000                  # sampled; each position against the whole true distribution
{hidden_state}
"""

_OWN_TEXT = """\
# A text or a task of your own beside it:
# [corpus.heldout]
# path = "heldout.txt"
# [probe.token_loss]

"""

_OWN_LOSS = """\
[axis]
loss = "train_log"                # the runs' own training loss; or a corpus
"""

_HIDDEN_STATE = """
[probe.hidden_state]              # does the last layer know the state that emitted a word?
sentences = 2000
"""

_HUB_MODEL = """\
  [[family.model]]
  name = "pythia-70m"
  hub = "EleutherAI/pythia-70m"
  revision = "step{step}"         # named fields: step, stage, tokens
  steps = "log:20"                # or a list, "all", "last:3", "0..143000:1000"
  tokens_per_step = 2_097_152
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text for the loss.

    Attributes:
        path: a file or a folder.
        document: what separates its documents.
    """

    path: Path
    document: str = "blank-line"


def template(folder: Path | None, *, relative_to: Path) -> str:
    """The text of a study file, with a text and a task as examples.

    Args:
        folder: checkpoints to measure: a checkpoint itself, a folder of them, or a family that
            ``isoloss pretrain`` wrote; None writes a hub repository as an example.
        relative_to: where the file will stand.

    Raises:
        BadRequest: the folder holds no checkpoint.
    """
    if folder is not None and is_family(folder):
        return study_text(folder, relative_to=relative_to)
    models = _HUB_MODEL if folder is None else _folder_model(folder, relative_to)
    example = Text(path=relative_to / "heldout.txt")
    parts = [_FAMILY.replace("{models}", models), _corpus(example, relative_to), _ABILITIES]
    parts += [_EXAMPLE_TASK, _TOKEN_LOSS, _TASK_SCORE, _axis("heldout")]
    return _opened("".join(parts), "study.toml")


def study_text(
    checkpoints: Path | str,
    *,
    text: Text | None = None,
    tasks: Sequence[Path | str] = (),
    relative_to: Path,
    file: str = "study.toml",
) -> str:
    """The text of a study file of what is there.

    Args:
        checkpoints: a checkpoint, a folder of them, a family that ``isoloss pretrain`` wrote, or
            OWNER/NAME of a hub repository.
        text: on which the loss is measured.
        tasks: files, published sets, or tasks of lm-evaluation-harness by name.
        relative_to: where the file will stand.
        file: its name.

    Raises:
        BadRequest: the folder holds no checkpoint.
    """
    trained = isinstance(checkpoints, Path) and is_family(checkpoints)
    if isinstance(checkpoints, str):
        models = _HUB_MODEL.replace("EleutherAI/pythia-70m", checkpoints)
        models = models.replace("pythia-70m", checkpoints.rpartition("/")[2])
        parts = [_FAMILY.replace("{models}", models.replace("  tokens_per", "  # tokens_per"))]
    elif trained:
        parts = [_pretrained(checkpoints, relative_to)]
    else:
        parts = [_FAMILY.replace("{models}", _folder_model(checkpoints, relative_to))]
    if trained and text is None and not tasks:
        parts.append(_OWN_TEXT)
    if text is not None:
        # the models' own window: a short one could not take the example's
        part = _corpus(text, relative_to)
        parts.append(part.replace("context = 512  ", "# context = 512"))
    if tasks:
        parts += [_ABILITIES, *(_task(task, relative_to) for task in tasks)]
    parts += [_TOKEN_LOSS] if text is not None else []
    parts += [_TASK_SCORE] if tasks else []
    if text is not None:
        parts.append(_axis(_key(text.path.stem)))
    elif trained:
        parts.append(_OWN_LOSS)
    return _opened("".join(parts), file)


def is_family(folder: Path) -> bool:
    """Whether ``isoloss pretrain`` wrote the folder."""
    return (folder / "family.json").is_file()


def _opened(body: str, file: str) -> str:
    return _OPENING.replace("{file}", file) + body


def _corpus(text: Text, relative_to: Path) -> str:
    path = _text(_relative(text.path, relative_to))
    filled = _CORPUS.replace("{name}", _key(text.path.stem)).replace("{path}", path)
    filled = filled.replace("{room}", " " * max(2, len('"heldout.txt"              ') - len(path)))
    return filled.replace("{document}", _text(text.document))


def _task(task: Path | str, relative_to: Path) -> str:
    if isinstance(task, Path):
        return f"[task.{_key(task.stem)}]\npath = {_text(_relative(task, relative_to))}\n\n"
    # not above: it brings torch, and most studies name files
    from isoloss.tasks.published import PUBLISHED

    known = f"published = {_text(task)}\n" if task in PUBLISHED else "num_fewshot = 0\n"
    return f"[task.{_key(task)}]\n{known}limit = 200                       # a seeded sample\n\n"


def _axis(name: str) -> str:
    return f'\n[axis]\nloss = "{name}"\n'


def _key(name: str) -> str:
    """A name that TOML takes as it is."""
    return re.sub(r"[^\w-]+|[^\x00-\x7f]+", "_", name).strip("_") or "heldout"


def _pretrained(folder: Path, relative_to: Path) -> str:
    about = folder / "language" / "language.json"
    try:
        kind = json.loads(about.read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadRequest(
            f"{folder} holds a family.json and no language that can be read.",
            asked=f"{about}: {error}",
            remedy="name a folder that isoloss pretrain wrote",
        ) from error
    hidden = _HIDDEN_STATE if kind == "hmm" else ""
    where = _text(_relative(folder, relative_to))
    return _PRETRAINED.replace("{folder}", where).replace("{hidden_state}", hidden)


def _relative(path: Path, start: Path) -> str:
    return os.path.relpath(path.absolute(), start.absolute())


def _folder_model(folder: Path, relative_to: Path) -> str:
    if (folder / "config.json").is_file():
        pattern = folder
    elif any(folder.glob("*/config.json")):
        pattern = folder / "*"
    else:
        raise BadRequest(
            f"{folder} holds no checkpoint in Hugging Face format.",
            asked=str(folder),
            remedy="name a folder with config.json, or one whose subfolders have it",
        )
    text = _relative(pattern, relative_to)
    return "\n".join(
        [
            "  [[family.model]]",
            f"  name = {_text(folder.resolve().name)}",
            f"  checkpoints = {_text(text)}    # a glob; the step is read from the name",
            "  # tokens_per_step = 2_097_152   # to draw against tokens and FLOPs",
            "",
        ]
    )


def _text(name: str) -> str:
    """A string of TOML: JSON's, but for characters that JSON writes as two halves."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
