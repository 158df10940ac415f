"""Both ports speak TLS when TensorFlow Serving's SSL configuration is given."""

import json
import shutil
import ssl
import subprocess
import urllib.request

import pytest

from preprocessing.errors import InputError
from serving.client import Client
from serving.engine.settings import TLSSettings
from serving.protocol.errors import RequestError
from serving.server.config_files import read_tls
from tests.serving import served


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(key, certificate) for localhost, as PEM texts."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return (folder / "key.pem").read_text(), (folder / "cert.pem").read_text()


def config_text(key, cert, **more):
    fields = {"server_key": key, "server_cert": cert, **more}
    return "\n".join(f"{name}: {json.dumps(value)}" for name, value in fields.items())


def test_both_ports(certificate, toy_folder, tmp_path):
    key, cert = certificate
    (tmp_path / "ssl.txt").write_text(config_text(key, cert))
    settings = served.settings(toy_folder, tls=read_tls(str(tmp_path / "ssl.txt")))
    with served.running(settings) as server:
        for target in (server.grpc, server.rest):
            with Client(target, model="toy", root_certificates=cert.encode()) as client:
                assert client.predict("single", text=["abc"])["length"].tolist() == [3]
        assert server.rest.startswith("https://")
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(server.rest, timeout=5)
        with pytest.raises(RequestError):
            Client(server.grpc, model="toy", timeout=1, tries=1).predict("single", text=["abc"])


def test_clients_without_a_certificate_are_turned_away(certificate, toy_folder):
    key, cert = certificate
    with served.running(served.settings(toy_folder, tls=TLSSettings(key, cert, cert, client_verify=True))) as server:
        with pytest.raises(RequestError):
            Client(server.grpc, model="toy", root_certificates=cert.encode(), timeout=1, tries=1).versions()
        context = ssl.create_default_context(cadata=cert)
        with pytest.raises(OSError):  # noqa: PT011 - refused in the handshake or at the first byte
            urllib.request.urlopen(server.rest, context=context, timeout=5).read()


def test_bad_files(certificate, tmp_path):
    path = tmp_path / "ssl.txt"
    path.write_text('server_key: "x"')
    with pytest.raises(InputError, match=r"ssl\.txt: TLS needs server_key and server_cert"):
        read_tls(str(path))
    with pytest.raises(InputError, match=r"none\.txt: cannot be read"):
        read_tls(str(tmp_path / "none.txt"))
    key, cert = certificate
    with pytest.raises(InputError, match="client_verify needs a custom_ca"):
        TLSSettings(key, cert, client_verify=True)
    server = served.running(served.settings(tmp_path, tls=TLSSettings("x", cert)))
    with pytest.raises(InputError, match="must be PEM texts that belong together"), server:
        pass
