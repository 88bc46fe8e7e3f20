"""Makes HOTP tokens in privacyIDEA, run by its own environment: privacyidea_tokens.py CONFIG < lines.

A line is a serial, a space and the seed in hex.
"""

from __future__ import annotations

import sys

from privacyidea.app import create_app
from privacyidea.lib.token import init_token

application = create_app(config_name="production", config_file=sys.argv[1], silent=True)
with application.app_context():
    for line in sys.stdin:
        serial, seed = line.split()
        init_token({"type": "hotp", "serial": serial, "otpkey": seed, "otplen": 6, "genkey": 0})
