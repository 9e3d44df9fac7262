"""Singular values of n-gram models against a dense decomposition and a sparse one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import svds

from isoloss.corpora.ngram_spectrum import ngram_spectrum
from isoloss.corpora.ngrams import NgramGram, ngram_gram
from isoloss.errors import BadRequest
from shared_data import SHARED, needs_shared


@pytest.fixture(scope="module")
def zipf():
    """A corpus of some 2,000 types with repeated contexts."""
    rng = np.random.default_rng(0)
    words = rng.zipf(1.3, 120_000).clip(max=4_000)
    return ngram_gram([words], n=3)


def test_all_values_are_those_of_the_dense_matrix(zipf):
    found = ngram_spectrum(zipf)
    squares = np.linalg.eigvalsh(zipf.matrix.toarray())[::-1]
    assert found.values**2 == pytest.approx(squares, rel=1e-9, abs=1e-9 * squares[0])
    assert found.complete and found.types == len(squares)
    # the trace is the sum of all eigenvalues
    assert (found.values**2).sum() == pytest.approx(found.total, rel=1e-10)
    assert found.w_error([0, found.types]) == pytest.approx([1.0, 0.0], abs=1e-5)


def test_the_largest_values_are_within_their_residuals(zipf):
    whole = ngram_spectrum(zipf)
    top = ngram_spectrum(zipf, top=200)
    assert not top.complete and len(top.values) == 200
    errors = np.abs(top.values**2 - whole.values[:200] ** 2)
    assert (errors <= top.residuals + 1e-9 * whole.values[0] ** 2).all()
    dimensions = np.arange(201)
    assert top.w_error(dimensions) == pytest.approx(whole.w_error(dimensions), abs=1e-4)
    assert np.isnan(top.w_error(201))
    assert ngram_spectrum(zipf, top=200).values.tolist() == top.values.tolist()


def test_a_matrix_of_known_spectrum_gives_it():
    values = np.arange(60, 0, -1.0)
    gram = NgramGram(
        matrix=sparse.csr_array(np.diag(values**2)),
        tokens=np.arange(60), contexts=60, ngrams=60, left_out=0,
    )  # fmt: skip
    found = ngram_spectrum(gram)
    assert found.values == pytest.approx(values, rel=1e-12)
    squares = values**2
    left = np.sqrt(1 - np.cumsum(squares) / squares.sum())
    assert found.halves_at == 1 + np.flatnonzero(left <= 0.5)[0]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 5),
    st.sampled_from(["contexts", "frequency"]),
    st.integers(1, 3),
    st.floats(1.1, 2.0),
    st.integers(1, 30),
    st.integers(0, 2**32 - 1),
)
def test_no_w_error_is_below_the_true_one_and_residuals_hold(n, weight, at_least, power, top, seed):
    words = np.random.default_rng(seed).zipf(power, 3_000).clip(max=150)
    gram = ngram_gram([words], n=n, weight=weight, at_least=at_least)
    squares = np.linalg.eigvalsh(gram.matrix.toarray())[::-1]
    top = min(top, len(squares))
    found = ngram_spectrum(gram, top=top)
    rounding = 1e-9 * squares[0]
    # each value has a true one within its residual, whichever that is
    nearest = np.abs(found.values[:, None] ** 2 - squares).min(axis=1)
    assert (nearest <= found.residuals + rounding).all()
    # Ky Fan: no space of k dimensions holds more than the k largest
    dimensions = np.arange(top + 1)
    kept = np.concatenate([[0.0], np.cumsum(squares[:top])])
    true = np.sqrt(np.maximum(1 - kept / squares.sum(), 0.0))
    assert (found.w_error(dimensions) >= true - 1e-6).all()


def test_the_largest_values_are_those_of_a_sparse_svd_of_the_contexts():
    # the matrix itself, contexts by tokens, built without ours
    rng = np.random.default_rng(1)
    words = rng.zipf(1.3, 40_000).clip(max=1_500)
    grams = np.lib.stride_tricks.sliding_window_view(words, 3)
    row = np.unique(grams[:, :-1], axis=0, return_inverse=True)[1].ravel()
    counts = sparse.coo_array((np.ones(len(row)), (row, grams[:, -1]))).tocsr()
    rows = sparse.diags_array(1 / np.bincount(row)) @ counts
    wanted = svds(rows, k=40, return_singular_vectors=False, random_state=0)[::-1]
    found = ngram_spectrum(ngram_gram([words], n=3), top=40)
    # the first-order step leaves an error of second order in the residuals, some 1e-3 here
    assert found.values == pytest.approx(wanted, rel=1e-5)


def test_errors_say_how_many_there_are(zipf):
    with pytest.raises(BadRequest, match="1 to "):
        ngram_spectrum(zipf, top=10**6)
    big = NgramGram(
        matrix=sparse.eye_array(30_000).tocsr(),
        tokens=np.arange(30_000), contexts=1, ngrams=1, left_out=0,
    )  # fmt: skip
    with pytest.raises(BadRequest, match="all of 30,000 types: 6.7 GiB"):
        ngram_spectrum(big)


def test_a_vocabulary_that_does_not_fit_the_memory_is_told_what_fits(zipf):
    with pytest.raises(BadRequest) as refused:
        ngram_spectrum(zipf, memory=8 << 20)
    text = str(refused.value)
    assert "0.1 GiB" in text and "all values of at most 1,024 types" in text
    fits = int(text.split("top=")[1].split(" ")[0].replace(",", ""))
    assert len(ngram_spectrum(zipf, top=fits, memory=8 << 20).values) == fits
    with pytest.raises(BadRequest, match="more memory"):
        ngram_spectrum(zipf, top=fits + 1, memory=8 << 20)


@needs_shared
def test_the_example_of_the_docs_prints_what_it_says():
    text = (Path(__file__).parents[2] / "docs" / "heads.md").read_text(encoding="utf-8")
    mark = "<!-- tested: tests/corpora/test_ngram_spectrum.py -->\n```python\n"
    code, after = text.split(mark)[1].split("```", 1)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SHARED, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert f"It prints `{result.stdout.strip()}`" in after
