import pytest

from isoloss.errors import BadRequest, Refused
from isoloss.report import collect, curve_figure, series_figure
from isoloss.report.axes import XAxis
from isoloss.report.charts import score_title, x_channel
from report import stores


def rows(chart):
    """The points in a chart, by run and order."""
    sets = chart.to_dict()["datasets"].values()
    return next(s for s in sets if s and "run" in s[0])


def test_a_figure_holds_the_numbers_of_the_store(tmp_path):
    data = collect(stores.trained(tmp_path))
    drawn = {(r["run"], r["x"]): r for r in rows(series_figure(data, data.abilities.series[2]))}
    assert drawn["small", 3.5]["y"] == 0.57
    assert drawn["small", 3.5]["low"] == pytest.approx(0.56, abs=1e-12)  # one subtraction
    assert drawn["small", 3.5]["hollow"] and not drawn["small", 3.0]["hollow"]
    assert drawn["large", 1.5]["flagged"] and not drawn["large", 2.0]["flagged"]


def test_a_score_on_its_own_documents_is_refused_on_the_loss_and_drawn_on_tokens(tmp_path):
    data = collect(stores.proxied(tmp_path))
    lambada = data.abilities.series[0]
    with pytest.raises(Refused, match="circular"):
        series_figure(data, lambada)
    assert len(rows(series_figure(data, lambada, x="tokens_seen"))) == 2  # step 0 has no logarithm


def test_an_unknown_axis_or_score_names_those_there_are(tmp_path):
    data = collect(stores.trained(tmp_path))
    with pytest.raises(BadRequest) as error:
        series_figure(data, data.abilities.series[0], x="watts")
    assert "tokens_seen" in error.value.nearest
    with pytest.raises(BadRequest) as error:
        series_figure(data, data.abilities.series[2], metric="brier")
    assert error.value.nearest == "brier_sum"


def test_figures_are_written_without_a_network(tmp_path):
    data = collect(stores.trained(tmp_path / "store"))
    series_figure(data, data.abilities.series[2]).save(tmp_path / "figure.svg")
    assert "held-out heldout" in (tmp_path / "figure.svg").read_text()
    curve_figure(data, data.curves[2]).save(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_loss_falls_to_the_right_and_says_so():
    axis = XAxis(key="loss", title="loss", short="loss", is_loss=True, starts_log=False,
                 numbers="plain")  # fmt: skip
    channel = x_channel(axis, log=False).to_dict()
    assert channel["scale"]["reverse"] is True
    assert channel["title"] == ["loss", "reversed: lower is to the right"]


def test_scores_that_fall_say_so():
    assert score_title("brier_sum", "squared probability") == (
        "brier_sum (squared probability, lower is better)"
    )
    assert score_title("accuracy", "fraction") == "accuracy (fraction)"


def test_models_stand_in_the_order_of_their_size_in_colours_of_their_own(tmp_path):
    data = collect(stores.trained(tmp_path))
    small, large = data.runs
    assert (small.label, large.label) == ("small", "large")
    assert small.light != large.light and small.dark != large.dark


def test_two_runs_of_a_model_share_a_colour_and_differ_in_dash_and_shape(tmp_path):
    store = stores.trained(tmp_path)
    with store.writing():
        store.put_checkpoints([stores.checkpoint(1, model="small", run="small-seed1")])
    first, second, _ = collect(store).runs
    assert first.light == second.light
    assert (first.dash, first.shape) != (second.dash, second.shape)
