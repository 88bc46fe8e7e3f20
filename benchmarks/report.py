"""From what was measured to what was promised: the targets, and a table."""
# ruff: noqa: RUF001 - the multiplication sign is meant

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plan import MILLION

Record = dict[str, Any]

DISTURBED = 0.25
"""Cores that others may use during a round that counts."""
ENOUGH = 3
"""Undisturbed rounds, without which all rounds count."""


@dataclass(frozen=True, slots=True)
class Target:
    """A promise. `met` is None where it was not measured; `reached` then says why."""

    what: str
    bound: str
    reached: str
    met: bool | None

    @property
    def answer(self) -> str:
        """Yes or no."""
        return {True: "yes", False: "NO", None: "not measured"}[self.met]


def _quiet(*sides: Sequence[Record]) -> list[tuple[Record, ...]]:
    """The rounds in which others left the machine alone, or all of them where too few are left.

    It is decided by what others used of the machine, never by what the round gave.
    """
    rounds = list(zip(*sides, strict=True))
    quiet = [samples for samples in rounds if all(sample["foreign"] <= DISTURBED for sample in samples)]
    return quiet if len(quiet) >= ENOUGH else rounds


def middle(samples: Sequence[Record], field: str) -> float:
    """The median of a field over rounds."""
    return statistics.median(sample[field] for (sample,) in _quiet(samples))


def ratio(ours: Sequence[Record], theirs: Sequence[Record], field: str) -> float:
    """The median of the ratios round by round: what slowed both down is not in it."""
    return statistics.median(a[field] / b[field] for a, b in _quiet(ours, theirs))


def targets(results: Record) -> list[Target]:
    """Every promise, with what was reached."""
    return [
        *_of(results, "pam", _pam_targets, "PAM beside pam_google_authenticator"),
        *_of(results, "socket", _socket_targets, "verifications over the socket"),
        *_of(results, "slow", _slow_targets, "verifications with slow flushes"),
        *_of(results, "flat", _flat_targets, "cost by number of users"),
        *_of(results, "start", _start_targets, "start"),
        *_of(results, "memory", _memory_targets, "memory after load"),
        *_of(results, "help", _help_targets, "otpbridge --help"),
        *_import_targets(results),
    ]


def _of(results: Record, scenario: str, make: Any, what: str) -> Iterator[Target]:
    reason = results["invalid"].get(scenario)
    if reason is None:
        yield from make(results)
    else:
        yield Target(what, "", reason.splitlines()[0], None)


def _pam_targets(results: Record) -> Iterator[Target]:
    ours, google = results["pam"]["otpbridge"], results["pam"]["google"]
    one = ratio(ours["1"], google["1"], "median")
    yield Target(
        "PAM login, 1 process: median beside pam_google_authenticator",
        "≤ 1.0 ×",
        f"{one:.2f} × ({middle(ours['1'], 'median'):.3f} against {middle(google['1'], 'median'):.3f} ms)",
        one <= 1.0,
    )
    eight = ratio(ours["8"], google["8"], "rate")
    yield Target(
        "PAM logins per second, 8 processes, beside pam_google_authenticator",
        "≥ 1.5 ×",
        f"{eight:.2f} × ({middle(ours['8'], 'rate'):,.0f} against {middle(google['8'], 'rate'):,.0f}/s)",
        eight >= 1.5,
    )
    refused = sum(sample["refused"] for samples in ours.values() for sample in samples)
    calls = sum(sample["calls"] for samples in ours.values() for sample in samples)
    yield Target("PAM logins refused", "0", f"{refused} of {calls:,}", refused == 0)


def _socket_targets(results: Record) -> Iterator[Target]:
    for mode, bound, name in (
        ("kept", 10_000, "64 kept connections"),
        ("each", 6000, "a connection per call, 64 at once"),
    ):
        samples = results["socket"][mode]["64"]
        rate, p99 = middle(samples, "rate"), middle(samples, "p99")
        yield Target(f"verifications per second, {name}", f"≥ {bound:,}", f"{rate:,.0f}", rate >= bound)
        yield Target(f"p99, {name}", "≤ 25 ms", f"{p99:.1f} ms", p99 <= 25)


def _slow_targets(results: Record) -> Iterator[Target]:
    slow = results["slow"]
    many, one = slow["kept"]["64"], slow["kept"]["1"]
    each = ratio(many, one, "rate")
    extra = results["plan"]["slow_ms"]
    yield Target(
        f"flushes {extra} ms slower: 64 kept connections beside one commit each",
        "≥ 15 ×",
        f"{each:.1f} × ({middle(many, 'rate'):,.0f} against {middle(one, 'rate'):,.0f}/s)",
        each >= 15,
    )


def _flat_targets(results: Record) -> Iterator[Target]:
    flat = results["flat"]
    sizes = list(flat)
    for name, what, field in (
        ("few", "10 kept connections", "rate"),
        ("many", "64 kept connections", "rate"),
        ("pam", "PAM, 1 process, median", "median"),
    ):
        small, large = next((size for size in sizes if flat[size][name]), sizes[-1]), sizes[-1]
        if small == large:
            continue
        first, last = flat[small][name], flat[large][name]
        cost = ratio(last, first, field) if field == "median" else ratio(first, last, field)
        complete = int(large) >= MILLION
        yield Target(
            f"cost with {int(large):,} users beside {int(small):,}: {what}",
            "≤ 1.2 ×",
            f"{cost:.2f} ×",
            cost <= 1.2 if complete or cost > 1.2 else None,
        )


def _start_targets(results: Record) -> Iterator[Target]:
    yield _with_a_million(results, "ready after", 0.5, statistics.median(results["ready_seconds"]), "{:.2f} s")
    yield _with_a_million(results, "memory after start", 80, max(results["rss_start_mib"]), "{:.1f} MiB")


def _memory_targets(results: Record) -> Iterator[Target]:
    yield _with_a_million(results, "memory after load", 80, results["rss_load_mib"], "{:.1f} MiB")


def _with_a_million(results: Record, what: str, bound: float, reached: float, form: str) -> Target:
    size = results["plan"]["sizes"][-1]
    met = reached <= bound
    unit = form.partition(" ")[2]
    # With fewer users a promise can be seen broken, but not kept.
    return Target(
        f"{what}, {size:,} users",
        f"≤ {bound:g} {unit}",
        form.format(reached),
        met if size >= MILLION or not met else None,
    )


def _help_targets(results: Record) -> Iterator[Target]:
    spent = results["help_cpu_ms"]
    yield Target("otpbridge --help, processor time", "≤ 150 ms", f"{spent:.0f} ms", spent <= 150)


def _import_targets(results: Record) -> Iterator[Target]:
    size = str(results["plan"]["sizes"][-1])
    rate = results["import"][size]["tokens_per_second"]
    yield Target(f"otpbridge import, {int(size):,} tokens, per second", "≥ 5,000", f"{rate:,.0f}", rate >= 5000)


# --- the table ---------------------------------------------------------------------------------------------


def markdown(results: Record, command: str) -> str:
    """The whole report."""
    lines = [
        "# What otpbridge costs",
        "",
        *_circumstances(results, command),
        "## Promised and reached",
        "",
        *_table(
            ("", "promised", "reached", "kept"),
            [(target.what, target.bound, target.reached, target.answer) for target in targets(results)],
        ),
    ]
    lines += [f"\n**Invalid, {name}**: {reason}" for name, reason in results["invalid"].items()]
    for scenario, make in (
        ("pam", _pam_table),
        ("socket", _socket_table),
        ("slow", _slow_table),
        ("flat", _flat_table),
    ):
        if scenario not in results["invalid"]:
            lines += ["", *make(results)]
    lines += ["", "## Import", "", *_import_table(results)]
    if "audit" in results:
        lines += [
            "",
            f"Audit log of the largest store after all this, by `otpbridge audit verify`: {results['audit']}",
        ]
    return "\n".join(lines) + "\n"


def _circumstances(results: Record, command: str) -> list[str]:
    about = results["machine"]
    made = f"""Made by `{command}` on {about["date"]}, in {results["minutes"]:.0f} minutes. Figures are medians of
{results["plan"]["rounds"]} rounds. What is compared was measured in turn, and a ratio is the median of the rounds'
ratios. Rounds in which others used more than {DISTURBED} of a core are left out where {ENOUGH} better ones remain."""
    machine = f"""Machine: {about["processor"]}, {about["cores"]} cores, {about["memory_gib"]} GiB; Linux
{about["kernel"]}, {about["file_system"]}, {about["flush_ms"]:.3f} ms to flush 4 KiB; Python {about["python"]}. Load
average before: {about["load_before"]:.2f}. Cores taken by others while it was measured, the kernel's own threads
among them: {_foreign(results):.2f} (median)."""
    how = """otpbridge runs as it is installed: each verification is on disk (SQLite, WAL, `synchronous=FULL`),
counted by back-off and in the audit log before it is answered. Load generator and daemon share the cores. Every code
was used once. A run in which otpbridge refused a right code counts for nothing. pam_google_authenticator and pam_oath
flush their file but not its folder, and have neither back-off nor an audit log."""
    return [line for text in (made, machine, how) for line in (" ".join(text.split()), "")]


def _foreign(results: Record) -> float:
    return statistics.median([sample["foreign"] for sample in _samples(results)] or [0.0])


def _samples(found: Any) -> Iterator[Record]:
    if isinstance(found, dict):
        if "foreign" in found:
            yield found
        else:
            for value in found.values():
                yield from _samples(value)
    elif isinstance(found, list):
        for value in found:
            yield from _samples(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


_NAMES = {
    "permit": "pam_permit, which asks nothing",
    "otpbridge": "**pam_otpbridge** and daemon",
    "google": "pam_google_authenticator, TOTP",
}


def _pam_name(key: str) -> str:
    return _NAMES.get(key) or f"pam_oath, {int(key.removeprefix('oath')):,} users"


def _pam_table(results: Record) -> Iterator[str]:
    processes = list(results["pam"]["otpbridge"])
    yield f"## Logins through PAM ({results['plan']['sizes'][-1]:,} users in otpbridge)"
    yield ""
    head = ["module", "1 process: median / p95 ms", "processor time, us", *(f"{n}: logins/s" for n in processes)]
    rows = []
    for key, by_processes in results["pam"].items():
        one = by_processes["1"]
        row = [
            _pam_name(key),
            f"{middle(one, 'median'):.3f} / {middle(one, 'p95'):.3f}",
            f"{middle(one, 'cpu_us'):.0f}",
        ]
        for samples in by_processes.values():
            calls = sum(sample["calls"] for sample in samples)
            refused = sum(sample["refused"] for sample in samples)
            note = f" ({100 * refused / calls:.0f} % refused)" if refused else ""
            row.append(f"{middle(samples, 'rate'):,.0f}{note}")
        rows.append(row)
    yield from _table(head, rows)
    yield ""
    yield "Processor time is that of the process that logs in; otpbridged's own comes on top."


def _socket_table(results: Record) -> Iterator[str]:
    yield f"## Verifications over the socket ({results['plan']['sizes'][-1]:,} users)"
    yield ""
    yield from _wire_table(results["socket"])


def _slow_table(results: Record) -> Iterator[str]:
    yield f"## The same with every flush {results['plan']['slow_ms']} ms slower"
    yield ""
    yield from _wire_table(results["slow"])


def _wire_table(found: Record) -> list[str]:
    rows = [
        (
            {"kept": "kept", "each": "one per call"}[mode],
            connections,
            f"{middle(samples, 'rate'):,.0f}",
            f"{middle(samples, 'median'):.2f}",
            f"{middle(samples, 'p99'):.2f}",
        )
        for mode, by_connections in found.items()
        for connections, samples in by_connections.items()
    ]
    return _table(("connections", "at once", "verifications/s", "p50 ms", "p99 ms"), rows)


def _flat_table(results: Record) -> Iterator[str]:
    yield "## Cost by number of users"
    yield ""
    yield "HOTP, so that ten users have codes enough; users from all over the store, each of them on one connection."
    yield ""
    rows = []
    for size, found in results["flat"].items():
        wire = [f"{middle(found[name], 'rate'):,.0f}" if found[name] else "" for name in ("few", "many")]
        rows.append(
            [f"{int(size):,}", *wire, f"{middle(found['pam'], 'median'):.3f} / {middle(found['pam'], 'p95'):.3f}"]
        )
    head = ("users", "10 kept connections, verifications/s", "64 kept", "PAM, 1 process: median / p95 ms")
    yield from _table(head, rows)


def _import_table(results: Record) -> list[str]:
    rows = [
        (f"{int(size):,}", f"{found['seconds']:.2f}", f"{found['tokens_per_second']:,.0f}")
        for size, found in results["import"].items()
    ]
    return _table(("tokens", "seconds", "tokens/s"), rows)


def plain(results: Record) -> str:
    """The targets for a terminal."""
    found = targets(results)
    widths = [max(len(getattr(target, field)) for target in found) for field in ("what", "bound", "reached")]
    lines = [
        f"{target.what:<{widths[0]}}  {target.bound:>{widths[1]}}  {target.reached:<{widths[2]}}  {target.answer}"
        for target in found
    ]
    missed = sum(target.met is False for target in found)
    unknown = sum(target.met is None for target in found)
    lines.append(f"\n{len(found) - missed - unknown} kept, {missed} MISSED, {unknown} not measured.")
    return "\n".join(lines)


def write(results: Record, folder: Path, command: str) -> list[Path]:
    """Write the table and the raw figures; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, table = folder / "results.json", folder / "results.md"
    raw.write_text(json.dumps(results, indent=1) + "\n")
    table.write_text(markdown(results, command))
    return [raw, table]
