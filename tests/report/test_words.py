import pytest

from isoloss.report import collect
from isoloss.report.words import Best, best_scores, sentences
from report import stores


def told(store):
    data = collect(store)
    return [s.text for s in sentences(data, best_scores(data))]


def test_the_lowest_loss_is_named_and_a_flagged_checkpoint_never_is(tmp_path):
    first = told(stores.trained(tmp_path))[0]
    assert first.startswith("large@100 has the lowest loss") and "2.000 ± 0.020" in first


def test_losses_within_a_hundredth_nat_are_a_tie_that_is_not_broken(tmp_path):
    store = stores.trained(tmp_path)
    near, far = (stores.checkpoint(s, model="third", params_total=20000) for s in (1, 2))
    with store.writing():
        store.put_checkpoints([near, far])
        stores.put_loss(store, near, 2.0099)
        stores.put_loss(store, far, 2.0101)
    assert "2 checkpoints share the lowest" in told(store)[0]
    assert "large@100 and third@1" in told(store)[0]


def test_what_lies_above_its_baseline_is_told_apart_from_what_does_not(tmp_path):
    text = told(stores.trained(tmp_path))
    above = next(t for t in text if "lies more than 2 standard errors above" in t)
    below = next(t for t in text if "does not lie" in t)
    assert "3 of 4 series: hidden_state of language and piqa (0-shot, 5-shot)" in above
    assert "1 of 4 series: coin." in below


def test_the_baseline_is_the_higher_of_chance_and_the_constant_answer(tmp_path):
    scores = best_scores(collect(stores.trained(tmp_path)))
    best = {(b.series.title, b.series.detail): b for b in scores}
    piqa = best["piqa", "0-shot"]
    assert (piqa.baseline, piqa.baseline_name) == (0.52, "constant answer")
    # the best that is not flagged: 0.5 + 0.07 * 4
    assert piqa.stderrs == pytest.approx((0.78 - 0.52) / 0.01, rel=1e-12)


@pytest.mark.parametrize(
    ("stderrs", "checkpoints", "verdict"),
    [(None, 9, "unknown"), (2.0, 1, "not above"), (2.1, 1, "above"), (2.1, 200, "within luck"),
     (3.0, 200, "above")],
)  # fmt: skip
def test_the_best_of_many_guesses_is_not_called_above(stderrs, checkpoints, verdict):
    best = Best(series=None, metric="accuracy", checkpoint="a", score="", baseline=0.5,
                baseline_name="chance", stderrs=stderrs, checkpoints=checkpoints)  # fmt: skip
    assert best.verdict == verdict


def test_a_proxy_is_called_one(tmp_path):
    assert any("This axis is a proxy" in text for text in told(stores.proxied(tmp_path)))


def test_a_store_without_loss_says_so(tmp_path):
    assert told(stores.without_loss(tmp_path))[0].startswith("No loss is in the store")
