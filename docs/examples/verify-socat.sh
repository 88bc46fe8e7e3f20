#!/bin/sh
# verify-socat.sh USER, the code on standard input. USER of letters, digits, '.', '_', '@' and '-'.
IFS= read -r code
case $1$code in *[!A-Za-z0-9._@-]*) exit 1 ;; esac
call='{"method":"org.otpbridge.Verify.Check","parameters":{"user":"%s","client":"acme","responses":["%s"]}}\0'
# shellcheck disable=SC2059
printf "$call" "$1" "$code" | socat -t 10 - UNIX-CONNECT:/run/otpbridge/verify | tr -d '\0' |
    grep -q '^{"parameters":{"verdict":"success"[,}]'
