"""The report of a run: what was promised and reached, and all figures, as Markdown and JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from figures import DISTURBED, ENOUGH, Record, middle, per_core, samples_in
from plan import IN_FLIGHT
from safety import AT_ONCE, GUESSES, LIMIT
from targets import targets


def markdown(results: Record, chart: str) -> str:
    """The whole report."""
    lines = [
        "# What otpbridge costs, and what holds",
        "",
        *_circumstances(results),
        f"![Charts]({chart})",
        "",
        "## Promised and reached",
        "",
        *_table(
            ("", "target", "otpbridge", "beside", "ratio", ""),
            [
                (target.what, target.bound, target.figure, target.beside, target.ratio, target.answer)
                for target in targets(results)
            ],
        ),
    ]
    lines += [f"\n**Invalid, {name}**: {reason}" for name, reason in results["invalid"].items()]
    lines += [f"\nLeft out, {name}: {reason}" for name, reason in results["skipped"].items()]
    for scenario, make in _TABLES:
        if scenario in results and scenario not in results["invalid"]:
            lines += ["", *make(results)]
    lines += ["", *_safety_table(results), "", "## Import", "", *_import_table(results)]
    if "audit" in results:
        lines += [
            "",
            f"Audit log of the largest store after all this, by `otpbridge audit verify`: {results['audit']}",
        ]
    return "\n".join(lines) + "\n"


def _circumstances(results: Record) -> list[str]:
    about = results["machine"]
    made = f"""Made by `{results["command"]}` on {about["date"]}, in {results["minutes"]:.0f} minutes.
Figures are medians of {results["plan"]["rounds"]} rounds, or fewer where the machine was slow. What is compared was
measured in turn, and a ratio is the median of the rounds' ratios. Rounds in which others used more than {DISTURBED}
of a core are left out where {ENOUGH} better ones remain."""
    machine = f"""Machine: {about["processor"]}, {about["cores"]} cores, {about["memory_gib"]} GiB; Linux
{about["kernel"]}, {about["file_system"]}, {about["flush_ms"]:.3f} ms to flush 4 KiB; Python {about["python"]}. Load
average before: {about["load_before"]:.2f}. Cores taken by others while it was measured, the kernel's own threads
among them: {_foreign(results):.2f} (median)."""
    how = """otpbridge runs as it is installed: each verification is on disk (SQLite, WAL, `synchronous=FULL`),
counted by back-off and in the audit log before it is answered. Load generator and daemon share the cores. Every code
was used once. A run in which otpbridge refused a right code counts for nothing. pam_google_authenticator and pam_oath
flush their file but not its folder, and have neither back-off nor an audit log. The bare loop is a server that does
nothing but framing, HMAC and one conditional UPDATE, committed together with others' (SQLite, WAL,
`synchronous=FULL`), with all seeds in memory: `benchmarks/bareloop.py`."""
    versions = f"Versions: {', '.join(f'{name} {version}' for name, version in _versions(results))}."
    return [line for text in (made, machine, how, versions) for line in (" ".join(text.split()), "")]


def _foreign(results: Record) -> float:
    return statistics.median([sample["foreign"] for sample in samples_in(results)] or [0.0])


def _versions(results: Record) -> Iterator[tuple[str, str]]:
    yield from results["versions"].items()
    for name, scenario in (("PostgreSQL", "postgresql"), ("privacyIDEA", "privacyidea")):
        if scenario in results:
            yield name, results[scenario]["version"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


_NAMES = {
    "permit": "pam_permit, which asks nothing",
    "otpbridge": "**pam_otpbridge** and daemon",
    "google": "pam_google_authenticator, TOTP, DISALLOW_REUSE",
    "googlehotp": "pam_google_authenticator, HOTP",
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


def _slow_pam_table(results: Record) -> Iterator[str]:
    extra = results["plan"]["slow_ms"]
    yield f"## Logins by {IN_FLIGHT} processes, every flush {extra} ms slower"
    yield ""
    rows = [
        (manner, _NAMES[system], f"{middle(samples, 'rate'):,.0f}", *_times(samples))
        for manner, found in results["slow_pam"].items()
        for system, samples in found.items()
    ]
    yield from _table(("flushes", "module", "logins/s", "p50 ms", "p99 ms"), rows)
    yield ""
    yield (
        "`overlap`: any number of flushes goes on at once, each of them so much slower. `one by one`: the disk does "
        "one flush at a time. A real disk lies in between, as file systems let flushes share a journal commit. "
        "otpbridged flushes for all of its logins; each login by the other module flushes a file of its own."
    )


def _times(samples: Sequence[Record]) -> tuple[str, str]:
    return f"{middle(samples, 'median'):.2f}", f"{middle(samples, 'p99'):.2f}"


def _socket_table(results: Record) -> Iterator[str]:
    yield f"## Verifications over the socket ({results['plan']['sizes'][-1]:,} users)"
    yield ""
    rows = [
        (
            _MODES[mode],
            connections,
            f"{middle(samples, 'rate'):,.0f}",
            *_times(samples),
            f"{middle(samples, 'server_us'):,.0f}",
            f"{middle(results['bare'][mode][connections], 'rate'):,.0f}",
            *_times(results["bare"][mode][connections]),
        )
        for mode, by_connections in results["socket"].items()
        for connections, samples in by_connections.items()
    ]
    head = ("connections", "at once", "verifications/s", "p50 ms", "p99 ms", "daemon's processor time, us")
    yield from _table((*head, "bare loop: /s", "p50 ms", "p99 ms"), rows)


_MODES = {"kept": "kept", "each": "one per call"}


def _slow_table(results: Record) -> Iterator[str]:
    yield f"## The same with every flush {results['plan']['slow_ms']} ms slower"
    yield ""
    rows = [
        (_MODES[mode], connections, f"{middle(samples, 'rate'):,.0f}", *_times(samples))
        for mode, by_connections in results["slow"].items()
        for connections, samples in by_connections.items()
    ]
    yield from _table(("connections", "at once", "verifications/s", "p50 ms", "p99 ms"), rows)


def _privacyidea_table(results: Record) -> Iterator[str]:
    yield "## Beside privacyIDEA"
    yield ""
    found = results["privacyidea"]
    rows = []
    for clients, samples in found["clients"].items():
        row = [clients, f"{middle(samples, 'rate'):,.1f}", *_times(samples), f"{per_core(samples):,.0f}"]
        if "socket" not in results["invalid"]:
            ours = results["socket"]["each"][clients]
            row += [f"{middle(ours, 'rate'):,.0f}", *_times(ours), f"{per_core(ours):,.0f}"]
        rows.append(row)
    head = ["clients", "privacyIDEA: /s", "p50 ms", "p99 ms", "per core-second"]
    if "socket" not in results["invalid"]:
        head += ["otpbridge: /s", "p50 ms", "p99 ms", "per core-second"]
    yield from _table(head, rows)
    yield ""
    yield (
        "Both with a connection per call, by the same client program. privacyIDEA: gunicorn, one sync worker on "
        "loopback, SQLite, HOTP tokens asked for by serial, no PIN; it signs its answers and its log. Per "
        "core-second: calls for each second of the servers' processor time. "
        f"Its processes take {found['rss_mib']:.0f} MiB, and give their first answer {found['ready_seconds']:.1f} s "
        "after they were started."
    )


def _postgresql_table(results: Record) -> Iterator[str]:
    found = results["postgresql"]
    yield f"## On PostgreSQL ({results['plan']['postgresql_users']:,} users)"
    yield ""
    rows = [
        (daemons, _MODES[mode], f"{middle(samples, 'rate'):,.0f}", *_times(samples))
        for daemons in ("one", "two")
        for mode, samples in found[daemons].items()
    ]
    yield from _table(("daemons", "64 connections to each", "verifications/s", "p50 ms", "p99 ms"), rows)
    yield ""
    yield (
        f"PostgreSQL {found['version']}, `synchronous_commit=on`, over its Unix socket, on the same "
        f"{results['machine']['cores']} cores as daemons and load generators. Import: "
        f"{found['import_per_second']:,.0f} tokens/s."
    )


def _flat_table(results: Record) -> Iterator[str]:
    yield "## Cost by number of users"
    yield ""
    yield "HOTP, so that ten users have codes enough; users from all over the store, each of them on one connection."
    yield ""
    rows = []
    for size, found in results["flat"].items():
        wire = [f"{middle(found[name], 'rate'):,.0f}" if found[name] else "" for name in ("few", "many")]
        row = [f"{int(size):,}", *wire, f"{middle(found['pam'], 'median'):.3f} / {middle(found['pam'], 'p95'):.3f}"]
        oath = results["pam"].get(f"oath{size}") if "pam" not in results["invalid"] else None
        row.append(f"{middle(oath['1'], 'median'):.3f} / {middle(oath['1'], 'p95'):.3f}" if oath else "")
        rows.append(row)
    head = ("users", "10 kept connections, verifications/s", "64 kept", "PAM, 1 process: median / p95 ms")
    yield from _table((*head, "pam_oath with as many: median / p95 ms"), rows)


def _safety_table(results: Record) -> Iterator[str]:
    yield "## What holds"
    yield ""
    theirs = results.get("privacyidea_safety", {})
    cut_theirs = results.get("privacyidea_cut", {}).get("cut")
    rows = []
    for system, name in _SYSTEMS.items():
        mine = {
            scenario: results.get(scenario, {}).get(system) for scenario in ("replay", "guesses", "killed", "cut")
        }
        if system == "privacyidea":
            mine = {scenario: theirs.get(scenario) for scenario in mine} | {"cut": cut_theirs}
        if any(mine.values()):
            rows.append(
                (
                    name,
                    *_replayed(mine["replay"]),
                    *_guessed(mine["guesses"]),
                    *_lost(mine["killed"]),
                    *_lost(mine["cut"]),
                )
            )
    head = (
        "",
        f"one code from {AT_ONCE} at once: logins accepted",
        f"{GUESSES} wrong guesses at once: counted (mean)",
        f"limit of {LIMIT}, {GUESSES} at once, one right: let in",
        "kill -9: spent codes accepted again",
        "others let in",
        "power cut: spent codes accepted again",
        "others let in",
    )
    yield from _table(head, rows)
    yield ""
    yield (
        f"A limit of {LIMIT} that holds lets the right code in when it is among the first {LIMIT} of {GUESSES}: in a "
        "quarter of the rounds. kill -9 hits otpbridged or gunicorn while logins are under way, or, where there is "
        "no daemon, those that log in. Power cut: ext4 on an image, copied the moment the login had returned, the "
        f"copy mounted. privacyIDEA here has four workers. {_control(results)}"
    )


def _control(results: Record) -> str:
    """What the control of the power cut gave."""
    found = [counts for system, counts in results.get("cut", {}).items() if system.endswith(" control")]
    found += [results["privacyidea_cut"]["control"]] if "privacyidea_cut" in results else []
    if not found:
        return ""
    again, trials = (sum(counts[field] for counts in found) for field in ("again", "trials"))
    return f"Control, with all flushed before the copy: {again} of {trials} codes accepted again."


_SYSTEMS = {
    "otpbridge": "**otpbridge**",
    "google": "pam_google_authenticator, TOTP",
    "googlehotp": "pam_google_authenticator, HOTP",
    "oath": "pam_oath, HOTP",
    "privacyidea": "privacyIDEA, HOTP",
}


def _replayed(found: Record | None) -> tuple[str]:
    if found is None:
        return ("",)
    never = f", {found['never']} never" if found["never"] else ""
    return (f"{found['accepted']} for {found['codes']} codes{never}",)


def _guessed(found: Record | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return f"{statistics.mean(found['counted']):.1f}", f"{found['let_in']} of {found['rounds']}"


def _lost(found: Record | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return f"{found['again']} of {found.get('told', found['trials'])}", f"{found['let_in']} of {found['fresh']}"


_TABLES: tuple[tuple[str, Callable[[Record], Iterator[str]]], ...] = (
    ("pam", _pam_table),
    ("slow_pam", _slow_pam_table),
    ("socket", _socket_table),
    ("slow", _slow_table),
    ("flat", _flat_table),
    ("privacyidea", _privacyidea_table),
    ("postgresql", _postgresql_table),
)


def _import_table(results: Record) -> list[str]:
    rows = [
        (f"{int(size):,}", f"{found['seconds']:.2f}", f"{found['tokens_per_second']:,.0f}")
        for size, found in results["import"].items()
    ]
    return _table(("tokens", "seconds", "tokens/s"), rows)


def plain(results: Record) -> str:
    """The targets for a terminal."""
    found = targets(results)
    fields = ("what", "bound", "figure", "beside", "ratio", "answer")
    widths = [max(len(getattr(target, field)) for target in found) for field in fields]
    lines = [
        "  ".join(f"{getattr(target, field):<{width}}" for field, width in zip(fields, widths, strict=True)).rstrip()
        for target in found
    ]
    missed = sum(target.met is False for target in found)
    unknown = sum(target.met is None for target in found)
    lines.append(f"\n{len(found) - missed - unknown} met, {missed} MISSED, {unknown} not judged.")
    return "\n".join(lines)


def write(results: Record, folder: Path, name: str) -> list[Path]:
    """Write the table and the raw figures; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, table = folder / f"{name}.json", folder / f"{name}.md"
    raw.write_text(json.dumps(results, indent=1) + "\n")
    table.write_text(markdown(results, f"{name}.png"))
    return [raw, table]
