"""Whoever we speak to has to prove who it is."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask

import config
from app import db, fx, mail
from app.gateways import http
from app.gateways.base import NoAnswer


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A server on this machine whose certificate nobody vouches for: its port, and what it was told."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path / "server.pem"
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *private) + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    heard: list[bytes] = []
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                line, _ = door.accept()
                with suppress(OSError), line, context.wrap_socket(line, server_side=True) as safe:
                    heard.append(safe.recv(1000))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield door.getsockname()[1], heard
    door.shutdown(socket.SHUT_RDWR)
    door.close()
    thread.join(5)


def test_a_processor_with_a_strange_certificate_is_told_nothing(stranger: tuple[int, list[bytes]]) -> None:
    port, heard = stranger
    with pytest.raises(NoAnswer) as refused:
        http.call("POST", f"https://localhost:{port}/v1", body=b"secret", headers={"Authorization": "Bearer secret"})
    assert "certificate verify failed" in refused.value.detail.lower()
    assert b"".join(heard) == b""


def test_a_feed_with_a_strange_certificate_is_not_read(app: Flask, settings: config.Settings, stranger: tuple[int, list[bytes]]) -> None:
    port, heard = stranger
    config.use(replace(settings, fx_url=f"https://localhost:{port}/rates.xml"))
    try:
        with pytest.raises(fx.FeedRefused, match="certificate"):
            fx.fetch()
    finally:
        config.use(settings)
    assert b"".join(heard) == b""


def test_a_mail_server_with_a_strange_certificate_gets_no_password_and_no_mail(
    app: Flask, settings: config.Settings, stranger: tuple[int, list[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    port, heard = stranger
    with db.transaction():
        mail.enqueue("notice", "anna@example.com", "Hello", "Text\n", key="k")
    config.use(replace(settings, mail_url=f"smtps://robot:secret@localhost:{port}"))
    try:
        assert mail.deliver() == 0
    finally:
        config.use(settings)
    assert "certificate verify failed" in caplog.text
    assert b"".join(heard) == b""
    assert db.scalar("select sent_at is null from mails where key = 'k'")


@pytest.mark.parametrize("name", ["STRIPE_API_BASE", "PAYPAL_API_BASE", "BTCPAY_URL", "NOWPAYMENTS_API_BASE"])
def test_a_key_is_never_sent_without_tls(name: str) -> None:
    given = {"DATABASE_URL": "postgresql://localhost/x", "SECRET_KEY": "k" * 32}
    if name == "BTCPAY_URL":
        given |= {"BTCPAY_STORE_ID": "s", "BTCPAY_API_KEY": "k", "BTCPAY_WEBHOOK_SECRET": "w"}
    for url in ("http://api.example.com", "ftp://api.example.com", "//api.example.com", "https://"):
        with pytest.raises(config.ConfigError, match="must begin with https://"):
            config.load({**given, name: url})
