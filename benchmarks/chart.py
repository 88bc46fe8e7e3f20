"""The charts of a run, as one PNG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from figures import Record, middle
from plan import IN_FLIGHT
from safety import AT_ONCE, GUESSES

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

_OURS, _OURS_TOO, _GOOGLE, _GOOGLE_HOTP, _OATH, _PRIVACYIDEA, _BARE = (
    "#1b6ca8",
    "#6fa8cf",
    "#c8553d",
    "#e0a08f",
    "#8a8a8a",
    "#8464a8",
    "#b9c2c9",
)
_NAMES = {
    "otpbridge": "otpbridge",
    "google": "google_authenticator",
    "googlehotp": "google_authenticator, HOTP",
    "oath": "pam_oath",
    "privacyidea": "privacyIDEA",
}
_COLOURS = {
    "otpbridge": _OURS,
    "google": _GOOGLE,
    "googlehotp": _GOOGLE_HOTP,
    "privacyidea": _PRIVACYIDEA,
}
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.labelcolor": "#444444",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "font.size": 9,
}


def draw(results: Record, path: Path) -> None:
    """Draw what was measured; what is invalid or was left out says so in its place."""
    with plt.rc_context(_STYLE):
        figure, places = plt.subplots(4, 2, figsize=(11.5, 15), layout="constrained")
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)  # type: ignore[union-attr]
        for axes, (scenario, make) in zip(places.flat, _CHARTS, strict=True):
            reason = results["invalid"].get(scenario) or results["skipped"].get(scenario)
            if reason is not None:
                axes.set_axis_off()
                axes.text(0.5, 0.5, f"{scenario}: not measured", ha="center", va="center")
            else:
                make(axes, results)
        about = results["machine"]
        figure.suptitle(
            f"otpbridge with stacks, back-off and audit on, every answer durable · {about['cores']} cores, "
            f"{about['file_system']}, flush {about['flush_ms']:.2f} ms · {about['date']}",
            fontsize=10,
            color="#444444",
        )
        figure.savefig(path, dpi=110, facecolor="white")
        plt.close(figure)


_plain = FuncFormatter(lambda value, _: f"{value:,g}")


def _name(key: str) -> str:
    return _NAMES.get(key) or f"pam_oath, {int(key.removeprefix('oath')):,} users"


def _colour(key: str) -> str:
    return _COLOURS.get(key, _OATH)


def _bars(axes: Any, rows: Sequence[tuple[str, float, str]], form: str, *, log: bool = True) -> None:
    """Horizontal bars, the first row on top, each with its figure."""
    rows = rows[::-1]
    places = range(len(rows))
    values = [value for _, value, _ in rows]
    axes.barh(places, values, color=[colour for _, _, colour in rows], height=0.66)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            form.format(value), (value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
        )
    axes.set_yticks(places, [name for name, _, _ in rows])
    axes.tick_params(axis="y", length=0)
    if log:
        axes.set_xscale("log")
        # From the power of ten below all of them, for bars of a length that tells something.
        axes.set_xlim(10 ** math.floor(math.log10(min(values) / 1.5)), max(values) * 4)
        axes.xaxis.set_major_formatter(_plain)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, max([*values, 1]) * 1.18)


def _login(axes: Any, results: Record) -> None:
    rows = [
        (_name(key), middle(found["1"], "median"), _colour(key))
        for key, found in results["pam"].items()
        if key != "permit"
    ]
    _bars(axes, rows, "{:.2f} ms")
    axes.set_xlabel("ms, median (log)")
    axes.set_title("One login through PAM: less is better")


def _logins(axes: Any, results: Record) -> None:
    dashes = iter(["--", ":", "-."])
    for key, by_processes in results["pam"].items():
        if key == "permit":
            continue
        rates = [middle(samples, "rate") for samples in by_processes.values()]
        style = next(dashes) if key.startswith("oath") else "-"
        axes.plot(list(by_processes), rates, style, marker="o", ms=4, color=_colour(key), label=_name(key))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_plain)
    axes.set_xlabel("processes")
    axes.set_ylabel("logins accepted per second")
    axes.set_title("Many logins through PAM")
    axes.grid(axis="y", color="#eeeeee")
    axes.legend()


def _socket(axes: Any, results: Record) -> None:
    for mode, label, style, above in (("kept", "kept", "-", 5), ("each", "one per call", "--", -12)):
        for scenario, name, colour in (("bare", "bare loop", _BARE), ("socket", "otpbridge", _OURS)):
            found = results[scenario][mode]
            rates = [middle(samples, "rate") for samples in found.values()]
            axes.plot(list(found), rates, style, marker="o", ms=4, color=colour, label=f"{name}, {label}")
            axes.annotate(
                f"{rates[-1]:,.0f}",
                (len(rates) - 1, rates[-1]),
                xytext=(0, above),
                textcoords="offset points",
                ha="center",
            )
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_plain)
    axes.set_xlabel("connections at once")
    axes.set_ylabel("verifications per second")
    axes.set_title("Over the socket, beside a loop that does the least")
    axes.grid(axis="y", color="#eeeeee")
    axes.legend()


def _users(axes: Any, results: Record) -> None:
    flat = results["flat"]
    axes.plot(
        [int(size) for size in flat],
        [middle(found["pam"], "median") for found in flat.values()],
        "o-",
        color=_OURS,
        label="otpbridge",
    )
    if "pam" not in results["invalid"]:
        oath = {
            int(key.removeprefix("oath")): middle(found["1"], "median")
            for key, found in results["pam"].items()
            if key.startswith("oath")
        }
        axes.plot(list(oath), list(oath.values()), "o--", color=_OATH, label="pam_oath")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.1, 100)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_plain)
    axes.set_xlabel("users in the store (log)")
    axes.set_ylabel("ms for a login through PAM, median (log)")
    axes.set_title("Cost by number of users")
    axes.grid(color="#eeeeee")
    axes.legend(loc="upper left")


def _slow(axes: Any, results: Record) -> None:
    names = {"overlap": "any number at once", "one by one": "one at a time"}
    rows = [
        (f"{_name(system)}:\nflushes {names[manner]}", middle(samples, "rate"), _colour(system))
        for manner, found in results["slow_pam"].items()
        for system, samples in found.items()
    ]
    _bars(axes, rows, "{:,.0f}/s")
    axes.set_xlabel("logins per second (log)")
    axes.set_title(f"{IN_FLIGHT} logins in flight, each flush {results['plan']['slow_ms']} ms slower")


def _throughput(axes: Any, results: Record) -> None:
    rows = [
        ("bare loop", middle(results["bare"]["each"]["64"], "rate"), _BARE),
        ("otpbridge, SQLite", middle(results["socket"]["each"]["64"], "rate"), _OURS),
    ]
    if "postgresql" in results:
        rows += [
            (
                f"otpbridge, PostgreSQL,\n{count} daemon{'s' if count == 'two' else ''}",
                middle(found, "rate"),
                _OURS_TOO,
            )
            for count, found in ((count, results["postgresql"][count]["each"]) for count in ("one", "two"))
        ]
    if "privacyidea" in results:
        rows.append(
            ("privacyIDEA, one worker", middle(results["privacyidea"]["clients"]["64"], "rate"), _PRIVACYIDEA)
        )
    _bars(axes, rows, "{:,.0f}/s")
    axes.set_xlabel("verifications per second (log)")
    axes.set_title("64 clients, a connection per call")


def _found(results: Record, scenario: str) -> dict[str, Record]:
    """A scenario by system, with privacyIDEA where it was measured."""
    theirs = results.get("privacyidea_safety", {}).get(scenario)
    return results[scenario] | ({"privacyidea": theirs} if theirs else {})


def _replay(axes: Any, results: Record) -> None:
    rows = [
        (_name(system) if system != "oath" else "pam_oath", found["accepted"] / found["codes"], _colour(system))
        for system, found in _found(results, "replay").items()
    ]
    _bars(axes, rows, "{:.2f}", log=False)
    axes.axvline(1, color="#444444", lw=0.8, ls=":")
    axes.set_xlabel("logins accepted per code: 1 is right")
    axes.set_title(f"The same code from {AT_ONCE} clients at once")


def _guesses(axes: Any, results: Record) -> None:
    rows = [
        (_name(system) if system != "oath" else "pam_oath", statistics.mean(found["counted"]), _colour(system))
        for system, found in _found(results, "guesses").items()
    ]
    _bars(axes, rows, "{:.1f}", log=False)
    axes.axvline(GUESSES, color="#444444", lw=0.8, ls=":")
    axes.set_xlabel(f"guesses counted: {GUESSES} is right")
    axes.set_title(f"{GUESSES} wrong guesses at once")


_CHARTS: tuple[tuple[str, Callable[[Any, Record], None]], ...] = (
    ("pam", _login),
    ("pam", _logins),
    ("socket", _socket),
    ("flat", _users),
    ("slow_pam", _slow),
    ("socket", _throughput),
    ("replay", _replay),
    ("guesses", _guesses),
)
