"""Tiny models with their dense curvature, for tests of the probes that never form it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.corpora import Hmm
from isoloss.corpora.language import model_tokens
from isoloss.pretrain.architectures import build_model, model_config
from isoloss.pretrain.family_file import Shape
from isoloss.pretrain.material import Sentences
from isoloss.pretrain.objectives import make_batch
from isoloss.probes.curvature_batches import asked_logits, read_batches, summed_loss
from isoloss.probes.curvature_parameters import as_function

LANGUAGE = Hmm.random(8, 4, 6, 0)


def tiny_model(architecture: str = "gpt-neox", *, width: int = 4, language=LANGUAGE) -> nn.Module:
    """A model of one layer in float64."""
    objective = "masked-one" if architecture in ("bert", "lstm") else "causal"
    shape = Shape(architecture=architecture, width=width, depth=1, heads=1)
    return build_model(model_config(shape, Sentences(language), objective), seed=0).double()


def causal_batches(sizes=(8, 4), *, language=LANGUAGE, seed=1) -> list[dict[str, Tensor]]:
    """Sentences of the language, the first of each batch padded after two words."""
    batches = []
    for number, size in enumerate(sizes):
        ids = torch.from_numpy(model_tokens(language.sample(size, (seed, number)), language.vocab))
        labels = ids.clone()
        labels[0, 3:] = -100
        batches.append({"input_ids": ids, "labels": labels})
    return batches


def masked_batches(sizes=(8, 4), *, language=LANGUAGE) -> list[dict[str, Tensor]]:
    """One masked word a sentence."""
    rng, codes, batches = np.random.default_rng(3), Sentences(language).codes, []
    for number, size in enumerate(sizes):
        made = make_batch("masked-one", language.sample(size, number), codes, rng)
        batches.append({"input_ids": made.inputs, "labels": made.labels})
    return batches


def dense_hessian(model: nn.Module, batches) -> Tensor:
    """Central differences of the gradient of the mean loss: no second derivative is taken."""
    parameters, step = list(model.parameters()), 1e-5
    # all batches as one: half of the calls
    (read,) = read_batches(model, [{k: torch.cat([b[k] for b in batches]) for k in batches[0]}])

    def gradient() -> Tensor:
        loss = summed_loss(model, read) / read.tokens
        grads = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    rows = []
    with as_function(model, parameters, twice=False):
        for p in parameters:
            for i in range(p.numel()):
                flat, before = p.data.view(-1), float(p.data.view(-1)[i])
                flat[i] = before + step
                above = gradient()
                flat[i] = before - step
                rows.append((above - gradient()) / (2 * step))
                flat[i] = before
    return torch.stack(rows)


def dense_fisher(model: nn.Module, batches) -> Tensor:
    """Sum over all labels of probability times the outer product of the score, token by token."""
    parameters = list(model.parameters())
    total, tokens = 0.0, 0
    with as_function(model, parameters, twice=False):
        for rows in read_batches(model, batches):
            for row in torch.log_softmax(asked_logits(model, rows), dim=-1):
                tokens += 1
                for logprob in row:
                    grads = torch.autograd.grad(
                        logprob, parameters, retain_graph=True, materialize_grads=True
                    )
                    score = torch.cat([g.flatten() for g in grads])
                    total = total + logprob.detach().exp() * torch.outer(score, score)
    return total / tokens


def block_weights(model: nn.Module) -> Tensor:
    """Of each number in the parameters the squared norm of its tensor."""
    return torch.cat([p.detach().square().sum().expand(p.numel()) for p in model.parameters()])


def own_probs(model: nn.Module, batches) -> list[dict[str, Tensor]]:
    """The batches with the model's own distributions in place of their labels, detached."""
    found = []
    for batch in batches:
        with torch.no_grad():
            probs = torch.softmax(model(input_ids=batch["input_ids"]).logits, dim=-1)
        if "ForMaskedLM" not in type(model).__name__:
            # transformers' alignment: what a place should be, not what follows it
            probs = probs.roll(1, dims=1)
        found.append({**batch, "label_probs": probs})
    return found


class Normed(nn.Module):
    """Embedding, a linear map whose scale a norm undoes, and a head."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.embed = nn.Parameter(torch.randn(9, 6, generator=g).double())
        self.inner = nn.Parameter(0.2 * torch.randn(6, 6, generator=g).double())
        self.head = nn.Parameter(0.3 * torch.randn(6, 9, generator=g).double())

    def forward(self, input_ids, use_cache):
        """Logits of the next token."""
        x = self.embed[input_ids] @ self.inner
        return SimpleNamespace(logits=torch.tanh(x / x.norm(dim=-1, keepdim=True)) @ self.head)
