"""The Python types say what the interface files say."""

from __future__ import annotations

import dataclasses
import enum
import itertools
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from otpbridge.model import Happening
from otpbridge.otp.diagnose import FaultKind
from otpbridge.wire import idl, messages
from otpbridge.wire.messages import Request

INTERFACES = [messages.VERIFY, messages.ENROLL, messages.ADMIN, messages.NOTICES, messages.RELAY, messages.METRICS]
SIMPLE = {"string": inspect.StrType, "int": inspect.IntType, "bool": inspect.BoolType, "float": inspect.FloatType}


def requests() -> dict[str, type[Request[Any]]]:
    """Every call that messages.py defines, by its method."""
    return {
        kind.METHOD: kind for kind in vars(messages).values() if isinstance(kind, type) and hasattr(kind, "METHOD")
    }


def differences(
    declared: idl.Type, found: inspect.Type, where: str, interface: idl.Interface, *, asked: bool
) -> list[str]:
    """What a Python type has different from the declared one. `asked`: in parameters, which must be as strict."""
    if isinstance(declared, idl.Named):
        return differences(interface.types[declared.name], found, where, interface, asked=asked)
    if isinstance(declared, idl.Array) and isinstance(found, inspect.VarTupleType):
        return differences(declared.of, found.item_type, f"{where}[]", interface, asked=asked)
    if isinstance(declared, idl.Record) and isinstance(found, inspect.StructType):
        return record_differences(declared, found, where, interface, asked=asked)
    return [] if leaf_fits(declared, found, asked=asked) else [f"{where}: {declared}, {found}"]


def leaf_fits(declared: idl.Type, found: inspect.Type, *, asked: bool) -> bool:
    """Whether a type without fields is as declared. A reply may fill an enumeration from a plain text."""
    match declared, found:
        case idl.Primitive("object"), inspect.DictType():
            return True
        case idl.Primitive(name), _:
            return type(found) is SIMPLE.get(name)
        case idl.Enumeration(names), inspect.EnumType(kind):
            return tuple(member.value for member in kind) == names
        case idl.Enumeration(), inspect.StrType():
            return not asked
    return False


def record_differences(
    declared: idl.Record, found: inspect.StructType, where: str, interface: idl.Interface, *, asked: bool
) -> list[str]:
    """The same for the fields of a record."""
    fields = {field.encode_name: field for field in found.fields}
    wrong = [f"{where}.{name}: only one side has it" for name in fields.keys() ^ declared.fields.keys()]
    if asked and not found.forbid_unknown_fields:
        wrong.append(f"{where}: unknown fields are let through")
    for name in fields.keys() & declared.fields.keys():
        kind, field, place = declared.fields[name], fields[name], f"{where}.{name}"
        inner = field.type
        optional = isinstance(kind, idl.Optional)
        if optional:
            kind = kind.of
            if not isinstance(inner, inspect.UnionType) or not inner.includes_none or field.default is not None:
                wrong.append(f"{place}: optional, {inner}")
                continue
            (inner,) = (option for option in inner.types if not isinstance(option, inspect.NoneType))
        if field.required is optional:
            wrong.append(f"{place}: required {field.required}, optional {optional}")
        wrong += differences(kind, inner, place, interface, asked=asked)
    return wrong


@pytest.mark.parametrize("name", INTERFACES)
def test_the_interface_file_and_the_types_have_the_same_methods(name: str) -> None:
    """Whoever reads the interface file finds every method, and no other."""
    declared = {f"{name}.{method}" for method in idl.load(name).methods}
    assert declared == {method for method in requests() if method.rpartition(".")[0] == name}


@pytest.mark.parametrize("method", sorted(requests()))
def test_parameters_and_reply_are_as_declared(method: str) -> None:
    """Names, types, what may be left out and what values an enumeration has are the same on both sides."""
    name, _, short = method.rpartition(".")
    interface, request = idl.load(name), requests()[method]
    declared = interface.methods[short]
    for record, kind, asked in ((declared.parameters, request, True), (declared.reply, request.REPLY, False)):
        found = inspect.type_info(kind)
        assert isinstance(found, inspect.StructType)
        assert record_differences(record, found, method, interface, asked=asked) == []


def test_what_call_returns_is_what_the_reply_says() -> None:
    """The type that `client.call` promises to mypy is the one it decodes."""
    for request in requests().values():
        (promised,) = get_args(request.__orig_bases__[0])
        assert promised is request.REPLY


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("user", {"user": int}),
        ("responses", {"responses": str}),
        ("client", {"client": str}),
        ("nullok", {}),
    ],
)
def test_the_comparison_sees_a_difference(field: str, change: dict[str, Any]) -> None:
    """A type changed by accident is found: the check above can fail."""
    right = {
        "user": str,
        "responses": tuple[str, ...],
        "client": (str | None, None),
        "stack": (str | None, None),
        "context": (messages.ContextFields | None, None),
        "combined": (bool | None, None),
        "nullok": (bool | None, None),
    }
    fields = {**right, **change}
    if not change:
        del fields[field]
    wrong = msgspec.defstruct(
        "Check",
        [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in fields.items()],
        kw_only=True,
        forbid_unknown_fields=True,
    )
    interface = idl.load(messages.VERIFY)
    found = inspect.type_info(wrong)
    assert isinstance(found, inspect.StructType)
    named = record_differences(interface.methods["Check"].parameters, found, "Check", interface, asked=True)
    assert named
    assert all(text.startswith(f"Check.{field}") for text in named)


@pytest.mark.parametrize("name", [*INTERFACES, "org.varlink.service"])
def test_every_type_that_is_used_is_declared(name: str) -> None:
    """An interface file stands alone, as `varlinkctl` and code generators need it."""
    interface = idl.load(name)
    assert interface.name == name

    def used(kind: Any) -> set[str]:
        if isinstance(kind, idl.Named):
            return {kind.name}
        if isinstance(kind, idl.Record):
            return set().union(*map(used, kind.fields.values()))
        return used(kind.of) if dataclasses.is_dataclass(kind) and hasattr(kind, "of") else set()

    records = [*interface.errors.values(), *interface.types.values()]
    for method in interface.methods.values():
        records += [method.parameters, method.reply]
    assert set().union(*map(used, records)) <= interface.types.keys()


def test_the_faults_of_a_code_are_those_of_the_interface() -> None:
    """What the diagnosis of a wrong code may say is declared in the interface."""
    declared = idl.load(messages.ENROLL).types["Fault"]
    assert isinstance(declared, idl.Enumeration)
    assert {kind.value for kind in FaultKind} <= set(declared.names)


def test_types_that_two_interfaces_share_are_the_same() -> None:
    """A Token is a Token in both interfaces, and a Kind a Kind in all."""
    for one, other in itertools.combinations(map(idl.load, INTERFACES), 2):
        for name in one.types.keys() & other.types.keys():
            assert one.types[name] == other.types[name], name


def test_the_happenings_are_those_of_the_interface() -> None:
    """Whoever reads the interface file knows every event that a hook may get."""
    declared = idl.load(messages.NOTICES).types["Happening"]
    assert isinstance(declared, idl.Enumeration)
    assert declared.names == tuple(Happening)


def test_enumerations_are_the_words_of_the_model() -> None:
    """Enumerations in messages are the model's own, so no second list can drift."""
    for request in requests().values():
        for kind in (request, request.REPLY):
            for field in msgspec.structs.fields(kind):
                if isinstance(field.type, type) and issubclass(field.type, enum.Enum):
                    assert field.type.__module__ == "otpbridge.model"
