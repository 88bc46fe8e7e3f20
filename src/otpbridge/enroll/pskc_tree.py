"""The XML of a PSKC file as elements that know their lines: bounded, without a DTD, and so without entities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from otpbridge.errors import EnrolError

LONGEST = 32 * 1024 * 1024
"""Bytes of a file; a key with all that goes around it has about 1,000."""
PSKC = "urn:ietf:params:xml:ns:keyprov:pskc"
_PBKDF2 = frozenset({"Salt", "Specified", "IterationCount", "KeyLength", "PRF"})
_BORROWED = {
    "http://www.w3.org/2000/09/xmldsig#": frozenset({"Signature", "KeyName"}),
    "http://www.w3.org/2001/04/xmlenc#": frozenset({"EncryptionMethod", "CipherData", "CipherValue"}),
    "http://www.w3.org/2009/xmlenc11#": _PBKDF2
    | {"DerivedKey", "KeyDerivationMethod", "MasterKeyName", "PBKDF2-params"},
    "http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#": _PBKDF2 | {"PBKDF2-params"},
    # RFC 6030 §6.2 itself writes the parameters of PBKDF2 so.
    "": _PBKDF2,
}
"""Names of other namespaces that go without them, as those of PSKC do; others are `{namespace}name`."""
_ENCODINGS = frozenset({"utf-8", "utf-16", "us-ascii", "iso-8859-1"})
_DEEPEST = 24
_MOST_IN_ONE = 2000
"""Elements in one child of the root: a package has one key, of about 25."""
_MOST = 200_000
"""Children of the root."""
_LONGEST_TEXT = 65_536


@dataclass(slots=True)
class Element:
    """One element; its text is what stands before, between and after its children."""

    name: str
    line: int
    attributes: dict[str, str] = field(repr=False)
    children: list[Element] = field(default_factory=list, repr=False)
    text: str = field(default="", repr=False)

    def all(self, name: str) -> list[Element]:
        """The children of that name."""
        return [child for child in self.children if child.name == name]

    def one(self, name: str) -> Element | None:
        """The child of that name. Raises EnrolError where there are several."""
        found = self.all(name)
        if len(found) > 1:
            raise EnrolError(f"it has <{name}> twice")
        return found[0] if found else None

    def said(self, name: str) -> str:
        """The text of the child of that name, without what surrounds it; empty where there is none."""
        child = self.one(name)
        return "" if child is None else child.text.strip()

    def check_children(self, *known: str) -> None:
        """Raise EnrolError where a child has another name than these."""
        if any(child.name not in known for child in self.children):
            raise EnrolError(f"there is something in <{self.name}> that is not understood here")


def read(data: bytes, root: Callable[[Element], None], child: Callable[[Element], None]) -> None:
    """Read a file: `root` is called with its root, without children, then `child` with each of these, whole.

    Raises EnrolError with the line, and what the two raise. The message holds nothing of the file.
    """
    if len(data) > LONGEST:
        raise EnrolError(f"the file is larger than {LONGEST >> 20} MiB; split it")
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    reader = _Reader(parser, root, child)
    parser.XmlDeclHandler = reader.declaration
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes it by position alone
    except expat.ExpatError as error:
        raise EnrolError(f"line {error.lineno}: this is no sound XML: {expat.ErrorString(error.code)}") from None


class _Reader:
    """What has been read so far of the child of the root that is being read."""

    def __init__(
        self, parser: expat.XMLParserType, root: Callable[[Element], None], child: Callable[[Element], None]
    ) -> None:
        self._parser = parser
        self._root = root
        self._child = child
        self._open: list[Element] = []
        self._elements = 0
        self._children = 0

    def declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise self._refusal("the file is in an encoding that is not read here; save it as UTF-8")

    def doctype(self, _name: str, _system: str | None, _public: str | None, _internal: bool) -> None:
        raise self._refusal("the file has a document type declaration, which no PSKC file has; it was not looked at")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) >= _DEEPEST:
            raise self._refusal("the elements lie too deep in each other")
        element = Element(_short(name), self._parser.CurrentLineNumber, attributes)
        if not self._open:
            self._root(element)
        elif len(self._open) == 1:
            self._elements = 0
            self._children += 1
            if self._children > _MOST:
                raise self._refusal("the file has too many parts; split it")
        else:
            self._elements += 1
            if self._elements > _MOST_IN_ONE:
                raise self._refusal("a part of the file has too many elements")
            self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _name: str) -> None:
        element = self._open.pop()
        if len(self._open) == 1:
            self._child(element)

    def characters(self, text: str) -> None:
        if len(self._open) < 2:
            return
        element = self._open[-1]
        if len(element.text) + len(text) > _LONGEST_TEXT:
            raise self._refusal("a text is too long")
        element.text += text

    def _refusal(self, reason: str) -> EnrolError:
        return EnrolError(f"line {self._parser.CurrentLineNumber}: {reason}")


def _short(name: str) -> str:
    namespace, _, local = name.rpartition(" ")
    known = namespace == PSKC or local in _BORROWED.get(namespace, ())
    return local if known else f"{{{namespace}}}{local}"
