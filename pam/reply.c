#include "reply.h"

#include "json.h"

#include <security/_pam_types.h>
#include <string.h>

enum { NAME_MAX_BYTES = 64 };

static const struct {
    const char *name;
    int code;
} verdicts[] = {
    {"success", PAM_SUCCESS},
    {"auth_err", PAM_AUTH_ERR},
    {"maxtries", PAM_MAXTRIES},
    {"acct_expired", PAM_ACCT_EXPIRED},
    {"new_authtok_reqd", PAM_NEW_AUTHTOK_REQD},
    {"perm_denied", PAM_PERM_DENIED},
    {"user_unknown", PAM_USER_UNKNOWN},
    {"authinfo_unavail", PAM_AUTHINFO_UNAVAIL},
    {"ignore", PAM_IGNORE},
};

static const struct {
    const char *name;
    enum reply_error error;
} errors[] = {
    {"org.varlink.service.PermissionDenied", REPLY_PERMISSION_DENIED},
    {"org.varlink.service.InterfaceNotFound", REPLY_OTHER_INTERFACE},
    {"org.varlink.service.MethodNotFound", REPLY_OTHER_INTERFACE},
    {"org.varlink.service.MethodNotImplemented", REPLY_OTHER_INTERFACE},
    {"org.varlink.service.InvalidParameter", REPLY_OTHER_INTERFACE},
    {"org.otpbridge.Verify.UnknownStack", REPLY_UNKNOWN_STACK},
    {"org.otpbridge.Verify.Busy", REPLY_BUSY},
    {"org.otpbridge.Verify.NoSuchSession", REPLY_NO_SUCH_SESSION},
};

/*
 * Whether the member just read is the field `name`; `seen` collects the fields met, a bit each. A field met
 * twice fails the message: two readers could otherwise take two meanings from it.
 */
static bool is_field(struct json_reader *reader, unsigned *seen, unsigned bit, const char *member, const char *name)
{
    if (strcmp(member, name) != 0)
        return false;
    if (*seen & bit)
        reader->failed = true;
    *seen |= bit;
    return true;
}

static void read_verdict(struct json_reader *reader, struct reply *reply)
{
    char name[NAME_MAX_BYTES] = "";

    if (json_take_null(reader) || !json_text(reader, name, sizeof name))
        return;
    reply->judged = true;
    reply->verdict = PAM_AUTHINFO_UNAVAIL;
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++)
        if (strcmp(name, verdicts[i].name) == 0)
            reply->verdict = verdicts[i].code;
}

static void read_error(struct json_reader *reader, struct reply *reply)
{
    char name[NAME_MAX_BYTES] = "";

    if (json_take_null(reader) || !json_text(reader, name, sizeof name))
        return;
    reply->error = REPLY_OTHER_ERROR;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strcmp(name, errors[i].name) == 0)
            reply->error = errors[i].error;
}

/* Reads {style, text}, both of which must be there. */
static void read_styled_text(struct json_reader *reader, char style[NAME_MAX_BYTES], char *text, size_t size)
{
    enum { STYLE = 1, TEXT = 2 };
    char member[NAME_MAX_BYTES];
    unsigned seen = 0;

    json_enter_object(reader);
    while (json_next_member(reader, member, sizeof member)) {
        if (is_field(reader, &seen, STYLE, member, "style"))
            json_text(reader, style, NAME_MAX_BYTES);
        else if (is_field(reader, &seen, TEXT, member, "text"))
            json_text(reader, text, size);
        else
            json_skip(reader);
    }
    if (seen != (STYLE | TEXT))
        reader->failed = true;
}

static void read_prompts(struct json_reader *reader, struct reply *reply)
{
    if (json_take_null(reader))
        return;
    json_enter_array(reader);
    while (json_next_element(reader)) {
        char style[NAME_MAX_BYTES] = "";
        struct reply_prompt *prompt;

        if (reply->prompt_count == REPLY_PROMPTS_MAX) {
            reader->failed = true;
            return;
        }
        prompt = &reply->prompts[reply->prompt_count++];
        read_styled_text(reader, style, prompt->text, sizeof prompt->text);
        prompt->visible = strcmp(style, "visible") == 0; /* what is not known is hidden */
    }
}

static void read_notices(struct json_reader *reader, struct reply *reply)
{
    char *text = reply->notice_texts;
    char *last = text + sizeof reply->notice_texts - 1; /* always a NUL, and the text of all that does not fit */

    if (json_take_null(reader))
        return;
    json_enter_array(reader);
    while (json_next_element(reader)) {
        char style[NAME_MAX_BYTES] = "";
        struct reply_notice *notice;

        if (reply->notice_count == REPLY_NOTICES_MAX) {
            reader->failed = true;
            return;
        }
        notice = &reply->notices[reply->notice_count++];
        notice->text = text;
        read_styled_text(reader, style, text, (size_t)(last - text) + 1);
        text += strlen(text);
        text += text < last ? 1 : 0;
        notice->style = strcmp(style, "error") == 0   ? NOTICE_ERROR
                        : strcmp(style, "touch") == 0 ? NOTICE_TOUCH
                                                      : NOTICE_INFO;
    }
}

/* Reads {start, length}, both of which must be there. */
static void read_code(struct json_reader *reader, struct reply *reply)
{
    enum { START = 1, LENGTH = 2 };
    char member[NAME_MAX_BYTES];
    unsigned seen = 0;

    if (json_take_null(reader))
        return;
    json_enter_object(reader);
    while (json_next_member(reader, member, sizeof member)) {
        if (is_field(reader, &seen, START, member, "start"))
            json_unsigned(reader, REPLY_SPAN_MAX, &reply->code.start);
        else if (is_field(reader, &seen, LENGTH, member, "length"))
            json_unsigned(reader, REPLY_SPAN_MAX, &reply->code.length);
        else
            json_skip(reader);
    }
    if (seen != (START | LENGTH))
        reader->failed = true;
    reply->has_code = true;
}

static void read_step(struct json_reader *reader, struct reply *reply)
{
    enum { NOTICES = 1, PROMPTS = 2, VERDICT = 4, RETRY_AFTER = 8, CODE = 16 };
    char member[NAME_MAX_BYTES];
    unsigned seen = 0;

    json_enter_object(reader);
    while (json_next_member(reader, member, sizeof member)) {
        if (is_field(reader, &seen, NOTICES, member, "notices"))
            read_notices(reader, reply);
        else if (is_field(reader, &seen, PROMPTS, member, "prompts"))
            read_prompts(reader, reply);
        else if (is_field(reader, &seen, VERDICT, member, "verdict"))
            read_verdict(reader, reply);
        else if (is_field(reader, &seen, CODE, member, "code"))
            read_code(reader, reply);
        else if (!is_field(reader, &seen, RETRY_AFTER, member, "retryAfter"))
            json_skip(reader);
        else if (!json_take_null(reader))
            json_unsigned(reader, REPLY_RETRY_AFTER_MAX, &reply->retry_after);
    }
}

static void read_parameters(struct json_reader *reader, enum reply_shape shape, struct reply *reply)
{
    enum { SESSION = 1, STEP = 2, VERDICT = 4 };
    char member[NAME_MAX_BYTES];
    unsigned seen = 0;

    json_enter_object(reader);
    while (json_next_member(reader, member, sizeof member)) {
        if (shape == REPLY_STEP && is_field(reader, &seen, SESSION, member, "session")) {
            if (!json_take_null(reader))
                json_string(reader, reply->session, sizeof reply->session);
        } else if (shape == REPLY_STEP && is_field(reader, &seen, STEP, member, "step"))
            read_step(reader, reply);
        else if (shape == REPLY_VERDICT && is_field(reader, &seen, VERDICT, member, "verdict"))
            read_verdict(reader, reply);
        else
            json_skip(reader);
    }
}

/* The parameters of an error have shapes of their own, so they are only found here and read once it is known. */
static bool read_envelope(struct json_reader *reader, struct reply *reply, struct json_reader *parameters)
{
    enum { PARAMETERS = 1, ERROR = 2, CONTINUES = 4 };
    char member[NAME_MAX_BYTES];
    bool found = false;
    unsigned seen = 0;

    json_enter_object(reader);
    while (json_next_member(reader, member, sizeof member)) {
        if (is_field(reader, &seen, PARAMETERS, member, "parameters")) {
            *parameters = *reader;
            found = !json_take_null(reader);
            if (found)
                json_skip(reader);
        } else if (is_field(reader, &seen, ERROR, member, "error"))
            read_error(reader, reply);
        else if (!is_field(reader, &seen, CONTINUES, member, "continues"))
            json_skip(reader);
        else if (!json_take_null(reader))
            json_bool(reader, &reply->continues);
    }
    return found;
}

static bool well_formed(const struct reply *reply, enum reply_shape shape)
{
    bool asks = reply->prompt_count > 0;

    if (shape == REPLY_VERDICT)
        return reply->judged && !reply->continues;
    if (reply->continues)
        return !reply->judged && !asks;
    return reply->judged ? !asks : asks && reply->session[0] != '\0';
}

bool reply_read(struct reply *reply, enum reply_shape shape, const char *text, size_t length)
{
    struct json_reader reader, parameters;
    bool found;

    memset(reply, 0, sizeof *reply);
    reply->verdict = PAM_AUTHINFO_UNAVAIL;
    json_reader_init(&reader, text, length);
    found = read_envelope(&reader, reply, &parameters);
    if (!json_finish(&reader))
        return false;
    if (reply->error != REPLY_NO_ERROR)
        return true;
    if (!found)
        return false;
    read_parameters(&parameters, shape, reply);
    return !parameters.failed && well_formed(reply, shape);
}
