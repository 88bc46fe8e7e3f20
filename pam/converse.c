#include "converse.h"

#include "utf8.h"

#include <security/pam_ext.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FORWARDED_DIGITS = 6, CODE_DIGITS_MIN = 6, CODE_DIGITS_MAX = 8, YUBICO_OTP_LENGTH = 44 };

/* Unicode ranges that have no place in a line of text from a daemon. */
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

void converse_sanitise(char *clean, size_t size, const char *text)
{
    const char *end = text + strlen(text);
    size_t used = 0, length;
    uint32_t point;

    for (; (length = utf8_decode(text, end, &point)) > 0; text += length) {
        bool blank = point == '\n' || point == '\t';

        if (!blank && is_unwanted(point))
            continue;
        if (size - used <= length)
            break;
        memcpy(clean + used, blank ? " " : text, length);
        used += length;
    }
    clean[used] = '\0';
}

void converse_notify(pam_handle_t *pamh, const struct reply_notice *notice)
{
    char text[REPLY_TEXT_MAX];

    converse_sanitise(text, sizeof text, notice->text);
    if (text[0] != '\0')
        (void)pam_prompt(pamh, notice->style == NOTICE_ERROR ? PAM_ERROR_MSG : PAM_TEXT_INFO, NULL, "%s", text);
}

void converse_too_many(pam_handle_t *pamh, uint32_t seconds)
{
    (void)pam_prompt(pamh, PAM_ERROR_MSG, NULL, "Too many attempts; try again in %lu s.", (unsigned long)seconds);
}

void converse_compose(char text[CONVERSE_TEXT_MAX], const struct reply *reply, bool with_notices, const char *prompt)
{
    size_t room = CONVERSE_TEXT_MAX - strlen(prompt);
    size_t used = 0;

    for (size_t i = 0; with_notices && i < reply->notice_count; i++) {
        char line[REPLY_TEXT_MAX];
        size_t length;

        if (reply->notices[i].style == NOTICE_ERROR)
            continue;
        converse_sanitise(line, sizeof line, reply->notices[i].text);
        length = strlen(line);
        if (length == 0 || room - used <= length + 1)
            continue;
        memcpy(text + used, line, length);
        used += length;
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

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

const char *converse_code_of(const char *answer)
{
    const char *end = answer + strlen(answer);
    const char *code = end;

    while (code > answer && end - code < FORWARDED_DIGITS && is_digit(code[-1]))
        code--;
    return end - code == FORWARDED_DIGITS ? code : end;
}

bool converse_looks_like_code(const char *text)
{
    size_t digits = 0;

    if (strlen(text) == YUBICO_OTP_LENGTH)
        return strspn(text, "cbdefghijklnrtuv") == YUBICO_OTP_LENGTH;
    for (; *text != '\0'; text++) {
        if (is_digit(*text))
            digits++;
        else if (*text != ' ' && *text != '-')
            return false;
    }
    return digits >= CODE_DIGITS_MIN && digits <= CODE_DIGITS_MAX;
}
