"""Singular values of n-gram models against a dense decomposition."""

import numpy as np
import pytest
from scipy import sparse

from isoloss.corpora.ngram_spectrum import ngram_spectrum
from isoloss.corpora.ngrams import NgramGram, ngram_gram
from isoloss.errors import BadRequest


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


def test_errors_say_how_many_there_are(zipf):
    with pytest.raises(BadRequest, match="1 to "):
        ngram_spectrum(zipf, top=10**6)
    big = NgramGram(
        matrix=sparse.eye_array(30_000).tocsr(),
        tokens=np.arange(30_000), contexts=1, ngrams=1, left_out=0,
    )  # fmt: skip
    with pytest.raises(BadRequest, match="7 GiB and more"):
        ngram_spectrum(big)
