"""Kafka security settings in librdkafka's names, as Faust wants them."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

from faust.auth import Credentials, SASLCredentials, SSLCredentials

from shared.bus.errors import Fatal

log = logging.getLogger(__name__)

_USED = frozenset(
    {
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
        "enable.ssl.certificate.verification",
    }
)
_PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def credentials(kafka: Mapping[str, str]) -> Credentials | None:
    """Credentials from `security.protocol`, `sasl.*` and `ssl.*`; None for plain text.

    Other keys are librdkafka's own and do nothing here; their names are logged. Raises Fatal for
    what Faust cannot do, rather than connect with less security than asked for.
    """
    ignored = sorted(set(kafka) - _USED)
    if ignored:
        log.warning("settings of librdkafka that ingest does not use: %s", ", ".join(ignored))
    protocol = kafka.get("security.protocol", "PLAINTEXT").upper()
    match protocol:
        case "PLAINTEXT":
            return None
        case "SSL":
            return SSLCredentials(_ssl_context(kafka))
        case "SASL_PLAINTEXT":
            return _sasl(kafka, None)
        case "SASL_SSL":
            return _sasl(kafka, _ssl_context(kafka))
        case _:
            raise Fatal(f"security.protocol {protocol!r} is not one that ingest knows")


def _sasl(kafka: Mapping[str, str], context: ssl.SSLContext | None) -> Credentials:
    mechanism = kafka.get("sasl.mechanism", kafka.get("sasl.mechanisms", "PLAIN")).upper()
    if mechanism not in _PASSWORD_MECHANISMS:
        known = ", ".join(_PASSWORD_MECHANISMS)
        raise Fatal(f"sasl.mechanism {mechanism!r} is not one that ingest knows: {known}")
    username, password = kafka.get("sasl.username"), kafka.get("sasl.password")
    if not username or not password:
        raise Fatal("sasl.username and sasl.password are needed for SASL")
    return SASLCredentials(
        username=username, password=password, ssl_context=context, mechanism=mechanism
    )


def _ssl_context(kafka: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=kafka.get("ssl.ca.location"), cadata=kafka.get("ssl.ca.pem")
        )
        with _file_of(kafka, "ssl.certificate") as certificate, _file_of(kafka, "ssl.key") as key:
            if certificate:
                context.load_cert_chain(certificate, key, kafka.get("ssl.key.password"))
    except OSError as error:  # ssl.SSLError is one too
        raise Fatal(f"the certificates of ssl.* cannot be used: {error}") from error
    if kafka.get("ssl.endpoint.identification.algorithm", "https").lower() in ("none", ""):
        context.check_hostname = False
    if kafka.get("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _file_of(kafka: Mapping[str, str], name: str) -> Iterator[str | None]:
    """The file at `name.location`, or one with what `name.pem` says: `ssl` reads files alone. It
    is readable to this user alone, and gone afterwards."""
    pem = kafka.get(f"{name}.pem")
    if pem is None:
        yield kafka.get(f"{name}.location")
        return
    with NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        yield file.name
