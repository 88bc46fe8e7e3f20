"""`otpbridge yubikey provision`: a station that puts a token on one key after the other, for a list of people.

people.py   the list: every line sound, or nothing starts            pure
batch.py    who gets which key, and who is done                      pure
records.py  the result, the journal and the passwords, on disk before they count
bench.py    one key: the closed loop, and what a broken one left
station.py  keys that come and go, each in the hands of a thread
screen.py   what the person at the station sees
"""
