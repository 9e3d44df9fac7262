"""The live watch's cost, rank-constrained heads in one pass, and the spectrum of a head.

Weights are random: speed does not depend on what they say. A head's path does depend on its
spectrum; that of a random head is flat, the fast case, so a spiked one is timed beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from benchmarks.rows import Row
from benchmarks.setting import pythia_70m
from benchmarks.timing import in_turn, paired
from isoloss.monitor import Watcher
from isoloss.probes.head_spectrum import singular_values
from isoloss.probes.hidden_file import write_hidden
from isoloss.probes.rank_head import HeadTraining, HiddenTokens, initial, rank_heads

_EVERY = 100  # steps between looks
_RANKS = (32, 64, 128, 256, 512, 768, 1024)  # as published for Pythia-410m


def rows(
    *,
    repeats: int,
    steps: int = 4,
    rows_a_step: int = 4,
    window: int = 512,
    tokens: int = 4_096,
    width: int = 1_024,
    layers: int = 24,
    vocab: int = 50_304,
) -> Iterator[Row]:
    """The watch, two peers of the rank heads, two of the spectrum."""
    yield watch_row(repeats, steps, rows_a_step, window)
    yield from rank_rows(repeats, tokens, width, layers, vocab)
    yield from spectrum_rows(repeats, vocab, width)


def watch_row(repeats: int, steps: int, rows_a_step: int, window: int) -> Row:
    """One look with its row in a store, against the hundred steps between two looks."""
    model = pythia_70m(window=window).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(50_304, (rows_a_step, window), generator=torch.Generator().manual_seed(0))

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        watcher = Watcher(every=_EVERY, store=Path(folder) / "RUN")

        def look() -> None:
            watcher.look(model, ids, _EVERY * (len(watcher.looks) + 1))

        look()
        found = in_turn(look, train, repeats=repeats)
    scale = _EVERY / steps
    pair = paired([(found.peak_flops, found.ours, found.theirs * scale)])
    return Row(
        work=f"A look at Pythia-70m's shape in training, every {_EVERY} steps of "
        f"{rows_a_step * window:,} tokens",
        peer=f"{_EVERY} steps without",
        pair=pair,
        remarks=f"{found.ours / found.theirs / scale:.2%} of training time; "
        f"steps timed over {steps}",
    )


def rank_rows(repeats: int, tokens: int, width: int, layers: int, vocab: int) -> Iterator[Row]:
    """All ranks from one pass, against one rank at a time, with and without cached states."""
    torch.manual_seed(0)
    model = (
        GPTNeoXForCausalLM(
            GPTNeoXConfig(
                vocab_size=vocab,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=max(1, width // 64),
                intermediate_size=4 * width,
                max_position_embeddings=512,
            )
        )
        .eval()
        .requires_grad_(False)
    )
    ids = torch.randint(vocab, (max(4, tokens // 257), 257))
    batches = [{"input_ids": part, "labels": part} for part in ids.split(2)]
    ranks = [rank for rank in _RANKS if rank <= width]
    how = HeadTraining(learning_rates=(5e-3,))
    with tempfile.TemporaryDirectory() as folder:
        cached = write_hidden(model, batches, Path(folder) / "cached")

        def together() -> None:
            states = write_hidden(model, batches, Path(folder) / "ours")
            rank_heads(*_halves(states), vocab=vocab, ranks=ranks, training=how, seed=0)

        def one_at_a_time() -> None:
            for rank in ranks:
                _plain_head(model, batches, rank, vocab, width, how)

        def from_cache() -> None:
            for rank in ranks:
                rank_heads(*_halves(cached), vocab=vocab, ranks=[rank], training=how, seed=0)

        shape = f"Heads of {len(ranks)} ranks on a frozen backbone of {layers} layers of {width}, "
        shape += f"{ids.shape[0] * 256:,} tokens"
        peers = (("one rank at a time, each with its own pass", one_at_a_time),
                 ("one rank at a time from cached states", from_cache))  # fmt: skip
        for peer, theirs in peers:
            pair = in_turn(together, theirs, repeats=repeats)
            yield Row(work=shape, peer=peer, pair=pair, remarks="ours with the backbone's pass")


def _halves(hidden: HiddenTokens) -> tuple[HiddenTokens, HiddenTokens]:
    """Nearly all to train on, and a little to score: scoring is not what is timed."""
    cut = len(hidden.targets) - 256 * 2
    train = HiddenTokens(hidden.states[:cut], hidden.targets[:cut], hidden.block[:cut])
    return train, HiddenTokens(hidden.states[cut:], hidden.targets[cut:], hidden.block[cut:])


def _plain_head(
    model: GPTNeoXForCausalLM,
    batches: list[dict[str, Tensor]],
    rank: int,
    vocab: int,
    width: int,
    how: HeadTraining,
) -> None:
    first = initial(rank, vocab, width, how.init, None, seed=0)
    a, b = (part.requires_grad_() for part in first)
    optimizer = torch.optim.AdamW([a, b], lr=how.learning_rates[0], betas=how.betas)
    for batch in batches:
        with torch.no_grad():
            states = model.gpt_neox(input_ids=batch["input_ids"]).last_hidden_state[:, :-1]
        targets = batch["labels"][:, 1:].flatten()
        for part, wanted in zip(
            states.flatten(0, 1).split(how.batch), targets.split(how.batch), strict=True
        ):
            optimizer.zero_grad()
            cross_entropy(part @ b.T @ a.T, wanted).backward()
            optimizer.step()


def spectrum_rows(repeats: int, vocab: int, width: int) -> Iterator[Row]:
    """All singular values of a head, flat and spiked, against ``torch.linalg.svdvals``."""
    draw = torch.Generator().manual_seed(0)
    flat = torch.randn(vocab, width, generator=draw)
    spike = 20 * torch.randn(vocab, 1, generator=draw) @ torch.randn(1, width, generator=draw)
    for name, weight in (("flat", flat), ("spiked", flat + spike)):
        exact = torch.linalg.svdvals(weight.double()).numpy()
        worst = float(abs(singular_values(weight) / exact - 1).max())
        pair = in_turn(
            lambda weight=weight: singular_values(weight),
            lambda weight=weight: torch.linalg.svdvals(weight),
            repeats=repeats,
        )
        yield Row(
            work=f"Singular values of a {name} head, {vocab:,} x {width:,}",
            peer="torch.linalg.svdvals, float32",
            pair=pair,
            remarks=f"within {worst:.0e} relative of float64 on every value",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4_096)
    parser.add_argument("--width", type=int, default=1_024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocab", type=int, default=50_304)
    parser.add_argument("--window", type=int, default=512)
    given = vars(parser.parse_args())
    for row in rows(**given):
        print(row, flush=True)
