# Is my run flat, and has it stopped improving? Curvature with its error, and a verdict on the log.
# Run it as a script, or open it as a notebook: every "# %%" begins a cell.

# %% Train a small run whose best possible loss is known.
import sys
from pathlib import Path
from tempfile import mkdtemp

import isoloss
from isoloss.laws import saturation
from isoloss.pretrain import FamilyConfig, train_family
from isoloss.store.imports import read_training_log

here = Path(sys.argv[1] if len(sys.argv) > 1 else mkdtemp(prefix="flat-or-saturated-"))
(here / "family.toml").write_text("""
name = "mine"
[language]
kind = "hmm"
vocab = 12
states = 3
length = 8
[train]
batch = 16
steps = 500
checkpoints = [60]
[[grid]]
width = 8
depth = 1
""")
family = train_family(FamilyConfig.load(here / "family.toml"), here / "runs", processes=1)

# %% The trace of the Hessian, by random vectors until 10% or their number is reached.
(here / "study.toml").write_text("""
name = "flat"
[[family]]
pretrained = "runs"
[probe.hessian_trace]
sentences = 16
relative_error = 0.1
max_products = 40
at = "last:2"
[probe.optimum]
sentences = 100
[axis]
loss = "train_log"
""")
isoloss.run(isoloss.Study.load(here / "study.toml"), out=here / "RUN")
store = isoloss.Store(here / "RUN")
table = store.measurements().collect()
print(table.filter(metric="hessian_trace").select("step", "value", "stderr", "n", "unit"))
print(table.filter(metric="distance_to_optimum_nats").select("step", "value", "stderr"))

# %% Did the run stop improving? An interval and a p-value stand behind the word.
log = read_training_log(here / "runs" / family.runs[0].name / "log.parquet").frame
verdict = saturation(log["tokens_seen"], log["loss"], draws=199, seed=0)
print(verdict.verdict, "-", verdict.reason)
