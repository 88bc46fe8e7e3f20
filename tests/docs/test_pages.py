"""What the pages say can be done: links lead somewhere, commands and options exist, configurations are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import msgspec
import pytest

from otpbridge import config
from otpbridge.cli.main import cli
from otpbridge.cli.serving import otpbridged
from otpbridge.errors import ConfigError
from otpbridge.model import Factor
from otpbridge.verify import loading, registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/situations").glob("*.md")])
STACKS = ROOT / "docs/stacks.md"
MAN_PAGE = ROOT / "docs/man/otpbridge.toml.5"
FENCED = re.compile(r"^```(\w*)(?: \S+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A language, in some pages with what the block is about, and the text."""
PROGRAMS = ("otpbridge", "otpbridged")
BEFORE = re.compile(r"sudo|systemd-run|otpbridge|-.*|\w+=.*")
"""What may stand before a program on its line."""
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def name(path):
    return str(path.relative_to(ROOT))


def blocks(page, *languages):
    """The fenced blocks of these languages."""
    return [text for language, text in FENCED.findall(page.read_text()) if language in languages]


def prose(page):
    """The page without its fenced blocks."""
    return FENCED.sub("", page.read_text())


def anchors(page):
    """What a link may point to in a page, as code hosts name headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page):
    """Relative links name files and headings that exist."""
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_index():
    """docs/README.md names every page in docs."""
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index


# --- commands ---


def words_of_commands(text):
    """Every call of our programs in a text: the program's name, and its arguments."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\||&&|;|<|>", line.lstrip("$ ")):
            try:
                words = shlex.split(part.strip(" '&"), comments=True)
            except ValueError:
                continue  # half of a quoted text
            places = [place for place, word in enumerate(words) if Path(word).name in PROGRAMS]
            if places and all(BEFORE.fullmatch(word) for word in words[: places[-1]]):
                yield Path(words[places[-1]]).name, words[places[-1] + 1 :]


def all_commands():
    found = []
    for page in PAGES:
        for text in blocks(page, "sh", "console", ""):
            found += [(name(page), *command) for command in words_of_commands(text)]
        for inline in re.findall(r"`(otpbridged? [^`]+)`", prose(page)):
            found += [(name(page), *command) for command in words_of_commands(inline.replace("\n", " "))]
    return found


def parse(program, words):
    """Parse a command line as click does, without running it. Raises click.UsageError."""
    command, context = (cli if program == "otpbridge" else otpbridged), None
    while True:
        try:
            context = command.make_context(program, list(words), parent=context)
        except click.MissingParameter:
            raise
        except click.BadParameter:
            return  # a value that stands for another, such as FILE
        except click.exceptions.Exit:
            return  # --version, --help
        if not isinstance(command, click.Group):
            return
        program, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


def test_every_command_shown_exists():
    """Commands, options and the number of arguments in the pages are those of the program."""
    found = all_commands()
    assert len(found) > 30
    assert {program for _, program, _ in found} == {"otpbridge", "otpbridged"}
    for page, program, words in found:
        try:
            parse(program, words)
        except click.UsageError as error:
            pytest.fail(f"{page}: {program} {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("wrong", ["user add", "user ad alice", "verify --cleint c alice", "token resync ID CODE1"])
def test_a_command_that_does_not_exist_would_be_found(wrong):
    """The check above can fail."""
    with pytest.raises(click.UsageError):
        parse("otpbridge", wrong.split())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_to_install_is_in_the_checkout(page):
    """What the pages have installed is there; only what is built is not."""
    for text in blocks(page, "sh"):
        for path in re.findall(r"(?<![\w/])(?:systemd|docs|pam)/[\w./*-]+", text):
            if not path.startswith("pam/build/"):
                assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_pam_line_has_options_that_the_module_knows(page):
    """An unknown option would refuse every login."""
    known = set(re.findall(r'^    \{"(\w+)"', (ROOT / "pam/options.c").read_text(), re.MULTILINE))
    assert "nullok" in known
    for text in blocks(page, "", "text"):
        for options in re.findall(r"pam_otpbridge\.so(.*)$", text, re.MULTILINE):
            assert {option.partition("=")[0] for option in options.split()} <= known


# --- configuration ---


def man_page_examples():
    text = MAN_PAGE.read_text()
    return re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", text, re.MULTILINE | re.DOTALL)


def test_every_configuration_shown_is_accepted():
    """The TOML in the pages, in the man page and in the commands that write it."""
    pages = [text for page in PAGES for text in blocks(page, "toml")]
    written = [
        text.encode().decode("unicode_escape")
        for page in PAGES
        for block in blocks(page, "sh")
        for text in re.findall(r"printf '(\[.*?)' \|", block)
    ]
    assert pages
    assert written
    for text in [*pages, *written, *man_page_examples()]:
        stacks = loading.load(config.parse(text))
        faults = {made.fault for stack in stacks.values() for made in stack.made.values() if made.fault}
        # Some pages show verifiers that only a reader of them has.
        assert all(fault.startswith("there is no verifier `") for fault in faults), faults


def test_a_rule_that_no_daemon_takes_would_be_found():
    """The check above can fail."""
    with pytest.raises(ConfigError, match="unknown control"):
        loading.load(config.parse("[stacks.a]\nrules = ['requird totp']\n"))


def test_the_table_of_verifiers_is_that_of_the_program():
    """docs/stacks.md names every builtin verifier with its factor and its options."""
    row = r"^\| (`[a-z0-9`, ]+`) \| (first|second|none) \|.*\|([^|]*)\|$"
    rows = re.findall(row, STACKS.read_text(), re.MULTILINE)
    shown = {
        name: (factor, set(re.findall(r"`(\w+)`", options)))
        for names, factor, options in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    words = {Factor.FIRST: "first", Factor.SECOND: "second", Factor.NEITHER: "none"}
    builtin = {name: here.load() for name, here in registry.installed().items() if here.own}
    assert shown == {
        name: (words[getattr(kind, "factor", Factor.SECOND)], {option.name for option in registry.options_of(kind)})
        for name, kind in builtin.items()
    }


NAMED = {"callers": config.CallerEntry, "clients": config.ClientEntry, "stacks": config.StackEntry}
HOST = msgspec.structs.fields(config.RelayHost)
SECTIONS = {"callers": "[[callers]]", "clients": "[clients.NAME]", "stacks": "[stacks.NAME]"}
FROM_THROTTLE = {"limit", "first_wait", "longest_wait"}
"""Keys of [policy] whose default is what [throttle] says."""


def settings():
    """Every key that can be set: section, key, default."""
    for field in msgspec.structs.fields(config.Config):
        kind = NAMED.get(field.name, type(field.default))
        if not issubclass(kind, msgspec.Struct):
            yield "Top level", field.name, field.default
            continue
        # What a client or a stack says otherwise than [policy] is described there.
        shared = config.Policy.__struct_fields__ if issubclass(kind, config.PolicyChange) else ()
        own = set(kind.__struct_fields__) - set(shared)
        for key in msgspec.structs.fields(kind):
            # Nor is a section of a section that stands by itself too.
            if (field.name, key.name) == ("relays", "hosts"):
                yield from (("[relays.hosts.NAME]", each.name, each.default) for each in HOST)
            elif key.name in own and not isinstance(key.default, msgspec.Struct):
                yield SECTIONS.get(field.name, f"[{field.name}]"), key.name, key.default


def entries():
    """Every key that the man page has: section and key, with its value."""
    found = {}
    section = ""
    for line in MAN_PAGE.read_text().splitlines():
        if line.startswith(".Ss "):
            section = line.removeprefix(".Ss ")
        elif match := re.match(r"\.It Ic (\w+) No = (.*)", line):
            found[section, match[1]] = match[2]
    return found


def test_the_man_page_has_every_key_and_no_other():
    """otpbridge.toml(5) names each section and key that the daemon reads."""
    keys = {(section, key) for section, key, _ in settings()} - {("Top level", "verifiers")}
    assert set(entries()) == keys
    assert ".Ss [verifiers.NAME]" in MAN_PAGE.read_text()


def test_the_man_page_has_the_defaults():
    """The values in otpbridge.toml(5) are the defaults of the program."""
    shown = entries()
    for section, key, default in settings():
        from_throttle = section == "[policy]" and key in FROM_THROTTLE
        expected = getattr(config.Throttle(), key) if from_throttle else default
        if isinstance(expected, bool) or not isinstance(expected, int | str):
            continue
        value = re.sub(r"^(Qq )?Ar ", "", shown[section, key]).strip('"')
        assert value == str(expected), key
