"""The Varlink interface files (*.varlink) of this package, read and parsed (varlink.org, "Interface Definition")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from otpbridge.errors import ProtocolError

_TOKEN = re.compile(r"\s+|#[^\n]*|(?P<token>->|\[string\]|\[\]|[A-Za-z][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_-]+)*|[():,?])")
_PRIMITIVES = frozenset({"bool", "int", "float", "string", "object", "any"})


class IdlError(ProtocolError):
    """An interface file is missing or not Varlink."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """bool, int, float, string, object (foreign JSON) or any."""

    name: str


@dataclass(frozen=True, slots=True)
class Named:
    """A type that the interface declares elsewhere."""

    name: str


@dataclass(frozen=True, slots=True)
class Enumeration:
    """One of some names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object with these fields, in order."""

    fields: dict[str, Type]


@dataclass(frozen=True, slots=True)
class Array:
    """A list of one type."""

    of: Type


@dataclass(frozen=True, slots=True)
class Map:
    """A JSON object with free keys and values of one type."""

    of: Type


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be null or left out."""

    of: Type


Type = Primitive | Named | Enumeration | Record | Array | Map | Optional


@dataclass(frozen=True, slots=True)
class Method:
    """A method with its parameters and its reply."""

    name: str
    parameters: Record
    reply: Record


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface: what it declares, and its text as peers may ask for it."""

    name: str
    text: str
    types: dict[str, Type]
    methods: dict[str, Method]
    errors: dict[str, Record]


@cache
def load(name: str) -> Interface:
    """The interface with this qualified name (`org.otpbridge.Verify`). Raises IdlError if this package has none."""
    try:
        text = resources.files("otpbridge.wire").joinpath(f"{name}.varlink").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise IdlError(f"otpbridge has no interface {name}") from error
    return parse(text)


def parse(text: str) -> Interface:
    """Read one interface definition. Raises IdlError with the line where the text is wrong."""
    return _Parser(text).interface()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._tokenize())
        self._position = 0

    def _tokenize(self) -> Iterator[tuple[str, int]]:
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise self._error("unexpected character", position)
            if token := match["token"]:
                yield token, position
            position = match.end()

    def _error(self, what: str, position: int) -> IdlError:
        return IdlError(f"line {self._text.count(chr(10), 0, position) + 1}: {what}")

    def _peek(self) -> str:
        return self._tokens[self._position][0] if self._position < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> str:
        if self._position == len(self._tokens):
            raise self._error(f"the text ends before {wanted or 'a name'}", len(self._text))
        token, position = self._tokens[self._position]
        if (wanted and token != wanted) or (not wanted and not token[0].isalpha()):
            raise self._error(f"expected {wanted or 'a name'}, found {token}", position)
        self._position += 1
        return token

    def interface(self) -> Interface:
        self._take("interface")
        result = Interface(self._take(), self._text, {}, {}, {})
        while self._position < len(self._tokens):
            position = self._tokens[self._position][1]
            keyword, name = self._take(), self._take()
            if name in result.types or name in result.methods or name in result.errors:
                raise self._error(f"{name} is declared twice", position)
            match keyword:
                case "type":
                    result.types[name] = self._braces()
                case "error":
                    result.errors[name] = self._record()
                case "method":
                    parameters = self._record()
                    self._take("->")
                    result.methods[name] = Method(name, parameters, self._record())
                case _:
                    raise self._error(f"expected type, method or error, found {keyword}", position)
        return result

    def _type(self) -> Type:
        match self._peek():
            case "?":
                self._take("?")
                return Optional(self._type())
            case "[]":
                self._take("[]")
                return Array(self._type())
            case "[string]":
                self._take("[string]")
                return Map(self._type())
            case "(":
                return self._braces()
        name = self._take()
        return Primitive(name) if name in _PRIMITIVES else Named(name)

    def _record(self) -> Record:
        position = self._tokens[self._position][1] if self._peek() else len(self._text)
        found = self._braces()
        if not isinstance(found, Record):
            raise self._error("expected fields, found names alone", position)
        return found

    def _braces(self) -> Record | Enumeration:
        """`(name: type, …)` or `(name, …)`; empty braces are a record without fields."""
        self._take("(")
        fields: dict[str, Type | None] = {}
        while self._peek() != ")":
            if fields:
                self._take(",")
            name = self._take()
            if name in fields:
                raise self._error(f"{name} is declared twice", self._tokens[self._position - 1][1])
            fields[name] = None
            if self._peek() == ":":
                self._take(":")
                fields[name] = self._type()
        closing = self._tokens[self._position][1]
        self._take(")")
        typed = {name: kind for name, kind in fields.items() if kind is not None}
        if len(typed) == len(fields):
            return Record(typed)
        if typed:
            raise self._error("fields and bare names are mixed", closing)
        return Enumeration(tuple(fields))
