# Which of my checkpoints? Two of them on one text and one task, and the difference with its error.
# Run it as a script, or open it as a notebook: every "# %%" begins a cell.

# %% A small run to look at: point `checkpoints` of the study at your own folders instead.
import json
import sys
from pathlib import Path
from tempfile import mkdtemp

import isoloss
from isoloss.corpora.language import continuation_task, load_language, to_text
from isoloss.pretrain import FamilyConfig, train_family

here = Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp(prefix="which-checkpoint-"))
(here / "family.toml").write_text("""
name = "mine"
[language]
kind = "hmm"
vocab = 16
states = 4
length = 10
[train]
batch = 16
steps = 120
checkpoints = [20]
[[grid]]
width = 16
depth = 1
""")
family = train_family(FamilyConfig.load(here / "family.toml"), here / "runs", processes=1)
run = family.runs[0].name
language = load_language(here / "runs" / "language")
(here / "heldout.txt").write_text("\n".join(to_text(language.sample(60, seed=1))))
rows = continuation_task(language, 200, prefix=4, seed=2)
(here / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

# %% What to measure: the loss on a text, and a task.
(here / "study.toml").write_text(f"""
name = "which"
[[family]]
name = "mine"
[[family.model]]
name = "mine"
checkpoints = "runs/{run}/step-*"
[corpus.heldout]
path = "heldout.txt"
document = "line"
[task.mine]
path = "mine.jsonl"
[probe.token_loss]
[probe.task_score]
[axis]
loss = "heldout"
""")
study = isoloss.Study.load(here / "study.toml")
study  # noqa: B018  (a notebook shows it)

# %% Measure; finished cells are kept, a second call takes no time.
print(isoloss.run(study, out=here / "RUN"))
store = isoloss.Store(here / "RUN")
table = store.measurements().collect()  # a Polars frame
print(table.select("step", "subject", "metric", "value", "stderr", "n", "unit"))

# %% Which is better? Paired by document, so that much smaller differences show.
from isoloss.studies.comparison.comparing import compare  # noqa: E402

found = compare(store, "mine@20", "mine@120")
for one in found.tasks:
    gap = one.difference
    print(f"{one.task} {one.metric}: {gap.difference:+.3f} +- {gap.stderr:.3f} (n = {gap.n})")
for one in found.corpora:
    gap = one.nats_per_token
    print(f"{one.corpus}: {gap.difference:+.3f} +- {gap.stderr:.3f} nats a token (n = {gap.n})")

# %% The figure: an Altair chart, shown by a notebook, saved as SVG, PNG or PDF.
from isoloss.report import collect, series_figure  # noqa: E402

data = collect(store)
chart = series_figure(data, data.abilities.series[0])
chart.save(here / "ability.svg")
print(here / "ability.svg")
