"""How well what a checkpoint learned serves another task: probes and fine-tuning."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from isoloss.corpora.language import Language
from isoloss.errors import BadRequest
from isoloss.estimate import Estimate, mean
from isoloss.probes.conditionals import model_conditionals, true_conditionals
from isoloss.probes.fine_tune import fine_tune
from isoloss.probes.linear_probe import Probed, linear_probe
from isoloss.probes.measured import Measured, Row
from isoloss.probes.transfer_adamw import adamw_probe
from isoloss.probes.transfer_features import (
    Documents,
    Pooling,
    layer_features,
    project,
    read_documents,
)
from isoloss.probes.transfer_tasks import Classification, Sentences

Method = Literal["ridge", "adamw", "fine-tune"]


def transfer(
    model: nn.Module,
    tokenizer: Any,
    task: Classification,
    *,
    layer: int = -1,
    pooling: Pooling = "concat",
    method: Method = "ridge",
    seeds: int = 5,
    seed: int,
) -> Measured:
    """Accuracy on a classification task of a probe on frozen states, or of a fine-tuned copy.

    Args:
        model: its weights do not change.
        tokenizer: of the model; a language's own sentences need none.
        task: labelled documents.
        layer: whose states are read, 0 the embeddings; fine-tuning reads the last.
        pooling: all words' states side by side, or their mean; fine-tuning uses neither.
        method: "ridge", a linear probe at the optimum of its penalised loss, the penalty chosen
            on validation documents; "adamw", the published linear probe; "fine-tune".
        seeds: how many probes; see the method's own function for what a seed draws.
        seed: of them all.

    Returns:
        Rows ``accuracy`` (standard error over test documents), ``accuracy_over_seeds`` (the same
        number, standard error over seeds), ``constant_answer``, ``chance`` and, where the law of
        the label is known, ``bayes_accuracy``; ``documents_truncated`` where there are any.
        Arrays ``accuracy_of_seed`` and, of ridge probes, ``ridge``.

    Raises:
        BadData: there is one class only, too few documents, or a label of the test alone.
        BadRequest: no such layer or method, or a language's task on a model of another one.
        NonFinite: the model's states hold NaN.
    """
    documents = read_documents(model, tokenizer, task.documents)
    if method == "fine-tune":
        probed = fine_tune(model, documents, task.labels, task.test, seeds=seeds, seed=seed)
    elif method in ("ridge", "adamw"):
        (features,) = layer_features(model, documents, [layer], pooling=pooling, seed=seed)
        probed = _linear(features, task, method, seeds, seed)
    else:
        raise BadRequest(
            "there is no such way to measure transfer",
            asked=f"method = {method!r}",
            nearest='"ridge", "adamw", "fine-tune"',
            remedy="choose one of these",
        )
    return _measured(probed, task, documents)


def transfer_of_layers(
    model: nn.Module,
    tokenizer: Any,
    task: Classification,
    *,
    pooling: Pooling = "concat",
    seeds: int = 5,
    seed: int,
) -> list[Measured]:
    """The ridge probe of :func:`transfer` on every layer, from one reading of the documents.

    Args:
        model: its weights do not change.
        tokenizer: of the model; a language's own sentences need none.
        task: labelled documents.
        pooling: all words' states side by side, or their mean.
        seeds: how many probes a layer.
        seed: of them all.

    Returns:
        From the embeddings to the last layer; each equals that of :func:`transfer`.

    Raises:
        BadData: as of :func:`transfer`.
    """
    documents = read_documents(model, tokenizer, task.documents)
    layers = range(int(model.config.num_hidden_layers) + 1)  # type: ignore[union-attr, arg-type]
    features = layer_features(model, documents, layers, pooling=pooling, seed=seed)
    every = linear_probe(features, task.labels, task.test, seeds=seeds, seed=seed)
    return [_measured(probed, task, documents) for probed in every]


def transfer_of_conditionals(
    language: Language,
    task: Classification,
    *,
    model: nn.Module | None = None,
    masked: bool = True,
    method: Literal["ridge", "adamw"] = "ridge",
    seeds: int = 5,
    seed: int,
) -> Measured:
    """The linear probe on conditional probabilities instead of states.

    Args:
        language: whose sentences the task's documents are.
        task: of :func:`isoloss.probes.transfer_tasks.language_task`.
        model: whose predictions are the features; the true conditionals, which are the lookup
            table, where None.
        masked: of the true ones: each word given all others; otherwise given those before.
        method: how the probe is trained.
        seeds: how many probes.
        seed: of them all.

    Returns:
        Rows and arrays as of :func:`transfer`.

    Raises:
        BadRequest: the task is on texts, or the model was trained on another language.
        BadData: as of :func:`transfer`.

    Reference:
        Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream, section 3 and
        table 1: the lookup table reaches 71.2 and 39.7 where a trained model reaches 89.9 and 49.2.
    """
    if not isinstance(task.documents, Sentences):
        raise BadRequest(
            "the true probabilities of texts are not known",
            asked=f"task {task.name!r}",
            nearest="task-N of an HMM; A, B, C of a grammar",
            remedy="make the task with language_task",
        )
    words = task.documents.words
    if model is None:
        features = true_conditionals(language, words, masked=masked)
    else:
        features = model_conditionals(model, language, words)
    return _measured(_linear(project(features, seed=seed), task, method, seeds, seed), task, None)


def _linear(
    features: NDArray[np.float32], task: Classification, method: str, seeds: int, seed: int
) -> Probed:
    if method == "adamw":
        return adamw_probe(features, task.labels, task.test, seeds=seeds, seed=seed)
    (probed,) = linear_probe([features], task.labels, task.test, seeds=seeds, seed=seed)
    return probed


def _measured(probed: Probed, task: Classification, documents: Documents | None) -> Measured:
    test = task.labels[task.test]
    classes, counts = np.unique(task.labels[~task.test], return_counts=True)
    estimates = {
        "accuracy": probed.by_document(),
        "accuracy_over_seeds": probed.over_seeds(),
        "constant_answer": mean(test == classes[counts.argmax()]),
        "chance": Estimate(value=1 / len(classes), stderr=0.0, n=len(test)),
    }
    if task.best is not None:
        estimates["bayes_accuracy"] = task.best
    rows = [Row(metric=m, estimate=e, unit="fraction") for m, e in estimates.items()]
    if documents is not None and documents.truncated:
        cut = Estimate(value=float(documents.truncated), stderr=None, n=len(documents.ids))
        rows.append(Row(metric="documents_truncated", estimate=cut, unit="documents"))
    arrays = {"accuracy_of_seed": probed.correct.mean(axis=1)}
    if np.isfinite(probed.strength).all():
        arrays["ridge"] = probed.strength
    return Measured(rows=tuple(rows), arrays=arrays)
