"""What is known of the protocols of places: their packages, their promises, their errors."""

from __future__ import annotations

from typing import Any

from isoloss.errors import BadRequest, DependencyMissing
from isoloss.places.names import shown

OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "hf"}  # a put is seen whole
CREATE = {"s3", "s3a", "gs", "gcs", "memory"}  # the library's mode "create" is one request
EXCLUSIVE = {"file", "local", "sftp", "ssh"}  # the system opens a file only if it makes it
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "'isoloss[s3]'"),
    **dict.fromkeys(("sftp", "ssh"), "'isoloss[ssh]'"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
}
# what no second try mends
_FINAL = (PermissionError, NotADirectoryError, ImportError, TypeError)
_FINAL_NAMES = {
    "HostKeyNotVerifiable",
    "InvalidAccessKeyId",
    "NoSuchBucket",
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionDenied",
    "ProfileNotFound",
    "SFTPPermissionDenied",
    "SignatureDoesNotMatch",
}


def kind(url: str, protocol: str) -> Any:
    """The class of a protocol's file system.

    Raises:
        DependencyMissing: its package is not installed.
        BadRequest: there is no such protocol.
    """
    import fsspec  # type: ignore[import-untyped]

    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        raise DependencyMissing(
            f"the package for {protocol}:// is not installed.",
            asked=shown(url),
            nearest=None if package else line(error),
            remedy=f"pip install {package}" if package else "install the package that it names",
        ) from error
    except ValueError as error:
        raise BadRequest(
            f"there is no protocol {protocol}://.",
            asked=shown(url),
            nearest="s3://, gs://, hf://, sftp://, file://",
            remedy="write the address with one of these, or the path of a folder",
        ) from error


def wanted_options(protocol: str) -> dict[str, Any]:
    """What isoloss asks of a protocol's library where the user asks for nothing else."""
    from fsspec.config import conf  # type: ignore[import-untyped]

    given = {**conf.get("ssh", {}), **conf.get("sftp", {})}
    if protocol in {"sftp", "ssh"}:
        wanted: dict[str, Any] = {
            "known_hosts": (),  # the user's own file; the library would trust any server
            "keepalive_interval": 15,
            "connect_timeout": 15,
            "login_timeout": 30,
        }
        return {**wanted, **given}
    if protocol in {"file", "local"}:
        return {"auto_mkdir": True}
    wanted = {"use_listings_cache": False}
    if protocol in {"s3", "s3a"} and "config_kwargs" not in conf.get("s3", {}):
        wanted["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 30,
                                   "retries": {"total_max_attempts": 1}}  # fmt: skip
    return wanted


def fresh(protocol: str) -> dict[str, Any]:
    """The option by which a file is looked up anew."""
    return {"refresh": True} if protocol in {"s3", "s3a"} else {}


def is_final(error: Exception) -> bool:
    """Whether no second try would mend it."""
    return isinstance(error, _FINAL) or any(name in _told(error) for name in _FINAL_NAMES)


def is_taken(error: Exception) -> bool:
    """Whether a conditional request was refused because the file is there."""
    # the last: OpenSSH has one code for whatever fails
    marks = ("PreconditionFailed", "ConditionalRequestConflict", "SFTPFileAlready", "SFTPFailure")
    return isinstance(error, FileExistsError) or any(mark in _told(error) for mark in marks)


def _told(error: BaseException) -> str:
    """Kinds and words of an error and of those behind it: libraries wrap one in another."""
    words: list[str] = []
    at: BaseException | None = error
    while at is not None:
        words += [*(kind.__name__ for kind in type(at).__mro__), str(at)]
        at = at.__cause__
    return " ".join(words)


def line(error: BaseException) -> str:
    """The first line of what an error says."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0] + ("" if text.endswith(".") else ".")
