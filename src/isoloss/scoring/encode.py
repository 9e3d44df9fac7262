"""Texts to token ids, by the rule of lm-evaluation-harness, once per tokenizer.

The rule (lm-eval 0.4.13, ``TemplateLM._encode_pair`` and ``HFLM.tok_encode``): trailing white
space of the context moves to the continuation; context + continuation is encoded whole, and the
continuation is what follows as many tokens as the context alone has; special tokens are those
the tokenizer adds by default, but none where the text already starts with the prefix token's
text; an empty context is the prefix token. Every distinct string is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from isoloss.errors import BadCheckpoint, BadData

# bounds the tokenizer's side tables (masks, offsets), which are larger than the ids
_TEXTS_PER_CALL = 2_000


class TokenPair(NamedTuple):
    """A request in token ids.

    An empty continuation (one that tokenizes to nothing) stays in its place and is scored as
    unknown; the harness stops on it with an assertion.
    """

    context: tuple[int, ...]
    continuation: tuple[int, ...]


def move_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Move the context's trailing white space to the continuation.

    What is scored is the second text: count its bytes, not the given continuation's.

    >>> move_spaces("The cat ", "sat")
    ('The cat', ' sat')
    """
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def prefix_token_id(tokenizer: Any, config: Any = None) -> int | None:
    """The token that stands for an empty context: BOS, or EOS where there is no BOS.

    Args:
        tokenizer: a transformers tokenizer.
        config: the model's config, asked only where the tokenizer names neither token.

    Returns:
        A token id, or None where neither knows one.
    """
    for source in (tokenizer, config):
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(source, name, None)
            if token is not None:
                # eos may be a list of tokens that end a generation
                return int(token[0] if isinstance(token, list) else token)
    return None


def encode_texts(
    tokenizer: Any, texts: Iterable[str], *, special_tokens: bool | None = None
) -> dict[str, tuple[int, ...]]:
    """Encode distinct texts in batches.

    Args:
        tokenizer: a transformers tokenizer.
        texts: strings, repeated or not.
        special_tokens: add the tokenizer's special tokens; None is the harness's default rule.

    Returns:
        The token ids of every distinct text.

    Raises:
        BadData: a text is not valid Unicode, such as half of a surrogate pair.
    """
    distinct = list(dict.fromkeys(texts))
    prefix = prefix_token_id(tokenizer)
    opening = None if prefix is None else tokenizer.decode(prefix)
    if special_tokens is None and opening is not None:
        bare = [text for text in distinct if text.startswith(opening)]
        rest = [text for text in distinct if not text.startswith(opening)]
        jobs: list[tuple[list[str], dict[str, bool]]] = [
            (bare, {"add_special_tokens": False}),
            (rest, {}),
        ]
    else:
        jobs = [
            (distinct, {} if special_tokens is None else {"add_special_tokens": special_tokens})
        ]
    encoded: dict[str, tuple[int, ...]] = {}
    for job, options in jobs:
        for start in range(0, len(job), _TEXTS_PER_CALL):
            part = job[start : start + _TEXTS_PER_CALL]
            ids = _call(tokenizer, part, options)
            encoded.update(zip(part, map(tuple, ids), strict=True))
    return encoded


def _call(tokenizer: Any, texts: list[str], options: dict[str, bool]) -> list[list[int]]:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadData(
                "A text to score is not valid Unicode.",
                asked=repr(text[max(0, error.start - 20) : error.end + 20]),
                remedy="write the task or corpus file as valid UTF-8",
            ) from error
    # verbose=False: lengths beyond the window are our business, counted by the scorer
    encoding = tokenizer(texts, return_attention_mask=False, verbose=False, **options)
    ids: list[list[int]] = encoding["input_ids"]
    return ids


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[TokenPair]:
    """Encode (context, continuation) texts as the harness does.

    Where the harness stops with an assertion, this goes on: a continuation that tokenizes to
    nothing stays empty, and a context of white space alone, whose tokens are none once the space
    has moved, becomes the prefix token.

    Args:
        tokenizer: a transformers tokenizer.
        pairs: texts; a context may be empty.

    Returns:
        One pair of token ids a request, in order.

    Raises:
        BadCheckpoint: a context is empty and the tokenizer has neither BOS nor EOS.
    """
    moved = [move_spaces(context, continuation) for context, continuation in pairs]
    is_open = [context == "" for context, _ in pairs]
    contexts = encode_texts(
        tokenizer, (c for (c, _), empty in zip(moved, is_open, strict=True) if not empty)
    )
    wholes = encode_texts(
        tokenizer, (c + k for (c, k), empty in zip(moved, is_open, strict=True) if not empty)
    )
    alone = encode_texts(
        tokenizer,
        (k for (_, k), empty in zip(moved, is_open, strict=True) if empty),
        special_tokens=False,
    )
    encoded = []
    for (context, continuation), empty in zip(moved, is_open, strict=True):
        if empty:
            encoded.append(_after_prefix(tokenizer, alone[continuation]))
            continue
        head = contexts[context]
        tail = wholes[context + continuation][len(head) :]
        encoded.append(TokenPair(head, tail) if head else _after_prefix(tokenizer, tail))
    return encoded


def _after_prefix(tokenizer: Any, continuation: tuple[int, ...]) -> TokenPair:
    prefix = prefix_token_id(tokenizer)
    if prefix is None:
        raise BadCheckpoint(
            "A context is empty and the tokenizer has neither a BOS nor an EOS token.",
            asked=f"tokenizer {getattr(tokenizer, 'name_or_path', '')!r}",
            remedy="set bos_token in tokenizer_config.json, or give the task a context",
        )
    if continuation[:1] == (prefix,):
        return TokenPair(continuation[:1], continuation[1:])
    return TokenPair((prefix,), continuation)
