/*
 * The world of a fuzzed login: a clock, a file system, a socket and a person, all of it made of the input.
 *
 * The module's calls of libc and libpam end here (--wrap). Any of them fails where the input says so. What no input
 * may bring about aborts: waiting without end, a descriptor used after it was closed, or memory given back with a
 * secret in it.
 */
#ifndef OTPBRIDGE_FUZZ_WORLD_H
#define OTPBRIDGE_FUZZ_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORLD_HEADER = 12 /* bytes of the input before what the daemon sends */ };

/* What the person answers: nothing of it may be left in memory that is given back. */
#define WORLD_PASSWORD "hunter2pw"

/* Begins: the header says how the world is, `said` what the daemon says, up to an 0x01 after each of the calls. */
void world_begin(const uint8_t header[WORLD_HEADER], const uint8_t *said, size_t size);

/* Ends: aborts where something was not given back. */
void world_end(void);

/* Whether the module could know that socket and server belong to whom they should. */
bool world_is_trusted(void);

/* Whether each item of PAM's that the module asked for was given to it. */
bool world_was_read(void);

/* Whether a whole message that came after the module's last call holds `word`, or might in escapes. */
bool world_said(const char *word);

/* Nanoseconds that passed while the module waited for anything but the person. */
int64_t world_waited(void);

/* What PAM_AUTHTOK was set to; NULL if it was not. */
const char *world_forwarded(void);

void world_check(bool holds);

#endif
