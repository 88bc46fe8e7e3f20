#!/bin/sh
# A hook of `otpbridge notify`: mail each event to the helpdesk. Needs jq and a sendmail.
set -eu

to=helpdesk@example.com

event=$(cat)
# jq makes one line of each: nothing in a name can become a header, or an option of sendmail.
say() { printf '%s' "$event" | jq -r "$1 | tostring | gsub(\"[[:cntrl:]]\"; \" \")"; }

{
    printf 'To: %s\nSubject: otpbridge: %s\n' "$to" "$(say .event)"
    printf 'MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nAuto-Submitted: auto-generated\n\n'
    printf '%s\n\n' "$(say .text)"
    printf 'client %s, event %s, by uid %s, service %s, from %s\n' \
        "$(say .client)" "$(say .sequence)" "$(say '.by // "-"')" "$(say '.service // "-"')" "$(say '.rhost // "-"')"
} | /usr/sbin/sendmail -t -oi
