/* What the daemon answers (org.otpbridge.Verify), read from one message into fixed storage. */
#ifndef OTPBRIDGE_REPLY_H
#define OTPBRIDGE_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REPLY_PROMPTS_MAX = 8,
    REPLY_NOTICES_MAX = 16,
    REPLY_TEXT_MAX = 512,      /* bytes of a prompt with the NUL, as PAM_MAX_MSG_SIZE; longer ones are cut */
    REPLY_NOTICES_SIZE = 16384, /* bytes of all notices of a reply, each with its NUL; what is beyond is cut */
    REPLY_SESSION_MAX = 128,
    REPLY_RETRY_AFTER_MAX = 31536000, /* seconds */
    REPLY_SPAN_MAX = 65535            /* bytes */
};

enum reply_shape {
    REPLY_STEP,   /* Begin, Continue: (session, step) */
    REPLY_VERDICT /* Account: (verdict) */
};

/* Varlink errors: the call could not be judged. */
enum reply_error {
    REPLY_NO_ERROR,
    REPLY_PERMISSION_DENIED,
    REPLY_UNKNOWN_STACK,
    REPLY_BUSY,
    REPLY_NO_SUCH_SESSION,
    REPLY_OTHER_INTERFACE, /* it does not speak our interface, or another version of it */
    REPLY_OTHER_ERROR
};

enum notice_style { NOTICE_INFO, NOTICE_ERROR, NOTICE_TOUCH };

struct reply_prompt {
    bool visible;
    char text[REPLY_TEXT_MAX];
};

/* The text stands in the reply's `notice_texts`, so a reply is not to be copied. */
struct reply_notice {
    enum notice_style style;
    const char *text;
};

/* Where in an answer its code stands, in bytes of what was sent. */
struct reply_span {
    uint32_t start, length;
};

struct reply {
    bool continues; /* more replies to the same call follow: this one has notices alone */
    enum reply_error error;
    bool judged;
    int verdict; /* if judged: the PAM code; PAM_AUTHINFO_UNAVAIL for a verdict without a name here */
    uint32_t retry_after; /* seconds; 0 when none was said */
    bool has_code;
    struct reply_span code; /* if has_code: within the combined answer, not checked against it */
    char session[REPLY_SESSION_MAX];
    size_t prompt_count;
    size_t notice_count;
    struct reply_prompt prompts[REPLY_PROMPTS_MAX];
    struct reply_notice notices[REPLY_NOTICES_MAX];
    char notice_texts[REPLY_NOTICES_SIZE];
};

/*
 * Reads one message. True says that it is JSON of the right shape: an error, or a verdict, or (of a step) prompts
 * with a session, or (of a step that continues) neither. Fields with names not known here are ignored; null is
 * the same as absent; a known field given twice is refused.
 */
bool reply_read(struct reply *reply, enum reply_shape shape, const char *text, size_t length);

#endif
