"""A thread that the store cannot do without: where it fails, the process ends, and its manager starts it anew."""

from __future__ import annotations

import logging
import os
import threading

log = logging.getLogger(__name__)

FAILED = 70
"""Exit status: EX_SOFTWARE of sysexits.h."""


class VitalThread(threading.Thread):
    """Without it nobody would be answered any more, and nobody would be told."""

    def run(self) -> None:
        """Run the target. Whatever it fails with, no memory above all, ends the process."""
        try:
            super().run()
        except BaseException as error:  # noqa: BLE001 - it ends all
            try:
                # Without a traceback: its frames hold parameters.
                log.critical("store: %s has failed: %s", self.name, type(error).__name__)
            finally:
                os._exit(FAILED)
