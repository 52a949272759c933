"""A proxy on loopback, as companies have them: it answers CONNECT, and speaks TLS with a certificate nobody trusts."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def untrusted_proxy(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Send all https of this process through the proxy; yield the file of its certificate."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl, which makes the certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    asked = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=a-proxy -keyout {key.name} -out {certificate.name}"
    subprocess.run(asked.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("https_proxy", "HTTPS_PROXY"):
            patch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            patch.delenv(name, raising=False)
        threading.Thread(target=_serve, args=(proxy, context), daemon=True).start()
        yield certificate


def _serve(proxy: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):  # the proxy is closed
        while True:
            client, _ = proxy.accept()
            threading.Thread(target=_answer, args=(client, context), daemon=True).start()


def _answer(client: socket.socket, context: ssl.SSLContext) -> None:
    with client, suppress(OSError):  # an ssl.SSLError is one: the client refuses the certificate
        while b"\r\n\r\n" not in client.recv(65536):
            pass
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with context.wrap_socket(client, server_side=True) as trusted:
            trusted.recv(65536)
            trusted.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
