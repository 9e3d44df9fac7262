"""Names of places: a folder here, or a URL of an object store or of another machine."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from isoloss.safe_text import redacted

# one slash where a Path has taken the other away; one letter is a drive and no protocol
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)
_PASSWORD = re.compile(r"(?<=://)([^/\s@:]*):[^/\s@]*@")
_ABSOLUTE = {"file", "local"}


def url_of(place: str | Path) -> str | None:
    """The URL that a place is; None for a path of this machine.

    >>> url_of(Path("s3://bucket/run"))
    's3://bucket/run'
    >>> url_of("file:///data/run/")
    'file:///data/run'
    >>> url_of("runs/7b") is None
    True
    """
    match = _URL.fullmatch(str(place))
    if match is None:
        return None
    slashes = ":///" if match[1] in _ABSOLUTE else "://"
    return f"{match[1]}{slashes}{match[2].rstrip('/')}"


def protocol_of(url: str) -> str:
    """The protocol of a URL.

    >>> protocol_of("s3://bucket/run")
    's3'
    """
    return url.partition(":")[0]


def shown(place: str | Path) -> str:
    """A place as it may be shown and kept: without a login.

    >>> shown("sftp://me:word@host/run")
    'sftp://[hidden]@host/run'
    >>> shown(Path("s3://bucket/run"))
    's3://bucket/run'
    """
    return redacted(url_of(place) or str(place))


def folder_name(url: str) -> str:
    """A file name for a URL: one for each user of a server, and no password in it.

    >>> folder_name("s3://bucket/run")
    's3-bucket-run-03236a01105588c1'
    """
    without = _PASSWORD.sub(r"\1@", url)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", redacted(url)).strip("-.")[:64]
    return f"{plain}-{hashlib.sha256(without.encode()).hexdigest()[:16]}"


def cache_folder() -> Path:
    """Where isoloss keeps what it can compute or fetch again: ``$ISOLOSS_CACHE`` if set."""
    if named := os.environ.get("ISOLOSS_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "isoloss"
