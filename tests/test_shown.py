"""How objects look at a prompt and in a notebook."""

import math
from pathlib import Path

import pytest

from isoloss import Checkpoint, Estimate, Family, Model, Run, Store, Study
from isoloss.engine.local import RunSummary
from isoloss.family import Imported
from isoloss.laws import fit_task_law, saturation
from isoloss.report.page import ReportSummary
from isoloss.shown import Shown
from isoloss.studies.findings import Finding, Findings

HOSTILE = "<script>alert(1)</script>\x1b[31m"
STUDY = """
name = "s"
[[family]]
name = "f"
[[family.model]]
name = "m"
checkpoints = "m/step-*"
[task.arc_easy]
[probe.task_score]
"""


def shown():
    run = Run(model=Model(family=HOSTILE, name="m"), name=HOSTILE)
    points = tuple(Checkpoint(run=run, source=Imported(file="x"), step=k) for k in range(300))
    claim = Finding(claim="c1", sentence=HOSTILE, source="s", verdict="confirmed", statistic="d",
                    unit="nats", smallest_effect=0.1, estimate=0.25, low=0.2, high=0.3, n=7,
                    reason="r")  # fmt: skip
    loss = [3.0 - 0.001 * k for k in range(50)]
    return [
        Estimate(value=0.25, stderr=0.0125, n=1000),
        Family(name=HOSTILE, checkpoints=points),
        Findings(study="emergence", title=HOSTILE, answers=(HOSTILE,), claims=(claim,)),
        RunSummary(store=HOSTILE, done=1, finished_before=2, failed=0, flagged=0, seconds=1.5),
        Study.from_text(STUDY, folder=Path()),
        fit_task_law(loss, [min(1.0, 0.2 + 0.01 * k) for k in range(50)], "sigmoid", seed=0),
        saturation([1e6 * (k + 1) for k in range(50)], loss, draws=19, alpha=0.1, seed=0),
    ]


@pytest.mark.parametrize("one", shown(), ids=lambda one: type(one).__name__)
def test_a_repr_is_a_line_and_html_is_a_table_in_which_names_are_text(one):
    line, table = repr(one), one._repr_html_()
    assert isinstance(one, Shown)
    assert line.startswith(type(one).__name__) and len(line) < 700
    assert len(line.splitlines()) == 1
    assert table.startswith("<table>") and table.endswith("</table>")
    assert table.count("<tr>") == table.count("</tr>") >= 1
    assert "<script" not in table and "\x1b" not in table
    assert len(table) < 10_000


def test_numbers_stand_with_their_errors_intervals_and_units():
    estimate, _, findings, _, _, law, run = shown()
    assert "0.25 ± 0.0125 (n = 1,000)" in estimate._repr_html_()
    assert "confirmed: 0.25 [0.2, 0.3] nats (n = 7)" in findings._repr_html_()
    name = next(iter(law.parameters))
    low, high = law.ci[name] or (math.nan, math.nan)
    if law.ci[name]:
        assert f"{law.parameters[name]:.4g} [{low:.4g}, {high:.4g}]" in repr(law)
    assert f"{run.change.value:.4g} [{run.change.low:.4g}" in run._repr_html_()


def test_a_store_says_what_it_holds_and_a_damaged_one_where_it_is(tmp_path):
    store = Store.create(tmp_path / "RUN")
    assert "checkpoints=0, cells=0" in repr(store)
    (tmp_path / "RUN" / "checkpoints.parquet").write_bytes(b"no table")
    assert "RUN" in repr(store) and "damaged=" in repr(store)


def test_the_summary_of_a_page_is_shown_as_the_others_are():
    assert issubclass(ReportSummary, Shown)
