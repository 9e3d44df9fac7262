"""Text from files and servers made fit to be shown and kept: nothing unseen in it, no secret.

A name in a file can hold escape codes that repaint a terminal, marks that turn the direction of the
text around it, or half a character that no encoding can write. A message can hold the address of a
server with a password in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "[hidden]"
_SHORTEST_SECRET = 8  # a value such as "1" or "true" is no secret, and would be found everywhere
_LONGEST = 20_000

# controls but for the tab and the line end, marks of direction and of no width, half characters
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff]"
)
_BREAKS = re.compile("[\t\n]")
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_KEY(_ID)?|PRIVATE_KEY)($|_)",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
_LOGIN_IN_PATH = re.compile(r"(?<=[a-z0-9]:/)[^/\s@'\":]+:[^/\s@'\"]*@")  # of two slashes one left
_PARAMETER = re.compile(
    r"([?&;](?:X-Amz-[\w-]+|X-Goog-[\w-]+|AWSAccessKeyId|Key-Pair-Id|Signature|Policy|sig|sv"
    r"|(?:[\w-]*[_-])?(?:token|secret|password|key|credential)s?)=)[^&\s'\"#)>]+",
    re.IGNORECASE,
)
_ISSUED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|sk-[A-Za-z0-9_-]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,})"
)


def visible(text: object, *, lines: bool = False) -> str:
    r"""Text in which every mark that cannot be seen is a replacement character.

    Args:
        text: anything; its ``str`` is taken.
        lines: whether line ends and tabs stay, as in a message of several lines.

    >>> visible("a\x1b[31m\u202eb\nc")
    'a�[31m�b�c'
    """
    clean = _UNSEEN.sub("\ufffd", str(text))
    return clean if lines else _BREAKS.sub("\ufffd", clean)


def redacted(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Text without secrets: logins and keys in addresses, tokens, values of secret variables.

    A variable is secret by its name: HF_TOKEN, AWS_SECRET_ACCESS_KEY, WANDB_API_KEY and their
    like.

    Args:
        text: of a message or a file.
        environ: the environment; that of this process where None.

    >>> redacted("sftp:/me:secret@host/run", {})
    'sftp:/[hidden]@host/run'
    >>> redacted("s3://me:secret@host/run?X-Amz-Signature=abc&part=2", {})
    's3://[hidden]@host/run?X-Amz-Signature=[hidden]&part=2'
    """
    for name, value in (os.environ if environ is None else environ).items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    if "://" in text:
        text = _LOGIN.sub(f"{HIDDEN}@", text)
        text = _PARAMETER.sub(rf"\g<1>{HIDDEN}", text)
    if ":/" in text:
        text = _LOGIN_IN_PATH.sub(f"{HIDDEN}@", text)
    return _ISSUED.sub(HIDDEN, text)


def message(text: str) -> str:
    r"""A message of several lines fit to be shown and kept: visible, redacted, of finite length.

    >>> message("line 1\nline 2 of s3://key:word@host")
    'line 1\nline 2 of s3://[hidden]@host'
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]} ... and {len(text) - _LONGEST:,} characters more"
    return redacted(visible(text, lines=True))
