"""Keys that come and go are seen, whenever that is."""

from __future__ import annotations

from otpbridge.devices.watch import Watch

LONG = 3600.0
"""Seconds: longer than any test may take."""


def test_a_key_that_goes_between_a_look_and_the_wait_ends_the_wait(rig):
    """Nothing else will: the next key may take its place, and be taken for it."""
    key = rig.plug(serial=1111111)
    with Watch() as watch:
        known = watch.readers()
        assert known == {key.reader}
        rig.unplug(key)
        watch.wait(LONG, known)
        assert watch.readers() == frozenset()


def test_sixteen_keys_can_be_watched(rig):
    """As many as pcscd has places for; the next look is after the time that was given."""
    for number in range(16):
        rig.plug(serial=1111100 + number)
    with Watch() as watch:
        known = watch.readers()
        assert len(known) == 16
        watch.wait(0.1, known)
        assert watch.readers() == known
