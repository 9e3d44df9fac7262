"""The init command: a working study file, from what is given or from what is asked."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from isoloss.console import say
from isoloss.errors import BadRequest, IsolossError, nearest_name

if TYPE_CHECKING:
    from isoloss.engine.template import Text

T = TypeVar("T")

_NONE = "none"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_NAME = re.compile(r"[\w.,:+-]+")


def init(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER] STUDY.toml",
            help="Checkpoints, and the file to write; on a terminal, what is left out is asked.",
        ),
    ] = None,
) -> None:
    """Write a working, commented study file; a folder of checkpoints becomes its family.

    Without a word it asks: where the checkpoints are, which text gives the loss, which tasks.

    Examples:
    - `isoloss init`
    - `isoloss init study.toml`
    - `isoloss init runs/7b study.toml`
    """
    if not paths:
        _ask_all()
        return
    from isoloss.engine.template import template

    *folders, file = paths
    if len(folders) > 1 or file.suffix != ".toml":
        raise BadRequest(
            "init takes at most one folder and then the file to write.",
            asked=" ".join(map(str, paths)),
            remedy="isoloss init runs/7b study.toml",
        )
    _not_there(file)
    _write(file, template(folders[0] if folders else None, relative_to=file.parent))


def _ask_all() -> None:
    """Ask what a study needs, each answer checked at once, and write it."""
    from isoloss.engine.nearby import look_around
    from isoloss.engine.template import is_family, study_text

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadRequest(
            "init asks on a terminal, and this is none.",
            asked="isoloss init without a file",
            remedy="isoloss init STUDY.toml, or isoloss init FOLDER STUDY.toml",
        )
    print("looking around ...", file=sys.stderr)
    near = look_around(Path())
    print("Four questions; Enter takes what stands in brackets.", file=sys.stderr)
    checkpoints = _ask(
        "Checkpoints: a folder, a family of isoloss pretrain, or OWNER/NAME of a hub",
        str(near.checkpoints[0]) if near.checkpoints else None,
        _checkpoints,
    )
    needs = not (isinstance(checkpoints, Path) and is_family(checkpoints))
    text = _ask(
        "Text on which the loss is measured: a file, a folder, or none",
        str(near.texts[0]) if near.texts and needs else _NONE,
        _text,
    )
    tasks = _ask(
        "Tasks, separated by commas: .jsonl files, lm-eval names, or none",
        ",".join(map(str, near.tasks[:3])) or (_NONE if text or not needs else None),
        lambda given: _tasks(given, needed=needs and text is None),
    )
    file = _ask("File to write", _free_name(), _new_file)
    made = study_text(checkpoints, text=text, tasks=tasks, relative_to=file.parent, file=file.name)
    _write(file, made)


def _ask(question: str, default: str | None, read: Callable[[str], T]) -> T:
    """Ask until the answer can be read; what is wrong with one is told at once."""
    shown = "" if default is None else f" [{default}]"
    while True:
        # not input's own prompt, nor typer's: part of it comes to standard output
        print(f"{question}{shown}: ", end="", file=sys.stderr, flush=True)
        given = input().strip() or default
        if given is None:
            print("nothing is taken by Enter here: type an answer, or Ctrl-C", file=sys.stderr)
            continue
        try:
            return read(given)
        except IsolossError as error:
            print(error, file=sys.stderr)


def _checkpoints(given: str) -> Path | str:
    from isoloss.engine.template import study_text

    path = Path(given).expanduser()
    # of a folder that is there the name is a mistake, and no owner on a hub
    if _REPOSITORY.fullmatch(given) and not path.parent.is_dir():
        return given
    if not path.is_dir():
        there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BadRequest(
            f"there is no folder {given}.",
            asked=given,
            nearest=nearest_name(path.name, there),
            remedy="name a folder with checkpoints, or OWNER/NAME of a hub repository",
        )
    study_text(path, relative_to=Path())  # it says what is wrong with the folder
    return path


def _text(given: str) -> Text | None:
    from isoloss.engine.nearby import text_of

    return None if given.lower() in {_NONE, ""} else text_of(Path(given).expanduser())


def _tasks(given: str, *, needed: bool) -> tuple[Path | str, ...]:
    words = [word.strip() for word in given.split(",") if word.strip()]
    tasks = tuple(_task(word) for word in words if word.lower() != _NONE)
    if needed and not tasks:
        raise BadRequest(
            "without a text and without a task there is nothing to measure.",
            asked=given,
            remedy="name a task, such as hellaswag; or Ctrl-C, and begin anew with a text",
        )
    return tasks


def _task(word: str) -> Path | str:
    path = Path(word).expanduser()
    if path.suffix or path.exists():
        # reading a task takes libraries that the other questions do without
        from isoloss.tasks import TaskSpec, load_task

        load_task(path.stem, TaskSpec(path=path))
        return path
    if not _NAME.fullmatch(word):
        raise BadRequest(
            "a task is a file or a name.", asked=word, remedy="isoloss plan checks the names"
        )
    return word


def _new_file(given: str) -> Path:
    file = Path(given).expanduser()
    if file.suffix != ".toml" or not file.absolute().parent.is_dir():
        raise BadRequest(
            "the study is written into a .toml file of a folder that is there.",
            asked=given,
            nearest="study.toml",
            remedy="name such a file",
        )
    _not_there(file)
    return file


def _not_there(file: Path) -> None:
    if file.exists():
        raise BadRequest(
            f"{file} exists already and is not overwritten.",
            remedy=f"choose another name, or remove {file}",
        )


def _free_name() -> str:
    names = ["study.toml", *(f"study-{i}.toml" for i in range(2, 100))]
    return next((name for name in names if not Path(name).exists()), "study-of-mine.toml")


def _write(file: Path, text: str) -> None:
    from isoloss.study import Study

    folder = file.absolute().parent
    study = Study.from_text(text, folder=folder, source=file.name)  # it loads, or is not written
    file.write_text(text, encoding="utf-8")
    absent = [one.path for one in study.corpus.values() if not (folder / str(one.path)).exists()]
    first = (
        f"put your own text in the place of {absent[0]}, and your tasks; then " if absent else ""
    )
    say(f"wrote {file}; next: {first}isoloss plan {file}")
