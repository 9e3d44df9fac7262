"""How a checkpoint reads a subject: a corpus in windows, a language's sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from isoloss.corpora.language import Language
from isoloss.corpora.windows import Layout
from isoloss.engine.subjects import check_context, window_of
from isoloss.pretrain.objectives import Objective
from isoloss.scoring.encode import prefix_token_id
from isoloss.store.cell import Setting

if TYPE_CHECKING:
    from isoloss.engine.jobs import Context


class LaidOut(NamedTuple):
    """A corpus in windows.

    Attributes:
        layout: makes it when first called.
        settings: how it was cut, for the cell.
    """

    layout: Callable[[], Layout]
    settings: dict[str, Setting]


def laid_out(context: Context, name: str) -> LaidOut:
    """A corpus as a checkpoint reads it; nothing is tokenized yet.

    Raises:
        BadStudy: the corpus asks for a longer context than the model takes.
    """
    resolved = context.resolved
    check_context(
        context.study, name, window_of(context.description.config), resolved.checkpoint.name
    )
    subjects, digest = context.subjects, context.tokenizer_hash
    spec = context.study.corpus[name]
    window = spec.context or context.window

    def layout() -> Layout:
        return subjects.layout(name, context.tokenizer, digest, context=window)

    prefixed = spec.bos is not False and prefix_token_id(context.tokenizer) is not None
    settings: dict[str, Setting] = {
        "corpus_hash": subjects.corpus_hash(name),
        "context": window,
        "stride": spec.stride or window,
        "bos": "prefixed" if prefixed else "none",
        "tokenizer_hash": digest,
    }
    return LaidOut(layout, settings)


def tokens_of(layout: Callable[[], Layout]) -> Callable[[], int]:
    """Counts the tokens that a pass over the windows reads."""

    def tokens() -> int:
        laid_out = layout()
        return int((laid_out.stops - laid_out.starts - 1).sum())

    return tokens


def tokens_read(language: Language, objective: Objective) -> int:
    """Tokens a model reads of a padded sentence: BOS, the words, of masked models the end."""
    return language.length + (1 if objective == "causal" else 2)
