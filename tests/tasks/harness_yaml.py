"""Local lm-eval tasks over JSONL files, and a model for the harness that hashes its requests."""

import hashlib
import json

from lm_eval.api.model import LM


def write_task(folder, name, data, **settings):
    """A YAML task over a JSONL file; YAML reads JSON."""
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "metadata": {"version": 1.0},
        **settings,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(config))
    return folder


CHOICES = {
    "doc_to_text": "{{query}}",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}


def hashed_loglik(context, continuation):
    """A made-up log-likelihood and greedy verdict that depend on the exact texts sent."""
    digest = hashlib.sha256(f"{context}\x00{continuation}".encode()).digest()
    return -1 - digest[0] / 16 - digest[1] / 4096, digest[2] < 64


class HashedLM(LM):
    """Answers from hashes, so that any difference in a prompt shows in the scores."""

    def __init__(self, texts=("18",)):
        super().__init__()
        self.texts = texts

    def loglikelihood(self, requests):
        return [hashed_loglik(*request.args) for request in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError

    def generate_until(self, requests):
        return [hashed_text(request.args[0], self.texts) for request in requests]


def hashed_text(context, texts):
    """One of a few texts, by the hash of the context."""
    return texts[hashlib.sha256(context.encode()).digest()[0] % len(texts)]
