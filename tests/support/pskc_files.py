"""PSKC files: the examples of RFC 6030, files as makers write them, and what other programs make of them."""

from __future__ import annotations

import base64
import io
import re
import subprocess

from pskc import PSKC

SPACE = "urn:ietf:params:xml:ns:keyprov:pskc"
TOTP, HOTP = f"{SPACE}:totp", f"{SPACE}:hotp"
SEED = b"12345678901234567890"
PRESHARED = bytes.fromhex("12345678901234567890123456789012")
PASSPHRASE = "qwerty"


def file(*packages, attributes='Version="1.0"', space=SPACE, head=""):
    """A container around packages."""
    body = "\n".join(packages)
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n<KeyContainer {attributes} xmlns="{space}">{head}'
    return f"{start}\n{body}\n</KeyContainer>\n".encode()


def package(
    serial="987654321",
    key="12345678",
    *,
    maker="Manufacturer",
    algorithm=HOTP,
    parameters='<ResponseFormat Length="8" Encoding="DECIMAL"/>',
    seed=SEED,
    counter=0,
    more="",
    after="",
):
    """A package with one key, by default as in most figures. None leaves a part out."""
    device = f"<DeviceInfo><Manufacturer>{maker}</Manufacturer><SerialNo>{serial}</SerialNo></DeviceInfo>"
    named = f' Algorithm="{algorithm}"' if algorithm else ""
    secret = f"<Secret><PlainValue>{base64.b64encode(seed).decode()}</PlainValue></Secret>" if seed else ""
    counted = "" if counter is None else f"<Counter><PlainValue>{counter}</PlainValue></Counter>"
    suited = f"<AlgorithmParameters>{parameters}</AlgorithmParameters>" if parameters is not None else ""
    return (
        f'<KeyPackage>\n{device if serial else ""}\n<Key Id="{key}"{named}><Issuer>Issuer</Issuer>{suited}'
        f"<Data>{secret}{counted}{more}</Data>{after}</Key>\n</KeyPackage>"
    )


def clock(*, interval=None, drift=None, time=None):
    """The elements of a TOTP key."""
    values = {"Time": time, "TimeInterval": interval, "TimeDrift": drift}
    return "".join(
        f"<{name}><PlainValue>{value}</PlainValue></{name}>" for name, value in values.items() if value is not None
    )


FIGURE_2 = file(package("", parameters=None, seed=b"1234", counter=None))
"""Basic; its seed has 4 bytes, and nothing says how long its codes are."""
FIGURE_3 = file(
    package(after="<UserId>UID=jsmith,DC=example-bank,DC=net</UserId>").replace(
        "</SerialNo>", "</SerialNo><UserId>DC=example-bank,DC=net</UserId>"
    )
)
FIGURE_5 = file(
    package(
        after='<Policy><PINPolicy MinLength="4" MaxLength="4" PINKeyId="123456781" PINEncoding="DECIMAL"'
        ' PINUsageMode="Local"/><KeyUsage>OTP</KeyUsage></Policy>'
    ),
    package(
        key="123456781",
        algorithm=f"{SPACE}:pin",
        parameters='<ResponseFormat Length="4" Encoding="DECIMAL"/>',
        seed=b"1234",
        counter=None,
    ),
)
"""A key, and its PIN."""
FIGURE_6 = f"""<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0"
  xmlns="{SPACE}"
  xmlns:ds="http://www.w3.org/2000/09/xmldsig#"
  xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
  <EncryptionKey>
    <ds:KeyName>Pre-shared-key</ds:KeyName>
  </EncryptionKey>
  <MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1">
    <MACKey>
      <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
      <xenc:CipherData>
        <xenc:CipherValue>
  ESIzRFVmd4iZABEiM0RVZgKn6WjLaTC1sbeBMSvIhRejN9vJa2BOlSaMrR7I5wSX
        </xenc:CipherValue>
      </xenc:CipherData>
    </MACKey>
  </MACMethod>
  <KeyPackage>
    <DeviceInfo>
      <Manufacturer>Manufacturer</Manufacturer>
      <SerialNo>987654321</SerialNo>
    </DeviceInfo>
    <CryptoModuleInfo>
      <Id>CM_ID_001</Id>
    </CryptoModuleInfo>
    <Key Id="12345678" Algorithm="{HOTP}">
      <Issuer>Issuer</Issuer>
      <AlgorithmParameters>
        <ResponseFormat Length="8" Encoding="DECIMAL"/>
      </AlgorithmParameters>
      <Data>
        <Secret>
          <EncryptedValue>
            <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
            <xenc:CipherData>
              <xenc:CipherValue>
  AAECAwQFBgcICQoLDA0OD+cIHItlB3Wra1DUpxVvOx2lef1VmNPCMl8jwZqIUqGv
              </xenc:CipherValue>
            </xenc:CipherData>
          </EncryptedValue>
          <ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=
          </ValueMAC>
        </Secret>
        <Counter>
          <PlainValue>0</PlainValue>
        </Counter>
      </Data>
    </Key>
  </KeyPackage>
</KeyContainer>
""".encode()
"""Under PRESHARED."""
FIGURE_7 = f"""<?xml version="1.0" encoding="UTF-8"?>
<pskc:KeyContainer
  xmlns:pskc="{SPACE}"
  xmlns:xenc11="http://www.w3.org/2009/xmlenc11#"
  xmlns:pkcs5="http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#"
  xmlns:xenc="http://www.w3.org/2001/04/xmlenc#" Version="1.0">
  <pskc:EncryptionKey>
    <xenc11:DerivedKey>
      <xenc11:KeyDerivationMethod
        Algorithm="http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#pbkdf2">
        <pkcs5:PBKDF2-params>
          <Salt>
            <Specified>Ej7/PEpyEpw=</Specified>
          </Salt>
          <IterationCount>1000</IterationCount>
          <KeyLength>16</KeyLength>
          <PRF/>
        </pkcs5:PBKDF2-params>
      </xenc11:KeyDerivationMethod>
      <xenc:ReferenceList>
        <xenc:DataReference URI="#ED"/>
      </xenc:ReferenceList>
      <xenc11:MasterKeyName>My Password 1</xenc11:MasterKeyName>
    </xenc11:DerivedKey>
  </pskc:EncryptionKey>
  <pskc:MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1">
    <pskc:MACKey>
      <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
      <xenc:CipherData>
        <xenc:CipherValue>
  2GTTnLwM3I4e5IO5FkufoOEiOhNj91fhKRQBtBJYluUDsPOLTfUvoU2dStyOwYZx
        </xenc:CipherValue>
      </xenc:CipherData>
    </pskc:MACKey>
  </pskc:MACMethod>
  <pskc:KeyPackage>
    <pskc:DeviceInfo>
      <pskc:Manufacturer>TokenVendorAcme</pskc:Manufacturer>
      <pskc:SerialNo>987654321</pskc:SerialNo>
    </pskc:DeviceInfo>
    <pskc:CryptoModuleInfo>
      <pskc:Id>CM_ID_001</pskc:Id>
    </pskc:CryptoModuleInfo>
    <pskc:Key Algorithm="{HOTP}" Id="123456">
      <pskc:Issuer>Example-Issuer</pskc:Issuer>
      <pskc:AlgorithmParameters>
        <pskc:ResponseFormat Length="8" Encoding="DECIMAL"/>
      </pskc:AlgorithmParameters>
      <pskc:Data>
        <pskc:Secret>
          <pskc:EncryptedValue Id="ED">
            <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
            <xenc:CipherData>
              <xenc:CipherValue>
  oTvo+S22nsmS2Z/RtcoF8Hfh+jzMe0RkiafpoDpnoZTjPYZu6V+A4aEn032yCr4f
              </xenc:CipherValue>
            </xenc:CipherData>
          </pskc:EncryptedValue>
          <pskc:ValueMAC>LP6xMvjtypbfT9PdkJhBZ+D6O4w=
          </pskc:ValueMAC>
        </pskc:Secret>
      </pskc:Data>
    </pskc:Key>
  </pskc:KeyPackage>
</pskc:KeyContainer>
""".encode()
"""Under PASSPHRASE."""
FIGURE_10 = file(
    *(
        package(
            serial,
            key,
            maker="TokenVendorAcme",
            after=f"<Policy><StartDate>2006-{month}-01T00:00:00Z</StartDate>"
            f"<ExpiryDate>2006-{month}-30T00:00:00Z</ExpiryDate></Policy>",
        )
        for serial, key, month in (
            ("654321", "1", "05"),
            ("123456", "2", "05"),
            ("9999999", "3", "03"),
            ("9999999", "4", "04"),
        )
    )
)
"""Bulk: four keys, two of them of one device; all with one seed."""


def written(container):
    """What python-pskc writes."""
    out = io.BytesIO()
    container.write(out)
    return out.getvalue()


def under_key(key, algorithm, *, fields=("secret",), **values):
    """A file of python-pskc with one key, encrypted."""
    container = PSKC()
    container.add_key(
        **{"id": "1", "serial": "42", "secret": SEED, "algorithm": HOTP, "response_length": 6, "counter": 0} | values
    )
    container.encryption.setup_preshared_key(key=key, algorithm=algorithm, fields=list(fields))
    return written(container)


def changed(data, element, change):
    """The file with the base64 in the last such element changed."""
    match = list(re.finditer(rf"<(?:\w+:)?{element}>([^<]+)<".encode(), data))[-1]
    value = bytearray(base64.b64decode(match[1]))
    change(value)
    return data[: match.start(1)] + base64.b64encode(value) + data[match.end(1) :]


def pskctool(path):
    """What `pskctool --info` says of each key, as names and values."""
    done = subprocess.run(["pskctool", "--info", path], capture_output=True, text=True, check=True)
    keys = done.stdout.partition("KeyPackage 0:")[2].split("KeyPackage ")
    return [dict(re.findall(r"^\s+(.+?): (.*)$", key, re.MULTILINE)) for key in keys]
