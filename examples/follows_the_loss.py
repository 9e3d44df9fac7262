# Does an ability follow the loss? A table of losses and scores, the laws, and a forecast.
# Run it as a script, or open it as a notebook: every "# %%" begins a cell.

# %% A table: yours would come from `Store.measurements()` or a CSV. In this one the truth is known:
# the loss is Chinchilla's of each size and budget, and the score leaves chance at loss 2.5.
import numpy as np

from isoloss.laws import collapse, emergence, fit_loss_law, fit_task_law, forecast

rng = np.random.default_rng(0)
sizes = [1e8, 2e8, 4e8, 8e8, 1.6e9, 3.2e9, 6.4e9]
params = np.repeat(sizes, 12)
tokens = np.tile(np.geomspace(3e9, 3e11, 12), len(sizes))
run = np.repeat([f"{size / 1e6:.0f}M" for size in sizes], 12)
loss = 1.69 + 406.4 / params**0.34 + 410.7 / tokens**0.28
loss = loss * np.exp(rng.normal(0, 0.002, loss.size))
items = 4_000
ability = 0.25 + 0.9 * np.maximum(0, 2.5 - loss)
score = rng.binomial(items, ability.clip(0, 1)) / items

# %% Is the score one curve of the loss, whatever the size?
one_curve = collapse(loss, score, run, seed=0)
print(one_curve.verdict, "-", one_curve.reason)

# %% Does it begin at a threshold? The interval is over runs, since checkpoints of a run err alike.
threshold = emergence(loss, score, 0.25, run, n_items=items, seed=0)
print(threshold)

# %% What would 13B parameters on 3e11 tokens score? Two laws, chained with their uncertainty.
loss_law = fit_loss_law(params, tokens, loss, run=run, seed=0)
there = loss < threshold.threshold  # above it the score is chance, and says nothing of the rise
task_law = fit_task_law(loss[there], score[there], "exponential", run=run[there], seed=0)
print(loss_law)
ahead = forecast(loss_law, task_law, params=1.3e10, tokens=3e11, n_items=items, seed=0)
print(f"score {ahead.score:.3f} [{ahead.low:.3f}, {ahead.high:.3f}] at loss {ahead.loss:.3f}")
print(f"truth {0.25 + 0.9 * (2.5 - (1.69 + 406.4 / 1.3e10**0.34 + 410.7 / 3e11**0.28)):.3f}")
