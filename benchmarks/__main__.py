"""Run every benchmark and print the table of RESULTS.md: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version

import torch

from benchmarks.scoring import SHARED, rows


def main() -> None:
    """Print one row a benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not SHARED.is_dir():
        print("not run: the shared test material (../shared/data) is not on this machine")
        return
    names = ("torch", "transformers", "lm_eval")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, float32; {versions}\n")
    print("| work | isoloss, s | HFLM, s | ratio | largest difference, nats | of matmul peak |")
    print("|---|---|---|---|---|---|")
    for row in rows(documents=options.documents, repeats=options.repeats):
        print(
            f"| {row.work} | {row.pair.ours:.1f} | {row.pair.theirs:.1f} | {row.pair.ratio:.2f} "
            f"| {row.gap_nats:.1e} | {row.fraction_of_peak:.0%} |"
        )


if __name__ == "__main__":
    main()
