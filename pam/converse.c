#include "converse.h"

#include "utf8.h"

#include <security/pam_ext.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Unicode ranges that have no place in text from a daemon. */
static const struct {
    uint32_t first, last;
} unwanted[] = {
    {0x0000, 0x001f},   /* C0 */
    {0x007f, 0x009f},   /* DEL and C1 */
    {0x00ad, 0x00ad},   /* soft hyphen */
    {0x061c, 0x061c},   /* Arabic letter mark */
    {0x180e, 0x180e},   /* Mongolian vowel separator */
    {0x200b, 0x200f},   /* zero width, left-to-right and right-to-left marks */
    {0x2028, 0x202e},   /* line and paragraph separators, embeddings and overrides */
    {0x2060, 0x206f},   /* invisible operators, isolates */
    {0xfeff, 0xfeff},   /* byte order mark */
    {0xfff9, 0xfffb},   /* interlinear annotation */
    {0xe0000, 0xe007f}, /* tags */
};

static bool is_unwanted(uint32_t point)
{
    for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++)
        if (point >= unwanted[i].first && point <= unwanted[i].last)
            return true;
    return false;
}

/* What stands for a character of daemon text: itself, a blank, or nothing (0). */
static uint32_t clean_point(uint32_t point, bool lines)
{
    if (point == '\n' && lines)
        return point;
    if (point == '\n' || point == '\t')
        return ' ';
    return is_unwanted(point) ? 0 : point;
}

static size_t sanitise(char *clean, size_t size, const char *text, bool lines)
{
    const char *end = text + strlen(text);
    size_t used = 0, in_line = 0, length;
    uint32_t point;

    for (; (length = utf8_decode(text, end, &point)) > 0; text += length) {
        uint32_t shown = clean_point(point, lines);

        if (shown == 0)
            continue;
        if (size - used <= length)
            break;
        in_line = shown == '\n' ? 0 : in_line + length;
        if (in_line > CONVERSE_LINE_MAX)
            continue;
        memcpy(clean + used, shown == point ? text : " ", length);
        used += length;
    }
    clean[used] = '\0';
    return used;
}

void converse_sanitise(char *clean, size_t size, const char *text)
{
    sanitise(clean, size, text, false);
}

size_t converse_sanitise_lines(char *clean, size_t size, const char *text)
{
    size_t used = sanitise(clean, size, text, true);

    while (used > 0 && clean[used - 1] == '\n')
        clean[--used] = '\0';
    return used;
}

void converse_notify(pam_handle_t *pamh, const struct reply_notice *notice)
{
    char text[REPLY_NOTICES_SIZE];
    size_t length = converse_sanitise_lines(text, sizeof text, notice->text);

    if (length > 0)
        (void)pam_prompt(pamh, notice->style == NOTICE_ERROR ? PAM_ERROR_MSG : PAM_TEXT_INFO, NULL, "%s", text);
    explicit_bzero(text, length); /* it may have a key to enrol with */
}

void converse_too_many(pam_handle_t *pamh, uint32_t seconds)
{
    (void)pam_prompt(pamh, PAM_ERROR_MSG, NULL, "Too many attempts; try again in %lu s.", (unsigned long)seconds);
}

void converse_compose(char text[CONVERSE_TEXT_MAX], const struct reply *reply, bool with_notices, const char *prompt)
{
    size_t room = CONVERSE_TEXT_MAX - strlen(prompt) - 1;
    size_t used = 0;

    for (size_t i = 0; with_notices && i < reply->notice_count && used < room; i++) {
        size_t length;

        if (reply->notices[i].style == NOTICE_ERROR)
            continue;
        length = converse_sanitise_lines(text + used, room - used, reply->notices[i].text);
        used += length;
        if (length > 0)
            text[used++] = '\n';
    }
    memcpy(text + used, prompt, strlen(prompt) + 1);
}

int converse_ask(pam_handle_t *pamh, bool visible, const char *text, char **answer)
{
    int outcome;

    *answer = NULL;
    outcome = pam_prompt(pamh, visible ? PAM_PROMPT_ECHO_ON : PAM_PROMPT_ECHO_OFF, answer, "%s", text);
    if (outcome == PAM_SUCCESS && *answer != NULL && strlen(*answer) <= CONVERSE_ANSWER_MAX)
        return PAM_SUCCESS;
    if (outcome == PAM_SUCCESS || outcome == PAM_AUTH_ERR)
        outcome = PAM_AUTH_ERR;
    else
        outcome = PAM_CONV_ERR; /* never the host's own number: it could be PAM_IGNORE */
    converse_forget(*answer);
    *answer = NULL;
    return outcome;
}

void converse_forget(char *answer)
{
    if (answer == NULL)
        return;
    explicit_bzero(answer, strlen(answer));
    free(answer);
}
