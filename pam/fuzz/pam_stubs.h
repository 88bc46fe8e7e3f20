/* Stands in for libpam and for connecting: checks what it is given, answers by what the input says. */
#ifndef OTPBRIDGE_FUZZ_PAM_STUBS_H
#define OTPBRIDGE_FUZZ_PAM_STUBS_H

#include "converse.h"
#include "utf8.h"
#include "varlink.h"

#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int stub_fd = -1;      /* what varlink_open connects to */
static unsigned stub_mood;    /* how the person answers */
static unsigned stub_prompts; /* how often they were asked */

/* A handle that is not NULL and that nobody looks into. */
static inline pam_handle_t *stub_handle(void)
{
    return (pam_handle_t *)&stub_mood;
}

enum varlink_fault __wrap_varlink_open(struct varlink *link, const char *path);

enum varlink_fault __wrap_varlink_open(struct varlink *link, const char *path)
{
    (void)path;
    link->fd = stub_fd;
    return VARLINK_OK;
}

int pam_prompt(pam_handle_t *pamh, int style, char **response, const char *format, ...)
{
    static const char *const answers[] = {"123456", "", "hunter2pw123456", "\xff\"\\\x01"};
    char text[CONVERSE_TEXT_MAX];
    va_list arguments;
    int length;

    (void)pamh;
    va_start(arguments, format);
    length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof text || !utf8_valid(text))
        abort();
    for (const char *at = text, *line = text; *at != '\0'; at++) {
        if (*at == '\n')
            line = at + 1;
        if (((unsigned char)*at < 0x20 && *at != '\n') || at - line >= CONVERSE_LINE_MAX)
            abort();
    }
    if ((response != NULL) != (style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON))
        abort();
    if (response == NULL)
        return PAM_SUCCESS;
    stub_prompts++;
    *response = (stub_mood & 0x30) == 0x30 && stub_prompts > 2 ? NULL : strdup(answers[stub_mood & 3]);
    return (stub_mood & 0xc0) == 0xc0 && stub_prompts > 1 ? PAM_IGNORE : PAM_SUCCESS;
}

int pam_get_item(const pam_handle_t *pamh, int type, const void **item)
{
    (void)pamh;
    *item = type == PAM_AUTHTOK && (stub_mood & 4) == 0 ? NULL : "654321";
    return PAM_SUCCESS;
}

int pam_set_item(pam_handle_t *pamh, int type, const void *item)
{
    (void)pamh;
    if (type != PAM_AUTHTOK || strlen(item) == 0 || strlen(item) > CONVERSE_ANSWER_MAX)
        abort();
    return PAM_SUCCESS;
}

void pam_syslog(const pam_handle_t *pamh, int priority, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    (void)pamh;
    (void)priority;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
}

#endif
