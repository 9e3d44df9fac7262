"""Real servers on loopback: one that speaks S3, one that speaks SFTP, and a bad road to either."""

import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_SFTP = """
import asyncio, sys, asyncssh

class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True
    def password_auth_supported(self):
        return True
    def validate_password(self, username, password):
        return password == "open-sesame-9"

class Files(asyncssh.SFTPServer):
    def __init__(self, chan):
        super().__init__(chan, chroot=sys.argv[1])

async def main():
    await asyncssh.listen("127.0.0.1", int(sys.argv[2]), server_factory=Server,
                          server_host_keys=[sys.argv[3]], sftp_factory=Files)
    await asyncio.Event().wait()

asyncio.run(main())
"""

KEY_ID, SECRET = "AKIAABCDEFGHIJKLMNOP", "a-secret-of-s3-that-nobody-sees"
PASSWORD = "open-sesame-9"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _await_port(port: int, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"no server at {port}")


class _Process:
    """A server in a process of its own, which ends with the test."""

    def start(self, command: list[str], port: int) -> None:
        self.port = port
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _await_port(port, self._process)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class S3(_Process):
    """A bucket named ``bucket``."""

    def __init__(self) -> None:
        port = free_port()
        self.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port)
        self.client().create_bucket(Bucket="bucket")

    def client(self):
        import boto3

        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET,
        )  # fmt: skip

    def environment(self, port: int | None = None) -> dict[str, str]:
        """What a process needs to find it, perhaps by another road."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
        }

    def names(self, prefix: str) -> set[str]:
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
        )
        found = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return {name.removeprefix(prefix).lstrip("/") for name in found}

    def put_folder(self, folder: Path, prefix: str) -> None:
        for file in folder.rglob("*"):
            if file.is_file():
                key = f"{prefix}/{file.relative_to(folder).as_posix()}"
                self.client().put_object(Bucket="bucket", Key=key, Body=file.read_bytes())


class Sftp(_Process):
    """The folder ``root`` as the top of a server of user ``me``."""

    def __init__(self, folder: Path) -> None:
        import asyncssh

        self.root = folder / "root"
        self.root.mkdir(parents=True)
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(folder / "host_key"))
        port = free_port()
        self.hosts = folder / "known_hosts"
        public = key.export_public_key().decode().strip()
        self.hosts.write_text(f"[127.0.0.1]:{port} {public}\n")
        self.start([sys.executable, "-c", _SFTP, str(self.root), str(port),
                    str(folder / "host_key")], port)  # fmt: skip

    def url(self, path: str) -> str:
        return f"sftp://me:{PASSWORD}@127.0.0.1:{self.port}/{path}"

    def environment(self) -> dict[str, str]:
        return {"FSSPEC_SFTP": json.dumps({"known_hosts": str(self.hosts)})}


class Road:
    """Forwards connections to a port: as many bytes at once, and until it breaks.

    Attributes:
        cut_after: bytes of answers after which a connection breaks, one entry a connection.
        pause: seconds before each piece that is passed on.
        closed: whether every connection is refused.
        bytes: passed on, both ways.
        breaks: connections that were cut.
    """

    def __init__(self, port: int) -> None:
        self._to, self.cut_after, self.pause = port, list[int](), 0.0
        self.closed, self.breaks = False, 0
        self.bytes, self._open = 0, list[socket.socket]()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def cut(self) -> None:
        """Break every connection that stands."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            if self.closed:
                near.close()
                continue
            self._open.append(near)
            far = socket.create_connection(("127.0.0.1", self._to))
            limit = self.cut_after.pop(0) if self.cut_after else None
            threading.Thread(target=self._carry, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, limit), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        try:
            while data := source.recv(65_536):
                if self.pause:
                    time.sleep(self.pause)
                self.bytes += len(data)
                if limit is not None and (limit := limit - len(data)) <= 0:
                    self.breaks += 1
                    break
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
