"""The relying party's half of WebAuthn: what a key is asked, and whether its answer holds (w3.org/TR/webauthn-3).

The library fido2 takes messages apart and checks signatures. What it leaves to its user is done here or above:
each challenge is used once, the user handle is compared (§7.2 step 6), and the signature counter is handed on to be
spent (§7.2 step 22). No clock, no I/O; challenges come in.
"""

from __future__ import annotations
