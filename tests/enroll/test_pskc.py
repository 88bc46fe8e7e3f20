"""PSKC files: read as their standard and other programs read them, or refused with the place and without a seed."""

from __future__ import annotations

import base64
import hmac
import re
import subprocess
import tracemalloc
from datetime import UTC, datetime

import pskc_files as files
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from pskc import PSKC
from pskc_files import HOTP, PASSPHRASE, PRESHARED, SEED, TOTP, clock, file, package

from otpbridge.enroll import pskc_users
from otpbridge.enroll.lines import parse_line, write_line
from otpbridge.enroll.pskc import Protection, parse
from otpbridge.enroll.pskc_tree import LONGEST
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

NOW = datetime(2006, 5, 10, tzinfo=UTC)
HMACS = "http://www.w3.org/2001/04/xmldsig-more#hmac-"
EIGHT = '<ResponseFormat Length="8" Encoding="DECIMAL"/>'


def opened(data, secret=None, *, now=NOW, digits=None):
    return parse(data).open(None if secret is None else Secret(secret), now=now, digits=digits)


def only(data, secret=None, **options):
    """The one key of a file in which nothing is wrong."""
    found = opened(data, secret, **options)
    assert found.faults == ()
    (key,) = found.keys
    return key


def fault(data, secret=None, **options):
    """What is wrong with the one key of a file; it tells no seed."""
    found = opened(data, secret, **options)
    assert found.keys == ()
    (only_one,) = found.faults
    assert not re.search("MTIzNDU2|12345678901|31323334", only_one.reason)
    return only_one


def flip(value):
    value[-1] ^= 1


def why_shut(data, secret):
    """Why nothing of a file opens: its MAC key, or else each key."""
    try:
        return fault(data, secret).reason
    except EnrolError as error:
        return str(error)


# --- what the standard shows ---


def test_the_basic_example_lacks_what_makes_a_token():
    """Figure 2: nobody says how long its codes are; with that said, its seed is still too short to be one."""
    assert "--digits" in fault(files.FIGURE_2).reason
    assert "4 bytes long" in fault(files.FIGURE_2, digits=6).reason


def test_a_key_without_parameters_is_read_when_its_digits_are_known():
    """No AlgorithmParameters, no counter: SHA1, from 0, with as many digits as the admin says."""
    key = only(file(package(parameters=None, counter=None)), digits=6).key
    assert (key.parameters, key.counter) == (OtpParameters(digits=6), 0)


def test_the_user_is_the_uid_of_the_key():
    """Figure 3: the key names a person, its device a bank."""
    key = only(files.FIGURE_3)
    assert (key.user(), key.serial, key.key.account, key.key.issuer) == ("jsmith", "987654321", "987654321", "Issuer")
    assert (key.key.kind, key.key.counter, key.key.parameters.digits) == (Kind.HOTP, 0, 8)
    assert key.key.secret.reveal() == SEED


def test_a_pin_is_no_token():
    """Figure 5: the key is one, for all its PIN policy; the PIN beside it is named and refused."""
    found = opened(files.FIGURE_5)
    assert [key.key.account for key in found.keys] == ["987654321"]
    assert [(each.serial, "PIN" in each.reason) for each in found.faults] == [("987654321", True)]


@pytest.mark.parametrize(
    ("data", "protection", "name", "secret"),
    [
        (files.FIGURE_6, Protection.KEY, "Pre-shared-key", PRESHARED),
        (files.FIGURE_7, Protection.PASSPHRASE, "My Password 1", PASSPHRASE.encode()),
    ],
    ids=["6", "7"],
)
def test_encrypted_examples(data, protection, name, secret):
    """Figures 6 and 7 open by their key and passphrase, and say which they want."""
    container = parse(data)
    assert (container.protection, container.key_name) == (protection, name)
    key = only(data, secret)
    seed = SEED if protection is Protection.KEY else bytes.fromhex("3132333435363738393031323334353637383930")
    assert (key.key.secret.reveal(), key.key.parameters.digits) == (seed, 8)


def test_dates_are_kept():
    """Figure 10: in April 2006 one of the four keys may be used, in June none."""
    april = datetime(2006, 4, 10, tzinfo=UTC)
    found = opened(files.FIGURE_10, now=april)
    assert [key.key.account for key in found.keys] == ["9999999 4"]
    assert found.keys[0].ends_at == datetime(2006, 4, 30, tzinfo=UTC)
    assert [each.serial for each in found.faults] == ["654321", "123456", "9999999"]
    late = opened(files.FIGURE_10, now=datetime(2006, 6, 1, tzinfo=UTC))
    assert (late.keys, {each.reason for each in late.faults}) == ((), {"it may not be used any more (ExpiryDate)"})


def test_all_keys_of_one_device_are_taken():
    """Keys that share a serial number do not overwrite each other, and their labels tell them apart."""
    found = opened(file(*(package(key=str(n), seed=bytes([n]) * 20) for n in range(1, 5)), package("7", "1")))
    assert found.faults == ()
    labels = ["987654321 1", "987654321 2", "987654321 3", "987654321 4", "7"]
    assert [key.key.account for key in found.keys] == labels
    assert len({key.key.secret.reveal() for key in found.keys}) == 5


# --- what makers and other programs write ---


@pytest.mark.parametrize(
    ("suite", "algorithm"),
    [
        ("<Suite>HMAC-SHA256</Suite>", Algorithm.SHA256),
        ("<Suite>sha512</Suite>", Algorithm.SHA512),
        ("<Suite>HMAC-SHA1</Suite>", Algorithm.SHA1),
        ('<Suite hashalgo="sha256"/>', Algorithm.SHA256),
        ('<Suite hashalgo="SHA512">\n</Suite>', Algorithm.SHA512),
    ],
)
def test_the_hash_is_not_lost(suite, algorithm):
    """As text of Suite, or as the attribute that privacyIDEA exports: SHA256 stays SHA256."""
    key = only(
        file(package(algorithm=TOTP, parameters=suite + EIGHT, counter=None, more=clock(interval=60, drift=-3)))
    )
    assert key.key.parameters == OtpParameters(algorithm, 8, 60)
    assert (key.key.kind, key.drift) == (Kind.TOTP, -3)


@pytest.mark.parametrize("digits", [6, 7, 8])
def test_digits_and_counters_are_kept(digits):
    """Of HOTP keys."""
    key = only(file(package(parameters=f'<ResponseFormat Length="{digits}" Encoding="DECIMAL"/>', counter=42))).key
    assert (key.parameters.digits, key.counter) == (digits, 42)


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [
        ("aes128-cbc", 16),
        ("aes192-cbc", 24),
        ("aes256-cbc", 32),
        ("kw-aes128", 16),
        ("kw-aes192", 24),
        ("kw-aes256", 32),
    ],
)
def test_files_of_another_program_under_a_key(algorithm, size):
    """What python-pskc encrypts opens under the same key, and not under another of that size."""
    seed = bytes(range(32))
    data = files.under_key(b"k" * size, algorithm, secret=seed)
    assert only(data, b"k" * size).key.secret.reveal() == seed
    assert "does not open" in why_shut(data, b"w" * size)
    assert f"one of {size}" in why_shut(data, b"k" * (40 - size))


@pytest.mark.parametrize("mac", ["sha224", "sha256", "sha384", "sha512"])
def test_files_of_another_program_under_a_passphrase(mac):
    """With any HMAC, in PBKDF2 and over the values; encrypted numbers are read too."""
    container = PSKC()
    container.add_key(
        id="1", secret=SEED, algorithm=TOTP, response_length=6, time_interval=60, algorithm_suite="HMAC-SHA512"
    )
    container.mac.setup(algorithm=HMACS + mac)
    container.encryption.setup_pbkdf2(
        "Grüße", iterations=10, prf=f"hmac-{mac}", algorithm="aes256-cbc", fields=["secret", "time_interval"]
    )
    data = files.written(container)
    assert parse(data).protection is Protection.PASSPHRASE
    key = only(data, "Grüße".encode()).key
    assert (key.secret.reveal(), key.parameters) == (SEED, OtpParameters(Algorithm.SHA512, 6, 60))
    assert "does not open" in why_shut(data, b"Gruesse")


def test_a_mac_of_the_seed_itself_holds_too():
    """Drafts of the standard had it so, and files of today still do."""
    mac = hmac.digest(bytes.fromhex("1122334455667788990011223344556677889900"), SEED, "sha1")
    data = re.sub(rb"<ValueMAC>[^<]+", b"<ValueMAC>" + base64.b64encode(mac), files.FIGURE_6)
    assert only(data, PRESHARED).key.secret.reveal() == SEED
    assert "does not open" in fault(files.changed(data, "ValueMAC", flip), PRESHARED).reason


@pytest.mark.parametrize("key", [PRESHARED, 2 * PRESHARED], ids=["128", "256"])
@pytest.mark.parametrize("cipher", ["aes{}-gcm", "kw-aes-{}-pad"])
def test_ciphers_that_need_no_mac(key, cipher):
    """AES-GCM, and key wrap with padding, which takes seeds of 20 bytes: what was changed does not open."""
    nonce = b"twelve bytes"
    value = (
        nonce + AESGCM(key).encrypt(nonce, SEED, None) if "gcm" in cipher else aes_key_wrap_with_padding(key, SEED)
    )
    data = re.sub(rb"<MACMethod.*</MACMethod>|<ValueMAC>[^<]+</ValueMAC>", b"", files.FIGURE_6, flags=re.DOTALL)
    data = re.sub(rb"AAECAw[^<]+", base64.b64encode(value), data)
    data = data.replace(b"2001/04/xmlenc#aes128-cbc", b"2009/xmlenc11#" + cipher.format(8 * len(key)).encode())
    assert only(data, key).key.secret.reveal() == SEED
    assert "does not open" in fault(files.changed(data, "CipherValue", flip), key).reason


def test_a_number_that_could_be_two_is_refused():
    """Bytes of an encrypted counter that are digits may mean the digits, or what the bytes are: nobody can tell."""
    assert (
        only(files.under_key(PRESHARED, "aes128-cbc", fields=["counter"], counter=300), PRESHARED).key.counter == 300
    )
    data = files.under_key(PRESHARED, "aes128-cbc", fields=["counter"], counter=int.from_bytes(b"1234"))
    assert "Counter is encrypted" in fault(data, PRESHARED).reason


def test_pskctool_reads_the_same(tmp_path):
    """oath-toolkit finds our files valid by the schema of the standard, and the same in them."""
    path = tmp_path / "keys.pskcxml"
    suite = "<Suite>HMAC-SHA256</Suite>"
    path.write_bytes(
        file(
            package("1001", "a", seed=b"a" * 20, counter=7, after="<UserId>UID=alice,DC=example</UserId>"),
            package(
                *("1002", "b"),
                algorithm=TOTP,
                parameters=suite + EIGHT,
                seed=b"b" * 32,
                counter=None,
                more=clock(time=0, interval=60, drift=3),
            ),
        )
    )
    assert subprocess.run(["pskctool", "--validate", path], capture_output=True, check=True).stdout == b"OK\n"
    one, two = files.pskctool(path)
    first, second = opened(path.read_bytes()).keys
    for key, told in ((first, one), (second, two)):
        assert (key.serial, key.key.issuer) == (told["SerialNo"], told["Issuer"])
        assert key.key.secret.reveal() == base64.b64decode(told["Key Secret (base64)"])
        assert key.key.parameters.digits == int(told["Response Format Length"])
        assert told["Algorithm"] == f"{files.SPACE}:{key.key.kind}"
    assert (first.user_id, first.key.counter) == (one["Key User Id"], int(one["Key Counter"]))
    assert (second.key.parameters.period, second.drift) == (int(two["Key TimeInterval"]), int(two["Key TimeDrift"]))
    assert two["Algorithm Parameters Suite"] == f"HMAC-{second.key.parameters.algorithm}"


# --- encryption that does not hold ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (files.changed(files.FIGURE_6, "ValueMAC", flip), "does not open"),
        (files.changed(files.FIGURE_6, "CipherValue", flip), "does not open"),
        (files.changed(files.FIGURE_6, "CipherValue", lambda value: value.pop()), "cut off"),
        (re.sub(rb"<ValueMAC>[^<]+</ValueMAC>", b"", files.FIGURE_6), "has no MAC"),
        (re.sub(rb"<MACMethod.*</MACMethod>", b"", files.FIGURE_6, flags=re.DOTALL), "MACMethod"),
        (re.sub(rb"<MACMethod[^>]*>", b"<MACMethod>", files.FIGURE_6), "MACMethod"),
        (
            b"tripledes-cbc".join(files.FIGURE_6.rsplit(b"aes128-cbc", 1)),
            "not known",
        ),
        (files.FIGURE_6.replace(b"AAECAwQ", b"AAEC*wQ"), "not base64"),
        (
            files.FIGURE_6.replace(b"<Secret>", b"<Secret><PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=</PlainValue>"),
            "either",
        ),
    ],
)
def test_a_seed_whose_encryption_is_not_whole_is_refused(data, words):
    """A wrong or missing MAC, a changed value, an unknown cipher: the key is named, and no seed comes of it."""
    found = fault(data, PRESHARED)
    assert found.serial == "987654321"
    assert words in found.reason


def test_without_a_mac_key_the_key_itself_is_meant():
    """RFC 6030 §6.1.1; then a wrong key shows at each value."""
    container = PSKC()
    container.add_key(id="1", serial="42", secret=SEED, algorithm=HOTP, response_length=6)
    container.mac.algorithm = "hmac-sha256"
    container.encryption.setup_preshared_key(key=PRESHARED)
    container.mac.key = None
    data = re.sub(rb"<pskc:MACKey>.*</pskc:MACKey>", b"", files.written(container), flags=re.DOTALL)
    assert only(data, PRESHARED).key.secret.reveal() == SEED
    assert "does not open" in fault(data, b"w" * 16).reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (files.FIGURE_6.replace(b"#hmac-sha1", b"#hmac-md4"), "line 9: the MAC algorithm is not known"),
        (files.FIGURE_7.replace(b"#pbkdf2", b"#pbkdf1"), "line 7: the key comes from a passphrase in a way"),
        (files.FIGURE_7.replace(b">1000<", b">99999999999<"), "10000000 iterations"),
        (files.FIGURE_7.replace(b">1000<", b">x<"), "iterations"),
        (files.FIGURE_7.replace(b">16<", b">4000000000<"), "16, 24 or 32 bytes"),
        (files.FIGURE_7.replace(b"<PRF/>", b'<PRF Algorithm="urn:x"/>'), "function that is not known"),
        (files.FIGURE_7.replace(b"Ej7/PEpyEpw=", b""), "no salt"),
        (files.FIGURE_7.replace(b"pkcs5:PBKDF2-params", b"pkcs5:other"), "PBKDF2-params"),
        (files.FIGURE_6.replace(b"ds:KeyName", b"ds:X509Data"), "line 6: it is encrypted for a certificate"),
        (
            files.FIGURE_6.replace(b"<KeyPackage>", b"<EncryptionKey/><KeyPackage>"),
            "line 19: the file has <EncryptionKey> twice",
        ),
    ],
)
def test_a_file_that_is_encrypted_in_an_unknown_way_is_refused(data, words):
    """The whole file, with the line, before anybody is asked for a key, and before any work that it asks for."""
    with pytest.raises(EnrolError, match=re.escape(words)):
        parse(data)


# --- keys that are not taken ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"algorithm": ""}, "does not say its algorithm"),
        ({"algorithm": f"{files.SPACE}:ocra"}, "not known"),
        ({"algorithm": HOTP.upper()}, "not known"),
        ({"parameters": None}, "--digits"),
        ({"parameters": "<ResponseFormat/>"}, "--digits"),
        ({"parameters": '<ResponseFormat Length="9"/>'}, "6, 7 or 8"),
        ({"parameters": '<ResponseFormat Length="8" Encoding="HEXADECIMAL"/>'}, "not decimal"),
        ({"parameters": '<ResponseFormat Length="8" CheckDigits="true"/>'}, "check digit"),
        ({"parameters": '<ResponseFormat Length="8" Truncation="3"/>'}, "not understood"),
        ({"parameters": EIGHT + EIGHT}, "twice"),
        ({"parameters": EIGHT + "<Offset>3</Offset>"}, "not understood"),
        ({"parameters": EIGHT + '<x:Suite xmlns:x="urn:x">HMAC-SHA256</x:Suite>'}, "not understood"),
        ({"parameters": EIGHT + '<ChallengeFormat Encoding="DECIMAL" Min="6" Max="8"/>'}, "challenges"),
        ({"parameters": EIGHT + "<Suite>HMAC-MD5</Suite>"}, "Suite is not known"),
        ({"parameters": EIGHT + '<Suite hashalgo="sha1">HMAC-SHA256</Suite>'}, "Suite is not known"),
        ({"parameters": EIGHT + "<Suite/>"}, "Suite is not known"),
        ({"seed": b""}, "seed is not in the file"),
        ({"seed": b"123456789"}, "9 bytes long"),
        ({"seed": bytes(129)}, "129 bytes long"),
        ({"counter": "-1"}, "counter is negative"),
        ({"counter": "MTI="}, "Counter is no whole number"),
        ({"counter": 2**63}, "counter"),
        ({"more": "<Counter><PlainValue>0</PlainValue></Counter>"}, "twice"),
        ({"more": "<Offset/>"}, "not understood"),
        (
            {"counter": None, "more": "<Counter><PlainValue>0</PlainValue><ValueMAC>AAAA</ValueMAC></Counter>"},
            "MAC and",
        ),
        ({"counter": None, "more": "<Counter/>"}, "either"),
        ({"algorithm": TOTP, "more": clock(interval=14)}, "period must be 15 to 900"),
        ({"algorithm": TOTP, "more": clock(time=1)}, "begin at 0"),
        ({"algorithm": TOTP, "more": clock(drift=1001)}, "1000 time steps"),
        ({"after": "<Policy><KeyUsage>Encrypt</KeyUsage></Policy>"}, "KeyUsage"),
        ({"after": "<Policy><NumberOfTransactions>9</NumberOfTransactions></Policy>"}, "NumberOfTransactions"),
        ({"after": '<Policy><PINPolicy PINUsageMode="Append"/></Policy>'}, "PIN"),
        ({"after": "<Policy><Moon>full</Moon></Policy>"}, "not understood"),
        ({"after": "<Policy><ExpiryDate>2006-05-09</ExpiryDate></Policy>"}, "any more"),
        ({"after": "<Policy><ExpiryDate>soon</ExpiryDate></Policy>"}, "no date"),
        ({"key": "x" * 129}, "longer than 128"),
        ({"after": "<UserId>a&#9;b</UserId>"}, "cannot be shown"),
    ],
)
def test_a_key_that_is_not_understood_is_refused(changes, words):
    """Whatever could make other codes of it, or forbids its use: the fault names its line and serial number."""
    found = fault(file(package(**changes)))
    assert (found.line, found.serial) == (5, "987654321")
    assert words in found.reason


def test_a_package_with_more_in_it_is_refused():
    """What a maker puts beside the key may change what the key means."""
    data = file(package()).replace(b"</KeyPackage>", b'<x:Key xmlns:x="urn:x"/></KeyPackage>')
    assert "not understood" in fault(data).reason


def test_seeds_that_are_not_base64_are_refused():
    """Letters that do not belong there are not passed over, which would make another seed of it."""
    assert "not base64" in fault(file(package()).replace(b"MTIz", b"MT-Iz-==")).reason


@pytest.mark.parametrize("newline", ["\n", ""])
def test_a_key_twice_is_refused(newline):
    """Of one device and Id, or of one seed: told with the line of the first, also where the file is a single line."""
    same_id = file(package(), package(seed=b"b" * 20)).replace(b"\n", newline.encode())
    same_seed = file(package(), package("2")).replace(b"\n", newline.encode())
    line, first = (9, 5) if newline else (1, 1)
    for data, words, serial in ((same_id, "this device and Id", "987654321"), (same_seed, "its seed", "2")):
        (found,) = opened(data).faults
        assert (found.line, found.serial) == (line, serial)
        assert words in found.reason
        assert f"line {first} " in found.reason


# --- files that are none ---

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
GOOD = file(package())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1: this is no sound XML: no element found"),
        (b"serial,seed\n", "line 1: this is no sound XML"),
        (b"<html></html>", "line 1: this is no PSKC file"),
        (GOOD[:-30], "line [0-9]+: this is no sound XML"),
        (GOOD[:400], "line [0-9]+: this is no sound XML"),
        (GOOD.replace(b"?>\n", b"?>\n" + BOMB.encode(), 1), "line 2: the file has a document type"),
        (GOOD.replace(b"?>\n", b"?>\n" + EXTERNAL.encode(), 1), "line 2: the file has a document type"),
        (GOOD.replace(b"Issuer<", b"&e;<"), "line 5: .*undefined entity"),
        (
            file(package(), space="urn:ietf:params:xml:ns:keyprov:pskc:1.0"),
            "line 2: .*no KeyContainer of the namespace",
        ),
        (GOOD.replace(b"xmlns=", b"other="), "line 2: .*no KeyContainer of the namespace"),
        (file(package(), attributes='Version="2.0"'), "line 2: .*not of version 1.0"),
        (file(package(), attributes=""), "line 2: .*not of version 1.0"),
        (file(), "no key in the file"),
        (file(package(), "<Moon/>"), "line 7: .*not understood"),
        (GOOD.replace(b"UTF-8", b"UTF-7"), "line 1: .*encoding"),
        (GOOD.replace(b"UTF-8", b"rot13"), "line 1: .*encoding"),
        (file("<KeyPackage>" + "<a>" * 30 + "</a>" * 30 + "</KeyPackage>"), "too deep"),
        (file("<KeyPackage>" + "<a/>" * 3000 + "</KeyPackage>"), "too many elements"),
        (file(package(maker="M" * 70_000)), "text is too long"),
        (file("<Extensions/>" * 200_001), "too many parts"),
        (GOOD + b" " * LONGEST, "larger than 32 MiB"),
    ],
)
def test_a_file_that_is_none_is_refused(data, words):
    """Cut off, of another kind, with entities, too large: refused with the line, and no file is opened for it."""
    with pytest.raises(EnrolError, match=words) as raised:
        parse(data)
    assert not re.search("MTIzNDU2|root:", str(raised.value))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_the_encodings_of_xml_are_read(encoding):
    """With a byte order mark, in UTF-16, in Latin-1."""
    data = file(package(maker="Müller")).decode().replace("UTF-8", encoding.removesuffix("-sig")).encode(encoding)
    assert only(data).maker == "Müller"


def test_a_large_delivery_is_read():
    """Ten thousand tokens, in a file of 10 MB."""
    data = file(*(package(str(n), seed=n.to_bytes(20)) for n in range(10_000)))
    data = data.replace(b"</KeyContainer>", b" " * (10_000_000 - len(data)) + b"</KeyContainer>")
    assert len(opened(data).keys) == 10_000


def test_what_means_nothing_is_not_kept():
    """Elements by the ten thousand that are no keys take no memory once they are read."""
    data = file(package(), *("<Extensions>" + "<a/>" * 1900 + "</Extensions>" for _ in range(30)))
    tracemalloc.start()
    try:
        parse(data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


# --- whose they are ---


@pytest.mark.parametrize(
    ("user_id", "user"),
    [
        ("alice", "alice"),
        ("UID=alice", "alice"),
        ("uid = alice , O=Example", "alice"),
        ("UID=alice+CN=Alice", "alice"),
    ],
)
def test_a_user_id_names_a_user(user_id, user):
    """As it is, or as the UID with which a distinguished name begins."""
    assert only(file(package(after=f"<UserId>{user_id}</UserId>"))).user() == user


@pytest.mark.parametrize(
    "user_id", ["CN=alice,O=Example", "O=Example,UID=alice", "UID=", r"UID=a\,UID=root", 'UID="a,b"', ""]
)
def test_a_user_id_that_does_not_is_refused(user_id):
    """A name of another kind is not guessed from, and one that is not there is told with the way out."""
    given, faults = pskc_users.assign(opened(file(package(after=f"<UserId>{user_id}</UserId>"))), None)
    assert given == []
    assert [(each.line, each.serial) for each in faults] == [(5, "987654321")]
    assert "--users" in faults[0].reason


THREE = file(
    *(package(serial, seed=serial.encode() * 10) for serial in ("01", "02", "03")), package("04", algorithm="urn:x")
)


def test_a_list_says_whose_they_are():
    """By serial number; a token that is not on it is a fault, or left out where the admin says so."""
    users = pskc_users.read("\ufeffSerial;Name;User\r\n03;x;carol\r\n\r\n 01 ;y;alice\r\n")
    given, faults = pskc_users.assign(opened(THREE), users)
    assert [(key.serial, user) for key, user in given] == [("01", "alice"), ("03", "carol")]
    assert [(each.serial, "--only-listed" in each.reason) for each in faults] == [("02", True), ("04", False)]
    given, faults = pskc_users.assign(opened(THREE), users, only_listed=True)
    assert ([user for _, user in given], faults) == (["alice", "carol"], [])


def test_a_serial_number_that_is_not_there_is_told():
    """A spreadsheet that has lost the zeros does not lead to fewer tokens."""
    users = pskc_users.read("serial,user\n1,alice\n02,bob\n04,dave\n")
    with pytest.raises(EnrolError, match=r"not in the file: 1$"):
        pskc_users.assign(opened(THREE), users, only_listed=True)


def test_two_makers_with_one_number_are_told_apart():
    """A number on a list means one device; where it could be two, nobody gets the wrong one."""
    two = file(package("01"), package("01", "2", maker="Other", seed=b"b" * 20))
    given, faults = pskc_users.assign(opened(two), {"01": "alice"})
    assert ([user for _, user in given], len(faults)) == (["alice"], 1)
    assert "another maker" in faults[0].reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("serial,user\n", "empty"),
        ("01,alice\n", "line 1 .*names the columns"),
        ("serial,user,user\n", "line 1 .*names the columns"),
        ("serial,user\n01\n", "line 2 "),
        ("serial,user\n01,\n", "line 2 .*no name"),
        ("serial,user\n,alice\n", "line 2 .*no serial"),
        ("serial,user\n01,al\tice\n", "line 2 .*cannot be shown"),
        ("serial,user\n01,alice\n01,bob\n", "line 3 .*twice"),
        ('serial,user\n"01,alice\n', "no CSV"),
    ],
)
def test_a_list_that_is_not_sound_is_refused(text, words):
    """With its line."""
    with pytest.raises(EnrolError, match=words):
        pskc_users.read(text)


# --- on to the daemon ---


@pytest.mark.parametrize("name", ["987654321", "a:b c", "100%&?=#", "Ünï/ü"])
def test_what_is_sent_is_read_as_the_same(name):
    """The line that stands for a key is that key to the daemon, whatever its serial number is made of."""
    data = file(
        package(name.replace("&", "&amp;"), after="<UserId>alice</UserId>"),
        package("2", algorithm=TOTP, counter=None, seed=b"b" * 20, more=clock(interval=60, drift=-7)),
    )
    for key in opened(data).keys:
        line = parse_line(write_line("alice", key.key, key.drift))
        assert line is not None
        assert (line.user, line.drift) == ("alice", key.drift)
        assert line.key.secret.reveal() == key.key.secret.reveal()
        same = ("kind", "parameters", "account", "issuer", "counter")
        assert [getattr(line.key, field) for field in same] == [getattr(key.key, field) for field in same]


def test_no_seed_shows():
    """Not in the repr of anything that is read."""
    container = parse(GOOD)
    found = container.open(None, now=NOW)
    assert not re.search("MTIzNDU2|12345678901|31323334", f"{container!r}{found!r}{parse(files.FIGURE_6)!r}")
