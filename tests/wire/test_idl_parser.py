"""The reader of interface files."""

from __future__ import annotations

import pytest

from otpbridge.wire import idl


def test_everything_that_an_interface_may_declare_is_read() -> None:
    """Types, arrays, maps, optional values, nested records and enumerations, with comments anywhere."""
    interface = idl.parse(
        """# About.
        interface org.example.more-or_less2
        type Colour (red, green) # trailing
        type Point (x: int, y: ?float, tags: [][string]string, inner: (a: bool, b: ?[]Colour))
        method Move(to: Point) -> (at: Point)
        method Nothing() -> ()
        error Gone (what: any)
        """
    )
    assert interface.name == "org.example.more-or_less2"
    assert interface.types["Colour"] == idl.Enumeration(("red", "green"))
    assert interface.types["Point"] == idl.Record(
        {
            "x": idl.Primitive("int"),
            "y": idl.Optional(idl.Primitive("float")),
            "tags": idl.Array(idl.Map(idl.Primitive("string"))),
            "inner": idl.Record({"a": idl.Primitive("bool"), "b": idl.Optional(idl.Array(idl.Named("Colour")))}),
        }
    )
    assert interface.methods["Move"].reply == idl.Record({"at": idl.Named("Point")})
    assert interface.methods["Nothing"].parameters == idl.Record({})
    assert interface.errors == {"Gone": idl.Record({"what": idl.Primitive("any")})}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("method A() -> ()", 1),
        ("interface a.b\nmethod A() -> (", 2),
        ("interface a.b\nmethod A() (x: int)", 2),
        ("interface a.b\n\ntype A (x: int, y)", 3),
        ("interface a.b\ntype A (x: int)\ntype A (y: int)", 3),
        ("interface a.b\ntype A (x: int, x: int)", 2),
        ("interface a.b\nerror A (x, y)", 2),
        ("interface a.b\nthing A ()", 2),
        ("interface a.b\ntype A {}", 2),
        ("interface a.b\nmethod A", 2),
        ("interface a.b\ntype A (x: ->)", 2),
    ],
)
def test_a_wrong_interface_is_refused_with_its_line(text: str, line: int) -> None:
    """Who writes an interface file learns where it is wrong."""
    with pytest.raises(idl.IdlError, match=f"^line {line}: "):
        idl.parse(text)


def test_an_interface_that_is_not_ours_is_named() -> None:
    """Asking for an interface that this package does not have says so."""
    with pytest.raises(idl.IdlError, match=r"org\.example\.Other"):
        idl.load("org.example.Other")
