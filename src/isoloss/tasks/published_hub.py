"""Data sets on the hub: the files of one revision, fetched once, and the commit they came from.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are honoured by the library
underneath, which keeps what it fetched.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

from isoloss.errors import BadRequest
from isoloss.models.hub import HubUnreachable


class Fetched(NamedTuple):
    """A folder of files and the commit of the repository they were read from."""

    folder: Path
    commit: str


@functools.cache
def fetch(repo: str, revision: str, patterns: tuple[str, ...]) -> Fetched:
    """The files of a hub data set that match some patterns.

    Args:
        repo: the data set's name.
        revision: a branch, tag or commit.
        patterns: of file names, as in ``fnmatch``.

    Returns:
        The folder that holds them. Offline, what was fetched before.

    Raises:
        BadRequest: there is no such data set or revision, or it may not be read.
        HubUnreachable: the hub does not answer and the files were not fetched before.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    asked = f"{repo}@{revision}"
    try:
        folder = Path(
            snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
            )
        )
    except RevisionNotFoundError as error:
        raise BadRequest(
            f"The data set {repo} has no revision {revision!r}.",
            asked=asked,
            nearest="main",
            remedy='correct what stands after "@" in published',
        ) from error
    except RepositoryNotFoundError as error:  # a gated one too
        raise BadRequest(
            f"There is no data set {repo!r} on the hub, or your token may not read it.",
            asked=asked,
            remedy="set HF_TOKEN, or give a local copy: path = FILE",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, ConnectionError, TimeoutError) as error:
        raise HubUnreachable(
            f"The data set {repo} cannot be fetched and was not fetched before.",
            asked=asked,
            remedy="go online (HF_HUB_OFFLINE unset) and run it once, or give a local copy:"
            " path = FILE",
        ) from error
    return Fetched(folder=folder, commit=folder.name)
