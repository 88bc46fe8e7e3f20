# python verify.py USER, the code on standard input
import sys

from otpbridge.client import Client, ProtocolError

try:
    with Client() as otp:
        right = bool(otp.verify(sys.argv[1], sys.stdin.readline().strip(), client="acme"))
except ProtocolError:
    right = False
sys.exit(0 if right else 1)
