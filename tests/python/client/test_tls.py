"""TLS: whom the client believes, and that a cut is an error."""

import datetime
import ssl

import pytest
import requests
import trustme
from support.client import keep_alive


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path):
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def context_for(certificate, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in options.items():
        setattr(context, name, value)
    return context


def answering(peer, head):
    peer.answer(str(peer.number).encode())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_trusted_and_reused(version, run, server, authority, trusted):
    context = context_for(authority.issue_cert("localhost"), maximum_version=version)
    url = server(keep_alive(answering), context=context).url

    def body():
        assert [requests.get(url, verify=trusted, timeout=5).content for _ in range(3)] == [b"1"] * 3
        # Another configuration is another connection.
        assert requests.get(url, verify=False, timeout=5).content == b"2"
        session = requests.Session()
        session.verify = trusted
        assert session.post(url, data="x", timeout=5).content == b"1"

    run(body)


def wrong_host(authority):
    return authority.issue_cert("elsewhere.example")


def expired(authority):
    then = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    return authority.issue_cert("localhost", not_before=then, not_after=then + datetime.timedelta(days=1))


def unknown_issuer(authority):
    return trustme.CA().issue_cert("localhost")


@pytest.mark.parametrize("make", [wrong_host, expired, unknown_issuer])
def test_not_to_be_believed(make, run, server, authority, trusted):
    seen = []
    handler = keep_alive(lambda peer, head: (seen.append(head), peer.answer(b"ok")))
    url = server(handler, context=context_for(make(authority))).url

    def body():
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, verify=trusted, timeout=5)
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=5)
        assert not seen
        assert requests.get(url, verify=False, timeout=5).content == b"ok"

    run(body)


def test_no_tls_there(run, server):
    url = server(lambda peer: peer.send(b"HTTP/1.1 400 No\r\n\r\n")).url

    def body():
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url.replace("http:", "https:"), timeout=5)

    run(body)


def test_handshake_stalls(run, server):
    url = server(lambda peer: peer.socket.recv(65536) and peer.socket.recv(65536)).url

    def body():
        with pytest.raises(requests.exceptions.Timeout):
            requests.get(url.replace("http:", "https:"), timeout=0.3)

    run(body)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
def test_truncation(head, run, server, authority, trusted):
    def handler(peer):
        peer.head()
        peer.send(head + b"four")
        # Closes the socket without close_notify, as someone in between would.
        peer.socket.close()

    url = server(handler, context=context_for(authority.issue_cert("localhost"))).url

    def body():
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            requests.get(url, verify=trusted, timeout=5)

    run(body)


def test_stale_tls_connection_is_replaced(run, server, authority, trusted):
    def handler(peer):
        peer.head()
        peer.answer(str(peer.number).encode())
        if peer.number == 1:
            peer.head()

    url = server(handler, context=context_for(authority.issue_cert("localhost"))).url

    def body():
        assert requests.get(url, verify=trusted, timeout=5).content == b"1"
        assert requests.get(url, verify=trusted, timeout=5).content == b"2"

    run(body)


def test_client_certificate(run, server, authority, trusted, tmp_path):
    context = context_for(authority.issue_cert("localhost"), verify_mode=ssl.CERT_REQUIRED)
    authority.configure_trust(context)
    url = server(keep_alive(answering), context=context).url
    ours = authority.issue_cert("client@example.org")
    chain, key, both = (str(tmp_path / name) for name in ("chain.pem", "key.pem", "both.pem"))
    ours.cert_chain_pems[0].write_to_path(chain)
    ours.private_key_pem.write_to_path(key)
    ours.private_key_and_cert_chain_pem.write_to_path(both)

    def body():
        for cert in ((chain, key), both):
            assert requests.get(url, verify=trusted, cert=cert, timeout=5).status_code == 200
        with pytest.raises(requests.exceptions.ConnectionError):
            requests.get(url, verify=trusted, timeout=5)

    run(body)


def test_missing_bundle(run, server):
    def body():
        with pytest.raises(OSError, match="missing.pem"):
            requests.get("https://127.0.0.1:1/", verify="/missing.pem", timeout=5)

    run(body)
