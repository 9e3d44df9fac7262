"""Who is answered: this machine alone, or whoever has the token; and what a browser may do.

A page of another site must not reach the server through the browser of somebody who may: the Host
header stops names that were bound to this machine from outside (DNS rebinding), the token is never
taken from a cookie that another site makes the browser send, and no other origin reads an answer.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from isoloss.errors import BadRequest, of_reading
from isoloss.report.server.answers import Problem
from isoloss.safe_text import visible

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SHORTEST = 16
_LONGEST = 500  # characters of a line about what went wrong
_LOCAL = ("localhost", "127.0.0.1", "::1")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_POLICY = b"content-security-policy"
_CLOSED = b"default-src 'none'; frame-ancestors 'none'"
_DENIED = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>isoloss</title>
<p>This server asks for a token. <a href="">Try again</a> if you have just given it.</p>
<form method="get"><label>token <input type="password" name="token" autocomplete="off"></label>
<button>open</button></form></html>"""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_token(token: str) -> str:
    """A token that cannot be guessed and can stand in a header.

    Raises:
        BadRequest: it is short, or holds spaces or marks beyond ASCII.
    """
    if len(token) < _SHORTEST or not re.fullmatch(r"[!-~]+", token):
        raise BadRequest(
            "the token can be guessed, or cannot stand in a header.",
            asked=f"{len(token)} characters",
            nearest=f"{_SHORTEST} letters and digits or more",
            remedy="leave it out and one is made, or:"
            " python -c 'import secrets; print(secrets.token_urlsafe())' > token.txt",
        )
    return token


class Guard:
    """Answers for an application who may not be answered by it.

    Args:
        app: the application.
        host: the address it listens to.
        port: its port, which tells the cookies of two servers apart.
        token: what everybody must have; None asks nobody, on this machine alone.
    """

    def __init__(self, app: App, *, host: str, port: int, token: str | None) -> None:
        self._app, self._token = app, token
        self._cookie = f"isoloss-{port}"
        # elsewhere a token is asked, and nobody knows by which names this machine is called
        self._hosts = {*_LOCAL, host.lower()} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] != "http":  # what it does at the start; web sockets there are none
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {key: value.decode("latin-1") for key, value in scope["headers"]}
        if self._hosts is not None and _name(headers.get(b"host", "")) not in self._hosts:
            what, remedy = "the server has another name.", "open the address that was printed"
            await _refuse(send, 421, what, headers.get(b"host"), remedy)
        elif _is_foreign(headers):
            await _refuse(send, 403, "a page of another site asks.", None, "open the page itself")
        elif self._token is None or self._knows(headers):
            await self._let(scope, receive, send)
        elif self._asks(scope, "token"):
            await self._admit(scope, send)
        else:
            await self._deny(headers, send)

    async def _let(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; what it did not foresee is told in one line."""
        has_begun = False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, _sealed(noted))
        except Exception as error:  # it was answered where it was met
            text = visible(f"{scope['path']}: {type(error).__name__}: {error}")
            print(text[:_LONGEST], file=sys.stderr)
        except BaseException as error:
            if type(error).__module__ != "pyo3_runtime" or has_begun:
                raise
            told = of_reading(error)  # a panic of Polars is no Exception
            await _refuse(send, 503, told.what, told.asked, told.remedy)

    def _knows(self, headers: dict[bytes, str]) -> bool:
        kind, _, word = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(word.strip()):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get(b"cookie", ""))
        except CookieError:
            return False
        given = cookies[self._cookie].value if self._cookie in cookies else ""
        return hmac.compare_digest(given.encode(), self._pass().encode())

    def _is_token(self, word: str) -> bool:
        return hmac.compare_digest(word.encode(), (self._token or "").encode())

    def _pass(self) -> str:
        """What the cookie holds: made from the token, and it does not tell it."""
        return hmac.new((self._token or "").encode(), b"isoloss cookie", hashlib.sha256).hexdigest()

    def _asks(self, scope: Scope, name: str) -> bool:
        words = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        return self._is_token(words.get(name, ""))

    async def _admit(self, scope: Scope, send: Send) -> None:
        """Take the token out of the address, and give a cookie for it."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = urlencode([(key, value) for key, value in pairs if key != "token"])
        # two slashes in front would lead to another machine
        path = "/" + scope.get("raw_path", b"/").decode("latin-1").partition("?")[0].lstrip("/\\")
        cookie = f"{self._cookie}={self._pass()}; Path=/; HttpOnly; SameSite=Strict"
        headers = [(b"location", (path + ("?" + rest if rest else "")).encode("latin-1")),
                   (b"set-cookie", cookie.encode())]  # fmt: skip
        await _answer(send, 303, b"", b"text/plain", headers)

    async def _deny(self, headers: dict[bytes, str], send: Send) -> None:
        if "text/html" in headers.get(b"accept", ""):
            policy = (_POLICY, b"default-src 'none'; form-action 'self'; frame-ancestors 'none'")
            await _answer(send, 401, _DENIED.encode(), b"text/html; charset=utf-8", [policy])
            return
        await _refuse(send, 401, "a token is needed.", None,
                      "send it as `Authorization: Bearer TOKEN`, or open the address that"
                      " isoloss serve printed", [(b"www-authenticate", b"Bearer")])  # fmt: skip


def _name(host: str) -> str:
    """A Host header without its port."""
    return re.sub(r":\d*$", "", host.strip().lower()).strip("[]")


def _is_foreign(headers: dict[bytes, str]) -> bool:
    """Whether another site's page makes a browser ask, other than by a link to this one."""
    site = headers.get(b"sec-fetch-site", "none")
    return site in {"cross-site", "same-site"} and (
        headers.get(b"sec-fetch-mode") != "navigate"
        or headers.get(b"sec-fetch-dest", "document") != "document"
    )


def _sealed(send: Send) -> Send:
    """Add the headers that every answer has, and the closed policy where it brings none."""

    async def sealed(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            there = {key for key, _ in message.get("headers", ())}
            policy = () if _POLICY in there else ((_POLICY, _CLOSED),)
            message["headers"] = [*message.get("headers", ()), *_HEADERS, *policy]
        await send(message)

    return sealed


async def _refuse(
    send: Send,
    status: int,
    what: str,
    asked: str | None,
    remedy: str,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    told = BadRequest(what, asked=asked, remedy=remedy)
    body = Problem(error="BadRequest", what=told.what, asked=told.asked, remedy=told.remedy)
    text = body.model_dump_json().encode()
    await _answer(send, status, text, b"application/json", headers or [])


async def _answer(
    send: Send, status: int, body: bytes, kind: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    length = str(len(body)).encode()
    fixed = [(b"content-type", kind), (b"content-length", length), (b"cache-control", b"no-store")]
    sealed = _sealed(send)
    await sealed({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await sealed({"type": "http.response.body", "body": body})
