"""A Redis behind TLS that knows its users: the settings of a store that is not our own.

A real server, and in front of it a terminator of TLS, as operators put one before servers that were
built without it.
"""

import contextlib
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import redis

from feature_store.contracts.errors import StoreError
from feature_store.online.store import open_store
from jobs.services.redis_program import server_program

pytestmark = pytest.mark.redis
SLOT = "derm:ctr:00000000:a:"


@dataclass(frozen=True)
class Server:
    """A server, and the authority that signed its certificate."""

    port: int
    authority: Path

    def url(self, user: str, *, scheme: str = "rediss") -> str:
        query = f"?ssl_ca_certs={self.authority}" if scheme == "rediss" else ""
        return f"{scheme}://{user}:secret-{user}@localhost:{self.port}/0{query}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *new, *names, *files], check=True, capture_output=True)
    rules = folder / "users.acl"
    rules.write_text(
        "user default off\n"
        "user writer on >secret-writer ~derm:* +@read +@write +@connection +info +cluster|slots\n"
        "user reader on >secret-reader ~derm:* +get +mget +client +hello +info\n"
    )
    command = [str(server_program()), "--port", str(_free_port()), "--bind", "127.0.0.1"]
    command += ["--save", "", "--aclfile", str(rules), "--dir", str(folder)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with Terminator(("127.0.0.1", 0), context, int(command[2])) as front:
        threading.Thread(target=front.serve_forever, daemon=True).start()
        found = Server(front.server_address[1], certificate)
        try:
            _await(found)
            yield found
        finally:
            front.shutdown()
            process.kill()
            process.wait()


class Terminator(socketserver.ThreadingTCPServer):
    """Takes TLS connections, and passes what they carry to a plain port."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, target: int) -> None:
        super().__init__(address, Relay)
        self.context, self.target = context, target

    def handle_error(self, *_: object) -> None:
        """A client that does not speak TLS is no news."""


class Relay(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Terminator)
        back = socket.create_connection(("127.0.0.1", server.target))
        with back, server.context.wrap_socket(self.request, server_side=True) as front:
            threading.Thread(target=_copy, args=(back, front), daemon=True).start()
            _copy(front, back)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(server: Server) -> None:
    for _ in range(400):
        with (
            contextlib.suppress(redis.ConnectionError),
            redis.Redis.from_url(server.url("writer")) as client,
        ):
            client.ping()
            return
        time.sleep(0.05)
    raise AssertionError("the server did not answer")


def write(url: str) -> None:
    with open_store(url).writer(SLOT) as writer:
        writer.write(pa.array(["u1", "u2"]), np.arange(16, dtype=np.uint8).reshape(2, 8))


def test_what_is_written_over_tls_by_one_user_another_may_only_read(server: Server) -> None:
    write(server.url("writer"))
    store = open_store(server.url("reader"))
    assert store.read(SLOT, ["u2", "nobody"]) == [bytes(range(8, 16)), None]
    with pytest.raises(StoreError, match="permission"):
        write(server.url("reader"))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(lambda s: s.url("writer", scheme="redis"), id="no-tls"),
        pytest.param(lambda s: s.url("writer").partition("?")[0], id="unknown-authority"),
        pytest.param(lambda s: s.url("nobody"), id="unknown-user"),
        pytest.param(lambda s: s.url("writer").replace("secret-writer", "wrong"), id="password"),
    ],
)
def test_who_is_not_let_in_gets_an_error_without_the_password(server: Server, url) -> None:
    with pytest.raises(StoreError) as refused:
        write(url(server))
    assert "secret" not in str(refused.value)
    assert "wrong" not in str(refused.value)
    assert f"localhost:{server.port}" in str(refused.value)
