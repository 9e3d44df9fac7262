"""Checkpoints in a hub repository: listed and described without downloading a weight.

``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` are honoured by the library underneath.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

from isoloss.errors import BadStudy, CheckpointMissing, IsolossError, nearest_name
from isoloss.family import Hub
from isoloss.models.revisions import Revision, parse_revisions

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class HubUnreachable(IsolossError):
    """The hub does not answer: check the network, or wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository as the hub lists it.

    Attributes:
        name: its name in the top folder.
        bytes: its size.
        sha256: its digest where it lies in large-file storage, as weights do.
        git_blob: its git object id, the digest of small files.
    """

    name: str
    bytes: int
    sha256: str | None
    git_blob: str


def list_revisions(repo: str, pattern: str) -> tuple[Revision, ...]:
    """The branches and tags of a repository that follow a pattern, by trajectory and step.

    Raises:
        BadStudy: the pattern is wrong, or there is no such repository.
        HubUnreachable: the hub does not answer.
    """
    return parse_revisions(pattern, _list_refs(repo).items())


def list_files(source: Hub) -> tuple[HubFile, ...]:
    """The files in the top folder of a revision, by name; none is downloaded.

    Raises:
        CheckpointMissing: there is no such revision; the nearest is named.
        BadStudy: there is no such repository.
        HubUnreachable: the hub does not answer.
    """
    from huggingface_hub import RepoFile

    revision = source.commit or source.revision
    with _asking(source):
        entries = list(_api().list_repo_tree(source.repo, revision=revision))
    files = [
        HubFile(
            name=entry.path,
            bytes=entry.size,
            sha256=entry.lfs.sha256 if entry.lfs else None,
            git_blob=entry.blob_id,
        )
        for entry in entries
        # a name that leaves the folder is no file of it, whatever the server says
        if isinstance(entry, RepoFile) and "/" not in entry.path
    ]
    return tuple(sorted(files, key=lambda file: file.name))


def pin(source: Hub) -> Hub:
    """The same source with the commit its revision points to now.

    Raises:
        CheckpointMissing: there is no such revision; the nearest is named.
        BadStudy: there is no such repository.
        HubUnreachable: the hub does not answer.
    """
    if source.commit:
        return source
    with _asking(source):
        commit = _api().model_info(source.repo, revision=source.revision).sha
    if commit is None:
        raise HubUnreachable(
            "the hub names no commit for the revision.",
            asked=str(source),
            remedy="check HF_ENDPOINT: the server does not speak the hub's interface",
        )
    return Hub(repo=source.repo, revision=source.revision, commit=commit)


class HubFiles:
    """The files of a hub revision, read by range requests; see ``files.Files``."""

    def __init__(self, source: Hub) -> None:
        self._source = pin(source)

    def __str__(self) -> str:
        return str(self._source)

    @property
    def commit(self) -> str | None:
        """The commit that the revision pointed to when first asked."""
        return self._source.commit

    @cached_property
    def listing(self) -> dict[str, HubFile]:
        """What the hub says about each file, by name."""
        return {file.name: file for file in list_files(self._source)}

    def sizes(self) -> dict[str, int]:
        """Bytes of every file of the top folder, by name."""
        return {name: file.bytes for name, file in self.listing.items()}

    def read(self, name: str, start: int, length: int) -> bytes:
        """Bytes ``start`` to ``start + length`` of one file, and no more of it."""
        if length <= 0:
            return b""
        wanted = bytearray()
        with _asking(self._source), _stream(self._source, name, start, length) as chunks:
            for chunk in chunks:
                wanted += chunk
                if len(wanted) >= length:
                    break
        return bytes(wanted[:length])

    def digest(self, name: str) -> str:
        """The listed sha256 of a file; a file outside large-file storage is small and is read."""
        file = self.listing[name]
        return file.sha256 or hashlib.sha256(self.read(name, 0, file.bytes)).hexdigest()


@contextmanager
def stream_file(source: Hub, name: str, start: int) -> Iterator[Iterator[bytes]]:
    """The bytes of a file from ``start`` on, in chunks, for a download that may go on.

    Raises:
        HubUnreachable: the connection failed or broke; what was read until then is good.
    """
    with _asking(source), _stream(source, name, start, None) as chunks:
        yield chunks


@contextmanager
def _stream(source: Hub, name: str, start: int, length: int | None) -> Iterator[Iterator[bytes]]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        build_hf_headers,
        hf_raise_for_status,
        http_stream_backoff,
    )

    url = hf_hub_url(source.repo, name, revision=source.commit or source.revision)
    last = "" if length is None else start + length - 1
    # a compressed answer would shift the range
    headers = build_hf_headers() | {"Range": f"bytes={start}-{last}", "Accept-Encoding": "identity"}
    with http_stream_backoff(
        "GET",
        url,
        headers=headers,
        timeout=HF_HUB_DOWNLOAD_TIMEOUT,  # of silence; there is none unless one is passed
        retry_on_exceptions=(),  # a retry would put a second answer in the middle of the first
    ) as response:
        hf_raise_for_status(response)
        # 200 is a server that ignored the range and sends the file from its first byte
        skip = start if response.status_code == 200 else 0
        yield _after(skip, response.iter_bytes())


def _after(skip: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if skip < len(chunk):
            yield chunk[skip:]
        skip = max(skip - len(chunk), 0)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi()


def _list_refs(repo: str) -> dict[str, str]:
    with _asking(Hub(repo=repo, revision="main")):
        refs = _api().list_repo_refs(repo)
    return {ref.name: ref.target_commit for ref in [*refs.tags, *refs.branches]}


@contextmanager
def _asking(source: Hub) -> Iterator[None]:
    """Turn the hub's errors into ours."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # the library's HTTP client changed its name between versions 1 and 2; its base stayed here
    http_error = cast(type[Exception], HfHubHTTPError.__bases__[0])
    try:
        yield
    except RevisionNotFoundError as error:
        raise _missing_revision(source) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise BadStudy(
            f"there is no repository {source.repo!r}, or your token may not read it.",
            asked=str(source),
            remedy="check the name, and for a private or gated one set HF_TOKEN",
        ) from error
    except OfflineModeIsEnabled as error:
        raise HubUnreachable(
            "the hub is not asked in offline mode.",
            asked=str(source),
            remedy="unset HF_HUB_OFFLINE, or name a folder with the weights",
        ) from error
    except (http_error, ConnectionError, TimeoutError) as error:
        raise HubUnreachable(
            f"the hub does not answer as it should: {str(error).splitlines()[0]}",
            asked=str(source),
            remedy="check the network and HF_ENDPOINT, then run the same command again:"
            " downloads go on where they were",
        ) from error


def _missing_revision(source: Hub) -> CheckpointMissing:
    names = sorted(_list_refs(source.repo))
    near = nearest_name(source.revision, names)
    return CheckpointMissing(
        f"{source.repo} has no revision {source.revision!r}.",
        asked=str(source),
        nearest=f"{near}     ({len(names)} revisions known)" if near else ", ".join(names[:5]),
        remedy=f"isoloss ls {source.repo} lists what there is",
    )
