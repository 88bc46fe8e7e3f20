#!/bin/sh
# verify.sh USER, the code on standard input. Needs varlinkctl (systemd 255 or later) and jq.
IFS= read -r code
printf '%s' "$code" | jq -cR --arg user "$1" '{user: $user, client: "acme", responses: [.]}' |
    varlinkctl call /run/otpbridge/verify org.otpbridge.Verify.Check |
    jq -e '.verdict == "success"' >/dev/null || exit 1
