/*
 * What may be a code, and what is left of an answer without its code. Which part of it is one says the daemon; the
 * guesses here only keep plain passwords from being sent, and counted, as wrong codes.
 */
#ifndef OTPBRIDGE_ANSWER_H
#define OTPBRIDGE_ANSWER_H

#include "reply.h"

#include <stdbool.h>

/* Whether text could be a code: six to eight digits, spaces and dashes aside, or 44 modhex characters. */
bool answer_looks_like_code(const char *text);

/* Whether a code could begin or end text: six digits or 44 modhex characters at either end. */
bool answer_may_hold_code(const char *text);

/*
 * Takes the code out of an answer, so that what stands before and after it is left. `code` counts bytes of the
 * answer as json_write_string sends it. False, and nothing changed, when it does not lie within the answer or
 * divides a character.
 */
bool answer_remove_code(char *answer, const struct reply_span *code);

#endif
