/* A connection to the daemon: who it is, messages ended by NUL, and how long it may take. */
#ifndef OTPBRIDGE_VARLINK_H
#define OTPBRIDGE_VARLINK_H

#include "json.h"

#include <stddef.h>
#include <stdint.h>

enum {
    VARLINK_FRAME_MAX = 65536, /* bytes of a message with its NUL */
    VARLINK_BUDGET_FACTOR = 4  /* timeouts that all exchanges of a connection may take together */
};

enum varlink_fault {
    VARLINK_OK,
    VARLINK_NO_SOCKET,
    VARLINK_NOT_A_SOCKET,
    VARLINK_WRONG_OWNER,
    VARLINK_UNSAFE_FOLDER,
    VARLINK_WRONG_SERVER,
    VARLINK_NOBODY_LISTENS,
    VARLINK_NO_ACCESS,
    VARLINK_TIMEOUT,
    VARLINK_CLOSED,
    VARLINK_TOO_LONG,
    VARLINK_NONSENSE,
    VARLINK_SYSTEM
};

/*
 * The clock runs only between varlink_start_clock and varlink_stop_clock, so the time a person takes to answer
 * does not count. Each run has `timeout` seconds, all runs together VARLINK_BUDGET_FACTOR times as much.
 */
struct varlink {
    int fd;
    int64_t timeout;  /* nanoseconds */
    int64_t budget;   /* nanoseconds left for all runs of the clock */
    int64_t started;  /* CLOCK_MONOTONIC, nanoseconds */
    int64_t deadline; /* CLOCK_MONOTONIC, nanoseconds */
    size_t in_used;   /* bytes of `in` received */
    size_t in_taken;  /* bytes of `in` handed out */
    struct json_writer call;
    char in[VARLINK_FRAME_MAX];
    char out[VARLINK_FRAME_MAX];
};

/* Makes a closed connection: from here on varlink_close is right at any time. */
void varlink_init(struct varlink *link, int timeout_seconds);

void varlink_start_clock(struct varlink *link);
void varlink_stop_clock(struct varlink *link);

/*
 * Connects to the socket at `path` if it and the server behind it belong to root, to the user `otpbridge` or to
 * the effective user. The clock must run. After a fault the connection is closed, and another one can be opened.
 */
enum varlink_fault varlink_open(struct varlink *link, const char *path);

/* The writer of the next call's JSON, with nothing written. */
struct json_writer *varlink_new_call(struct varlink *link);

/* Sends what was written since varlink_new_call, and wipes it. The clock must run. */
enum varlink_fault varlink_send(struct varlink *link);

/* Waits for one message; `text` stays good until the next call on `link`. The clock must run. */
enum varlink_fault varlink_receive(struct varlink *link, const char **text, size_t *length);

/* Closes and wipes. */
void varlink_close(struct varlink *link);

/* What a fault means and what the admin can do about it. */
const char *varlink_explain(enum varlink_fault fault);

#endif
