"""Promises of `lib.network`: a certificate that nobody trusts is named as what it is, whichever client meets it."""

import ssl
import urllib.error

import pytest
from huggingface_hub import HfFileSystem, close_session

from lib.data.kaggle import fetch
from lib.data.source import SourceError
from lib.data.stream import StreamSource
from lib.network import refused_certificate, split_query
from lib.runs.tracking import why_offline
from lib.scores.features import FeaturesError, open_backbone
from tests.untrusted_proxy import untrusted_proxy

OPENSSL = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    for name in ("IMGAE_DX_CACHE", "KAGGLEHUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setattr("lib.data.stream._read.retry.wait", lambda state: 0)
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the certificates of the first call
    close_session()  # Hugging Face's client keeps the proxies of its first call
    HfFileSystem.clear_instance_cache()
    with untrusted_proxy(tmp_path, monkeypatch) as file:
        yield file
    close_session()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize(
    ("error", "reach"),
    [
        (SourceError, lambda: fetch("some/images/versions/3")),
        (SourceError, lambda: StreamSource("https://images.example/chests")),
        (SourceError, lambda: StreamSource("https://images.example/chests/a.parquet?sig=b")),
        (SourceError, lambda: StreamSource("hf://datasets/some/images")),
        (FeaturesError, lambda: open_backbone("resnet18")),
    ],
)
def test_what_is_downloaded_through_an_untrusted_proxy_says_that_its_certificate_was_refused(certificate, error, reach):
    with pytest.raises(error) as refusal:
        reach()
    assert "certificate was refused (self-signed certificate)" in str(refusal.value)
    assert "SSL_CERT_FILE and REQUESTS_CA_BUNDLE" in str(refusal.value)
    assert "connect to the internet" not in str(refusal.value)


def test_the_tracker_says_so_too(certificate):
    assert "certificate was refused (self-signed certificate)" in why_offline("https://api.wandb.example", "a" * 40)


def test_the_variables_that_the_message_names_are_the_remedy(certificate, monkeypatch):
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, str(certificate))
    for reach in (lambda: open_backbone("resnet18"), lambda: fetch("some/images/versions/3")):
        with pytest.raises((FeaturesError, SourceError)) as refusal:
            reach()
        assert "self-signed" not in str(refusal.value)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ssl.SSLCertVerificationError(1, OPENSSL), "self-signed certificate"),
        (urllib.error.URLError(ssl.SSLCertVerificationError(1, OPENSSL)), "self-signed certificate"),
        (
            OPENSSL.replace("self-signed certificate", "Hostname mismatch, certificate is not valid"),
            "Hostname mismatch",
        ),
        (
            "Post: tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "certificate signed",
        ),
        ("server certificate verification failed. CAfile: none", "nobody known here vouches for it"),
        (TimeoutError("timed out"), ""),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), ""),
    ],
)
def test_a_refused_certificate_is_known_by_what_openssl_curl_and_go_say(error, why):
    assert refused_certificate(error).startswith(f"the server's certificate was refused ({why}" if why else "")
    assert bool(refused_certificate(error)) == bool(why)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("https://a/b/?sig=c/d", ("https://a/b", "?sig=c/d")),
        ("https://a/b", ("https://a/b", "")),
        ("bucket/part-?.parquet", ("bucket/part-?.parquet", "")),
    ],
)
def test_a_query_is_split_from_what_a_web_server_calls_a_path(path, parts):
    assert split_query(path) == parts
