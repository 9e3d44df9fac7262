"""Run a study on a Ray cluster, or on a Ray of this machine alone."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from isoloss.engine.local import RunSummary, run
from isoloss.engine.placement import Gpus
from isoloss.engine.progress import Progress
from isoloss.engine.ray_crew import Crew
from isoloss.engine.ray_hands import Patience
from isoloss.errors import BadRequest, DependencyMissing
from isoloss.places import shown, url_of
from isoloss.study import Study

_HERE = "local"  # Ray's own word for a cluster of this machine, started now
_SMALL = 1 << 27  # what goes through Ray are orders and answers
_GPU_SECONDS = 60.0  # for the nodes to say how large their GPUs are


def run_on_ray(
    study: Study,
    *,
    out: str | Path,
    address: str | None = None,
    only: Collection[str] = (),
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> RunSummary:
    """Measure a study with the workers of a Ray cluster; see :func:`isoloss.run`.

    The tables are those of a local run. Every node must see the store, the corpora and the tasks
    under the same paths; checkpoints of a hub are fetched once a node, into its own cache.

    Args:
        study: what to measure.
        out: the store; at a URL every node has a folder of its own that is kept like it.
        address: of the cluster, ``HOST:PORT`` or ``auto`` on one of its machines; where None that
            of ``RAY_ADDRESS``, or a Ray that this process starts for itself.
        only: probes to run; none runs all.
        progress: is told what happens.
        patience: how long to wait for a cell, and for nodes.

    Returns:
        Counts over all workers.

    Raises:
        DependencyMissing: Ray is not installed.
        BadRequest: there is no cluster at the address.
        WorkersLost: workers die before they begin.
        IsolossError: what stops all of them, such as a study that cannot be run.
    """
    where = address or os.environ.get("RAY_ADDRESS") or _HERE
    ray = _ray(where)
    with _connected(ray, where):
        crew = Crew(ray, study, tuple(only), _gpus(ray), patience or Patience())
        folder = url_of(out) or os.path.abspath(out)  # workers are started elsewhere
        summary = run(study, out=folder, only=only, progress=progress, hands=crew.measure)
    return replace(summary, store=shown(out))


def _ray(where: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of this run
    if where == _HERE and "ray" not in sys.modules:
        # Ray reads these when it is imported: listen to this machine alone, and there to
        # those that know a word; whoever can speak to Ray can run anything
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as error:
        raise DependencyMissing(
            "Ray is not installed.",
            asked="--engine ray",
            nearest="--devices and --shard need nothing more",
            remedy="pip install 'isoloss[ray]', here and on every node",
        ) from error
    return ray


@contextmanager
def _connected(ray: Any, where: str) -> Iterator[None]:
    """Be connected to a cluster until the block ends; a caller's own connection stays."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if where == _HERE:
        options |= {"include_dashboard": False, "object_store_memory": _SMALL}
    try:
        ray.init(address=where, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BadRequest(
            "cannot connect to the Ray cluster.",
            asked=f"{where}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            nearest="--address auto on a machine of the cluster",
            remedy="see `ray status` there; without --address a Ray of this machine alone is used",
        ) from error
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray tells of lost nodes on standard output
            yield
    finally:
        ray.shutdown()


def _gpus(ray: Any) -> Gpus:
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    if not nodes:
        return Gpus()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(gpu_memory).options(num_cpus=0, max_retries=0)
    answers = [
        ask.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    told, _ = ray.wait(answers, num_returns=len(answers), timeout=_GPU_SECONDS)
    sizes = []
    for answer in told:
        with contextlib.suppress(ray.exceptions.RayError):
            sizes.append(ray.get(answer))
    return Gpus(
        on_a_node=max(int(node["Resources"]["GPU"]) for node in nodes),
        memory_bytes=min((size for size in sizes if size), default=None),
    )


def gpu_memory() -> int | None:
    """Bytes of the smallest GPU of this machine, whoever uses it; None where nobody can tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return min(int(line) for line in listed.stdout.split()) << 20
    return None
