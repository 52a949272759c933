"""Addresses of the network, and what went wrong there, in words that say what to do."""

import re
from collections.abc import Iterator

REFUSED = re.compile(
    r"CERTIFICATE_VERIFY_FAILED.*?certificate verify failed:? ?([\w' -]*)|x509: ([\w' -]*)"  # OpenSSL, Go
    r"|certificate verif\w+ failed|SEC_E_UNTRUSTED_ROOT",  # curl, Windows
    re.S,
)


def refused_certificate(error: BaseException | str) -> str:
    """Return that a server's certificate was refused, and what to do; "" if the error comes from something else.

    The error may also be what a program has printed.
    """
    texts = [error] if isinstance(error, str) else map(str, causes(error))
    found = next(filter(None, map(REFUSED.search, texts)), None)
    if found is None:
        return ""
    why = next(filter(None, found.groups()), "nobody known here vouches for it").strip()
    return (
        f"the server's certificate was refused ({why}); if a proxy or firewall signs with an authority of its own, set "
        "the environment variables SSL_CERT_FILE and REQUESTS_CA_BUNDLE (for s3:// also AWS_CA_BUNDLE) to the file of "
        "that authority's certificate, and run again"
    )


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, and one after the other those that it comes from."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def split_query(path: str) -> tuple[str, str]:
    """Return a path without and with only its query, such as a web server's signature; elsewhere ? is a character."""
    plain, mark, query = path.partition("?") if path.lower().startswith("http") else (path, "", "")
    return plain.rstrip("/"), mark + query
