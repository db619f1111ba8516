"""TLS: whom the client believes, and that a cut is an error."""

import datetime
import ssl
import time

import balrog
import pytest
import requests
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
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


def self_signed(path, days=1, names=("localhost",), authority=True):
    """What `openssl req -x509` makes: a server's certificate that calls itself an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    first, last = sorted([now + datetime.timedelta(days=days), now - datetime.timedelta(days=2)])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(one) for one in names])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(alternatives, critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize("authority", [True, False])
def test_self_signed(run, server, tmp_path, authority):
    good = tmp_path / "good.pem"
    url = server(keep_alive(answering), context=self_signed(good, authority=authority)).url
    old = tmp_path / "old.pem"
    old_url = server(keep_alive(answering), context=self_signed(old, days=-1, authority=authority)).url
    other = tmp_path / "other.pem"
    other_url = server(keep_alive(answering), context=self_signed(other, names=("a.example",), authority=authority)).url

    def body():
        assert requests.get(url, verify=str(good), timeout=5).status_code == 200
        with pytest.raises(requests.exceptions.SSLError, match="[Ee]xpired"):
            requests.get(old_url, verify=str(old), timeout=5)
        with pytest.raises(requests.exceptions.SSLError, match="not valid for name"):
            requests.get(other_url, verify=str(other), timeout=5)
        with pytest.raises(requests.exceptions.SSLError, match="verify=PATH"):
            requests.get(url, verify=str(other), timeout=5)
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url, timeout=5)

    run(body)


def test_pinned_certificate_of_an_unknown_issuer(run, server, authority, tmp_path):
    certificate = authority.issue_cert("localhost")
    url = server(keep_alive(answering), context=context_for(certificate)).url
    pinned = str(tmp_path / "leaf.pem")
    certificate.cert_chain_pems[0].write_to_path(pinned)

    def body():
        assert requests.get(url, verify=pinned, timeout=5).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(url.replace("localhost", "127.0.0.1"), verify=pinned, timeout=5)

    run(body)


def test_directory(run, server, authority, tmp_path, monkeypatch):
    url = server(keep_alive(answering), context=context_for(authority.issue_cert("localhost"))).url
    (tmp_path / "hashed").mkdir()
    authority.cert_pem.write_to_path(str(tmp_path / "hashed" / "5ed36f99.0"))
    (tmp_path / "hashed" / "README").write_text("no certificate")
    (tmp_path / "unhashed").mkdir()
    authority.cert_pem.write_to_path(str(tmp_path / "unhashed" / "authority.pem"))

    def body():
        assert requests.get(url, verify=str(tmp_path / "hashed"), timeout=5).status_code == 200
        with pytest.raises(requests.exceptions.SSLError, match="no certificate"):
            requests.get(url, verify=str(tmp_path / "unhashed"), timeout=5)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "hashed"))
        assert requests.get(url, timeout=5).status_code == 200

    run(body)


def test_files_that_are_none(run, tmp_path, authority):
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))

    def body():
        for options in ({"verify": str(empty)}, {"cert": str(empty)}, {"cert": str(tmp_path / "authority.pem")}):
            with pytest.raises(requests.exceptions.SSLError, match=r"\.pem"):
                requests.get("https://127.0.0.1:1/", timeout=5, **options)
        for options in ({"verify": "/no.pem"}, {"cert": "/no.pem"}, {"cert": (str(empty), "/no.pem")}):
            with pytest.raises(OSError, match="invalid path: /no.pem"):
                requests.get("https://127.0.0.1:1/", timeout=5, **options)

    run(body)


def test_names(run, server, authority, trusted):
    asked = []
    context = context_for(authority.issue_cert("localhost", "127.0.0.1"))
    context.sni_callback = lambda sock, name, context: asked.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])

    def respond(peer, head):
        peer.answer(f"{peer.socket.selected_alpn_protocol()} {peer.socket.session_reused}".encode())

    url = server(keep_alive(respond), context=context).url

    def body():
        by_name = [requests.get(url, verify=trusted, headers={"Connection": "close"}, timeout=5).text for _ in range(2)]
        assert by_name[0] == "http/1.1 False" and by_name[1].startswith("http/1.1")
        by_address = requests.get(url.replace("localhost", "127.0.0.1"), verify=trusted, timeout=5)
        assert by_address.status_code == 200
        # "Literal IPv4 and IPv6 addresses are not permitted" as a server's name (RFC 6066 section 3).
        assert asked == ["localhost", "localhost", None]

    run(body)


def test_address_without_a_certificate_for_it(run, server, authority, trusted):
    url = server(keep_alive(answering), context=context_for(authority.issue_cert("localhost"))).url

    def body():
        with pytest.raises(requests.exceptions.SSLError, match=r"127\.0\.0\.1"):
            requests.get(url.replace("localhost", "127.0.0.1"), verify=trusted, timeout=5)

    run(body)


def test_handshake_that_drips(run, server):
    def handler(peer):
        # The head of a record that would be long, and then one byte after the other: each in time, the whole never.
        peer.send(b"\x16\x03\x03\x3f\x00\x02\x00\x3e\xfc")
        while peer.socket.send(b"\0"):
            time.sleep(0.05)

    url = server(handler).url.replace("http:", "https:")

    def body():
        begun = time.monotonic()
        with pytest.raises(requests.exceptions.ConnectTimeout):
            requests.get(url, timeout=(0.5, 10))
        assert 0.4 < time.monotonic() - begun < 2

    run(body)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("together", [True, False])
def test_what_follows_a_response_is_never_the_next(version, together, run, server, authority, trusted):
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    def handler(peer):
        while peer.head():
            good = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % peer.number
            if together:
                peer.send(good + evil)
            else:
                peer.send(good)
                peer.send(evil)

    url = server(handler, context=context_for(authority.issue_cert("localhost"), maximum_version=version)).url

    def body():
        for number in (b"1", b"2", b"3"):
            assert requests.get(url, verify=trusted, timeout=5).content == number
            time.sleep(0.05)

    run(body)


def test_upload_that_nobody_reads(run, server, authority, trusted):
    def handler(peer):
        peer.head()
        if peer.number == 1:
            time.sleep(3)
        else:
            peer.answer(b"ok")

    url = server(handler, context=context_for(authority.issue_cert("localhost"))).url

    def body():
        begun = time.monotonic()
        with pytest.raises(requests.exceptions.Timeout):
            requests.post(url, data=b"x" * (64 << 20), verify=trusted, timeout=0.5)
        assert time.monotonic() - begun < 3
        assert requests.get(url, verify=trusted, timeout=5).content == b"ok"

    run(body)


def test_upload_that_is_cancelled(server, authority, trusted):
    """An interrupt in a write of TLS is an interrupt, and its connection is not used again."""
    seen = []

    def handler(peer):
        seen.append(peer.head())
        if peer.number == 1:
            time.sleep(1)
            seen.append(len(peer.take(1 << 30)))
        else:
            peer.answer(b"ok")

    url = server(handler, context=context_for(authority.issue_cert("localhost"))).url

    def body():
        task = balrog.spawn(requests.post, url, data=b"x" * (64 << 20), verify=trusted, timeout=10)
        balrog.sleep(0.5)
        task.cancel()
        with pytest.raises(balrog.Cancelled):
            task.result(timeout=2)
        assert requests.get(url, verify=trusted, timeout=5).content == b"ok"

    balrog.run(body)
