"""Certificates for the tests of channels."""

import ssl

import pytest
import trustme

from postroom.secret import Secret
from workers.channels.smtp_session import SmtpTimeouts

QUICK = SmtpTimeouts(
    resolve=1, connect=1, greeting=0.3, command=0.3, data_init=0.3, data_block=0.3, data_done=0.5, quit=0.2
)
LOGIN = {"username": "emailapikey", "password": Secret("open sesame")}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")
