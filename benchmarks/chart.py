"""The chart of a run, as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from report import middle

mpl.use("Agg")

from matplotlib import pyplot as plt

_OURS, _GOOGLE, _OATH = "#1b6ca8", "#c8553d", "#8a8a8a"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw what was measured; a scenario that is invalid leaves its place empty."""
    figure, ((login, logins), (socket, flat)) = plt.subplots(2, 2, figsize=(11, 8.5), layout="constrained")
    for axes, scenario, make in (
        (login, "pam", _login),
        (logins, "pam", _logins),
        (socket, "socket", _socket),
        (flat, "flat", _flat),
    ):
        if scenario in results["invalid"]:
            axes.set_axis_off()
            axes.text(0.5, 0.5, f"{scenario}: not measured", ha="center", va="center")
        else:
            make(axes, results)
    about = results["machine"]
    figure.suptitle(
        f"otpbridge, every answer durable and audited · {about['cores']} cores, {about['file_system']}, "
        f"flush {about['flush_ms']:.2f} ms · {about['date']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _name(key: str) -> str:
    known = {"otpbridge": "otpbridge", "google": "google_authenticator"}
    return known.get(key) or f"oath, {int(key.removeprefix('oath')):,} users"


def _colour(key: str) -> str:
    return {"otpbridge": _OURS, "google": _GOOGLE}.get(key, _OATH)


def _login(axes: Any, results: dict[str, Any]) -> None:
    keys = [key for key in results["pam"] if key != "permit"][::-1]
    medians = [middle(results["pam"][key]["1"], "median") for key in keys]
    tails = [middle(results["pam"][key]["1"], "p95") for key in keys]
    beyond = [max(0.0, tail - median) for tail, median in zip(tails, medians, strict=True)]
    places = range(len(keys))
    axes.barh(places, medians, xerr=[[0] * len(keys), beyond], color=[_colour(key) for key in keys], capsize=3)
    for place, median, tail in zip(places, medians, tails, strict=True):
        axes.text(max(median, tail) * 1.1, place, f"{median:.2f}", va="center", fontsize=8)
    axes.set_yticks(places, [_name(key) for key in keys])
    axes.set_xscale("log")
    axes.set_xlim(0.1, max(tails) * 3)
    axes.set_xlabel("ms (bar: median, whisker: p95; log)")
    axes.set_title("One login through PAM")


def _logins(axes: Any, results: dict[str, Any]) -> None:
    for key, by_processes in results["pam"].items():
        if key == "permit":
            continue
        rates = [middle(samples, "rate") for samples in by_processes.values()]
        style = "-" if key in {"otpbridge", "google"} else ["--", ":", "-."][list(results["pam"]).index(key) % 3]
        axes.plot(list(by_processes), rates, style, marker="o", color=_colour(key), label=_name(key))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("processes")
    axes.set_ylabel("logins accepted per second")
    axes.set_title("Many logins through PAM")
    axes.legend(fontsize=8)


def _socket(axes: Any, results: dict[str, Any]) -> None:
    series = [("socket", "as the disk is", 1.0)]
    if "slow" not in results["invalid"]:
        series.append(("slow", f"each flush {results['plan']['slow_ms']} ms slower", 0.45))
    bars = [
        (mode, connections, scenario, note, alpha)
        for scenario, note, alpha in series
        for mode in ("kept", "each")
        for connections in results["socket"][mode]
    ]
    for place, (mode, connections, scenario, _, alpha) in enumerate(bars):
        samples = results[scenario][mode][connections]
        rate = middle(samples, "rate")
        axes.bar(place, rate, color=_OURS if mode == "kept" else "#3a9a7c", alpha=alpha)
        axes.text(
            place, rate, f"{rate:,.0f}\np99 {middle(samples, 'p99'):.1f}", ha="center", va="bottom", fontsize=6.5
        )
    axes.set_xticks(
        range(len(bars)), [f"{'kept' if bar[0] == 'kept' else 'each'}\n{bar[1]}" for bar in bars], fontsize=7
    )
    axes.margins(y=0.18)
    axes.set_ylabel("verifications per second")
    axes.set_title("Over the socket" + (f"; pale: {series[1][1]}" if len(series) > 1 else ""))


def _flat(axes: Any, results: dict[str, Any]) -> None:
    flat = results["flat"]
    for name, label, colour in (("few", "10 connections", "#3a9a7c"), ("many", "64 connections", _OURS)):
        sizes = [size for size in flat if flat[size][name]]
        axes.plot(
            [int(size) for size in sizes],
            [middle(flat[size][name], "rate") for size in sizes],
            "o-",
            color=colour,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("users in the store (log)")
    axes.set_ylabel("verifications per second")
    axes.set_title("Cost by number of users")
    axes.legend(fontsize=8, loc="lower left")
