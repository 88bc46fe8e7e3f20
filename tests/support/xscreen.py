"""A screen for tests: an X server without hardware, and Debian's chromium showing a page on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager

import mss
from playwright.sync_api import sync_playwright

_SECONDS = 60.0


@contextmanager
def xserver(width=1920, height=1080):
    """An X server with one screen on a display number that is free; its environment for programs."""
    assert shutil.which("Xvfb"), "Xvfb is missing: apt-get install xvfb"
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.PIPE) as process:
        os.close(writing)
        limit = threading.Timer(_SECONDS, process.kill)
        limit.start()
        try:
            with os.fdopen(reading) as file:
                number = file.readline().strip()
            limit.cancel()
            assert number, f"Xvfb does not start: {process.stderr.read().decode(errors='replace')}"
            yield {"DISPLAY": f":{number}"}
        finally:
            limit.cancel()
            process.terminate()


@contextmanager
def page(screen, html, *, zoom=1.0, marker="#0a5f3c"):
    """A page that fills the screen, and is on it when the block begins. A corner of it has a colour to know it by."""
    width, height = (round(length / zoom) for length in _size(screen))
    corner = f'<div style="position:fixed;right:0;bottom:0;width:40px;height:40px;background:{marker}"></div>'
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            headless=False,
            env={**os.environ, **screen},
            args=[
                "--no-sandbox",
                "--kiosk",
                "--window-position=0,0",
                f"--window-size={width},{height}",
                f"--force-device-scale-factor={zoom}",
                "--disable-gpu",
            ],
        )
        try:
            shown = browser.new_page(no_viewport=True)
            shown.set_content(f"<!doctype html><html><body style='margin:0;overflow:hidden'>{html}</body></html>")
            shown.evaluate("Promise.all([...document.images].map(image => image.decode()))")
            shown.evaluate("corner => document.body.insertAdjacentHTML('beforeend', corner)", corner)
            _wait_for(screen, tuple(bytes.fromhex(marker[1:])))
            yield shown
        finally:
            browser.close()


def _size(screen):
    with mss.MSS(display=screen["DISPLAY"]) as server:
        return server.monitors[0]["width"], server.monitors[0]["height"]


def _wait_for(screen, colour):
    """Look at the screen until the corner of the page is on it."""
    with mss.MSS(display=screen["DISPLAY"]) as server:
        whole = server.monitors[0]
        corner = {"left": whole["width"] - 5, "top": whole["height"] - 5, "width": 1, "height": 1}
        deadline = time.monotonic() + _SECONDS
        while server.grab(corner).pixel(0, 0) != colour:
            assert time.monotonic() < deadline, "the page did not come up"
