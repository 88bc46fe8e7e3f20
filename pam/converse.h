/* What the person is shown and asked, through the host program's pam_conv(3). */
#ifndef OTPBRIDGE_CONVERSE_H
#define OTPBRIDGE_CONVERSE_H

#include "reply.h"

#include <security/pam_modules.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    CONVERSE_TEXT_MAX = REPLY_NOTICES_SIZE + REPLY_TEXT_MAX, /* bytes of a prompt with all notices before it */
    CONVERSE_LINE_MAX = REPLY_TEXT_MAX - 1, /* bytes of a line */
    CONVERSE_ANSWER_MAX = 1024              /* bytes of an answer without its NUL */
};

/*
 * Copies daemon text without what could steer a terminal or reorder a line: C0 and C1 controls, DEL, line and
 * paragraph separators, marks and overrides of direction, invisible operators and tags. Line feeds and tabs
 * become spaces. Cuts before the first character that does not fit, and at bytes that are not UTF-8.
 */
void converse_sanitise(char *clean, size_t size, const char *text);

/*
 * The same for a notice, which may have lines: line feeds are kept, but none at its end, and each line is cut at
 * CONVERSE_LINE_MAX bytes. Returns the length.
 */
size_t converse_sanitise_lines(char *clean, size_t size, const char *text);

/* Shows a notice at once. That it could not be shown changes no verdict, so nothing is returned. */
void converse_notify(pam_handle_t *pamh, const struct reply_notice *notice);

/* Says that attempts are not judged for `seconds`. */
void converse_too_many(pam_handle_t *pamh, uint32_t seconds);

/*
 * The text of a prompt: the info and touch notices of its step, each from a new line, and then `prompt`, which
 * always fits. One text, because sshd holds info messages back until a prompt and some greeters show the last alone.
 */
void converse_compose(char text[CONVERSE_TEXT_MAX], const struct reply *reply, bool with_notices, const char *prompt);

/*
 * Asks. PAM_SUCCESS gives an answer of at most CONVERSE_ANSWER_MAX bytes, to be given to converse_forget;
 * anything else gives none: PAM_CONV_ERR when it could not be asked, PAM_AUTH_ERR for an answer that is
 * missing (never taken for an empty one) or too long.
 */
int converse_ask(pam_handle_t *pamh, bool visible, const char *text, char **answer);

/* Wipes and frees an answer; NULL is nothing to do. */
void converse_forget(char *answer);

#endif
