#include "verify.h"

#include "answer.h"
#include "converse.h"
#include "reply.h"
#include "varlink.h"

#include <security/pam_ext.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

enum {
    CONTEXT_MAX = 256,   /* bytes of a context field */
    STEPS_MAX = 16,      /* rounds of prompts in one conversation */
    STREAMED_MAX = 64,   /* replies to one call that only carry notices */
    WHOLE = VARLINK_FRAME_MAX
};

/* By these texts of the daemon's the module tells what is asked for; anything else is a secret of unknown kind. */
static const char code_prompt[] = "Verification code: ";
static const char password_prompt[] = "Password: ";
static const char pin_prompt[] = "Security key PIN: "; /* the end of it; before that may be why it is asked again */

static const char forward_prompt[] = "Password & verification code: ";

struct verify {
    pam_handle_t *pamh;
    const struct options *options;
    const char *user;
    const char *service, *rhost, *tty, *ruser; /* what else PAM knows of the attempt, untrusted text; NULL: not set */
    const char *socket;                        /* the one that was tried last */
    bool silent;
    bool asked;        /* the person was asked something */
    const char *given; /* what may answer the first prompt, from an earlier module; or NULL */
    bool given_used;   /* it did, in this conversation */
    bool past_first;   /* the first prompt was answered; a PIN is for a key alone, and does not count */
    char combined[CONVERSE_ANSWER_MAX + 1]; /* the first answer, with forward_pass */
    struct reply reply;
    struct varlink link;
};

static void debug_state(const struct verify *verify, const char *state, size_t count)
{
    if (verify->options->debug)
        pam_syslog(verify->pamh, LOG_DEBUG, "%s (%zu)", state, count);
}

static int unavailable(const struct verify *verify, enum varlink_fault fault)
{
    pam_syslog(verify->pamh, LOG_ERR, "%s: %s", verify->socket, varlink_explain(fault));
    return PAM_AUTHINFO_UNAVAIL;
}

/* A Varlink error: the daemon could not judge. Its name is not printed; what it means is. */
static int not_judged(const struct verify *verify)
{
    const char *why = "the daemon answered with an error: see its log";

    switch (verify->reply.error) {
    case REPLY_PERMISSION_DENIED:
        pam_syslog(verify->pamh, LOG_ERR, "the daemon does not let this process's user ask about that user");
        return PAM_PERM_DENIED;
    case REPLY_UNKNOWN_STACK:
        why = "the daemon has no such stack: correct stack=, or add it to otpbridge.toml";
        break;
    case REPLY_BUSY:
        why = "the daemon has too many calls in flight from this process's user";
        break;
    case REPLY_NO_SUCH_SESSION:
        why = "the conversation was given up by the daemon: was the answer too late?";
        break;
    case REPLY_OTHER_INTERFACE:
        why = "the daemon does not understand the call: are daemon and module of the same release?";
        break;
    case REPLY_NO_ERROR:
    case REPLY_OTHER_ERROR:
        break;
    }
    pam_syslog(verify->pamh, LOG_ERR, "%s: %s", verify->socket, why);
    return PAM_AUTHINFO_UNAVAIL;
}

static void show_notices(const struct verify *verify, bool errors_only)
{
    const struct reply *reply = &verify->reply;

    for (size_t i = 0; i < reply->notice_count && !verify->silent; i++)
        if (!errors_only || reply->notices[i].style == NOTICE_ERROR)
            converse_notify(verify->pamh, &reply->notices[i]);
}

/* With PAM_SILENT too (sudo's default): what the person has to do is no mere message. */
static void show_streamed(const struct verify *verify)
{
    const struct reply *reply = &verify->reply;

    for (size_t i = 0; i < reply->notice_count; i++)
        if (!verify->silent || reply->notices[i].style == NOTICE_TOUCH)
            converse_notify(verify->pamh, &reply->notices[i]);
}

/* Reads replies until the last one of the call; notices that stream before it are shown as they come. */
static enum varlink_fault read_replies(struct verify *verify, enum reply_shape shape)
{
    for (int streamed = 0; streamed < STREAMED_MAX; streamed++) {
        const char *text;
        size_t length;
        enum varlink_fault fault = varlink_receive(&verify->link, &text, &length);

        if (fault != VARLINK_OK)
            return fault;
        debug_state(verify, "received bytes", length);
        if (!reply_read(&verify->reply, shape, text, length))
            return VARLINK_NONSENSE;
        if (verify->reply.error != REPLY_NO_ERROR || !verify->reply.continues)
            return VARLINK_OK;
        varlink_stop_clock(&verify->link);
        show_streamed(verify);
        varlink_start_clock(&verify->link);
    }
    return VARLINK_NONSENSE;
}

/* Sends the call that was written and reads its replies. PAM_SUCCESS: verify->reply is the last, and no error. */
static int exchange(struct verify *verify, enum reply_shape shape)
{
    enum varlink_fault fault;

    varlink_start_clock(&verify->link);
    fault = varlink_send(&verify->link);
    if (fault == VARLINK_OK)
        fault = read_replies(verify, shape);
    varlink_stop_clock(&verify->link);
    if (fault != VARLINK_OK)
        return unavailable(verify, fault);
    return verify->reply.error == REPLY_NO_ERROR ? PAM_SUCCESS : not_judged(verify);
}

static void write_item(struct json_writer *call, const char *name, const char *value, size_t limit)
{
    json_write(call, ",\"");
    json_write(call, name);
    json_write(call, "\":");
    json_write_string(call, value, limit);
}

/*
 * Reads an item of PAM's; NULL where it is not set. One that cannot be read refuses: a login without its remote host
 * would be judged as another one.
 */
static int get_item(const struct verify *verify, const char *name, int type, const char **value)
{
    const void *item = NULL;

    if (pam_get_item(verify->pamh, type, &item) != PAM_SUCCESS) {
        pam_syslog(verify->pamh, LOG_ERR, "%s cannot be read", name);
        return PAM_SYSTEM_ERR;
    }
    *value = item;
    return PAM_SUCCESS;
}

/* Just before a call is written: while the person is asked, the host may set an item anew. */
static int read_context(struct verify *verify)
{
    int outcome = get_item(verify, "PAM_SERVICE", PAM_SERVICE, &verify->service);

    if (outcome == PAM_SUCCESS)
        outcome = get_item(verify, "PAM_RHOST", PAM_RHOST, &verify->rhost);
    if (outcome == PAM_SUCCESS)
        outcome = get_item(verify, "PAM_TTY", PAM_TTY, &verify->tty);
    if (outcome == PAM_SUCCESS)
        outcome = get_item(verify, "PAM_RUSER", PAM_RUSER, &verify->ruser);
    return outcome;
}

/* What is not known is left out. */
static void write_context(const struct verify *verify, struct json_writer *call)
{
    json_write(call, ",\"context\":{\"service\":");
    json_write_string(call, verify->service == NULL ? "" : verify->service, CONTEXT_MAX);
    if (verify->rhost != NULL)
        write_item(call, "rhost", verify->rhost, CONTEXT_MAX);
    if (verify->tty != NULL)
        write_item(call, "tty", verify->tty, CONTEXT_MAX);
    if (verify->ruser != NULL)
        write_item(call, "ruser", verify->ruser, CONTEXT_MAX);
    json_write(call, "}");
}

/* Writes a call up to the end of its parameters, which the caller closes. */
static void write_call(struct verify *verify, const char *method)
{
    struct json_writer *call = varlink_new_call(&verify->link);

    json_write(call, "{\"method\":\"org.otpbridge.Verify.");
    json_write(call, method);
    json_write(call, "\",\"parameters\":{\"user\":");
    json_write_string(call, verify->user, VERIFY_USER_MAX);
    if (verify->options->stack != NULL)
        write_item(call, "stack", verify->options->stack, WHOLE);
    if (verify->options->nullok)
        json_write(call, ",\"nullok\":true");
    write_context(verify, call);
}

/* Writes an answer of at most CONVERSE_ANSWER_MAX bytes; with forward_pass a conversation's first one is kept. */
static void write_answer(struct verify *verify, const char *answer, bool first)
{
    debug_state(verify, "answer of bytes", strlen(answer));
    if (first && verify->options->forward_pass)
        memcpy(verify->combined, answer, strlen(answer) + 1);
    json_write_string(&verify->link.call, answer, CONVERSE_ANSWER_MAX);
}

/* Whether a prompt is for the PIN of a security key: then no password or code may be sent, nor the PIN kept. */
static bool wants_pin(const struct reply_prompt *prompt)
{
    size_t length = strlen(prompt->text);

    return length >= strlen(pin_prompt) && strcmp(prompt->text + length - strlen(pin_prompt), pin_prompt) == 0;
}

/* Whether what an earlier module left answers the first prompt. */
static bool given_fits(const struct verify *verify, const struct reply_prompt *prompt)
{
    if (verify->given == NULL)
        return false;
    if (verify->options->first_pass == FIRST_PASS_ONLY)
        return true;
    /* A password sent as a code is a miss that the daemon counts: try only what can be one. */
    if (verify->options->forward_pass)
        return answer_may_hold_code(verify->given);
    return strcmp(prompt->text, password_prompt) == 0 || answer_looks_like_code(verify->given);
}

static int ask(struct verify *verify, size_t index, bool first)
{
    const struct reply_prompt *prompt = &verify->reply.prompts[index];
    const struct options *options = verify->options;
    bool forward = first && options->forward_pass;
    bool code = !forward && strcmp(prompt->text, code_prompt) == 0;
    bool visible = !forward && (prompt->visible || (code && options->echo));
    bool renamed = options->prompt != NULL && (options->forward_pass ? forward : code);
    char question[REPLY_TEXT_MAX], text[CONVERSE_TEXT_MAX];
    char *answer;
    int outcome;

    if (options->first_pass == FIRST_PASS_ONLY && wants_pin(prompt)) {
        write_answer(verify, "", false); /* nobody is asked, and no earlier module has it: the login goes on without */
        return PAM_SUCCESS;
    }
    if (options->first_pass == FIRST_PASS_ONLY) {
        pam_syslog(verify->pamh, LOG_NOTICE, "use_first_pass: there is no answer from an earlier module");
        return PAM_AUTH_ERR;
    }
    converse_sanitise(question, sizeof question, prompt->text);
    /* With PAM_SILENT too (sudo's default): what comes with a question, a key to enrol with, is part of it. */
    converse_compose(text, &verify->reply, index == 0,
                     renamed   ? options->prompt
                     : forward ? forward_prompt
                               : question);
    verify->asked = true;
    outcome = converse_ask(verify->pamh, visible, text, &answer);
    explicit_bzero(text, strlen(text)); /* it may have a key to enrol with */
    if (outcome != PAM_SUCCESS)
        return outcome;
    write_answer(verify, answer, first);
    converse_forget(answer);
    return PAM_SUCCESS;
}

/* Writes a Continue with an answer to every prompt of the step. */
static int answer_step(struct verify *verify, bool first_step)
{
    struct json_writer *call = varlink_new_call(&verify->link);

    json_write(call, "{\"method\":\"org.otpbridge.Verify.Continue\",\"parameters\":{\"session\":");
    json_write_string(call, verify->reply.session, WHOLE);
    json_write(call, ",\"responses\":[");
    for (size_t i = 0; i < verify->reply.prompt_count; i++) {
        bool first = first_step && i == 0;

        json_write(call, i == 0 ? "" : ",");
        if (first && verify->given_used)
            write_answer(verify, verify->given, true);
        else {
            int outcome = ask(verify, i, first);

            if (outcome != PAM_SUCCESS)
                return outcome;
        }
    }
    json_write(call, "]},\"more\":true}");
    return PAM_SUCCESS;
}

/* One conversation, from Begin to its verdict. */
static int converse_once(struct verify *verify)
{
    int outcome = read_context(verify);

    if (outcome != PAM_SUCCESS)
        return outcome;
    explicit_bzero(verify->combined, sizeof verify->combined);
    verify->given_used = verify->past_first = false;
    write_call(verify, "Begin");
    if (verify->options->forward_pass)
        json_write(&verify->link.call, ",\"combined\":true");
    json_write(&verify->link.call, "},\"more\":true}");
    for (int step = 0; step < STEPS_MAX; step++) {
        bool first;

        outcome = exchange(verify, REPLY_STEP);
        if (outcome != PAM_SUCCESS)
            return outcome;
        first = !verify->reply.judged && !verify->past_first && !wants_pin(&verify->reply.prompts[0]);
        if (first)
            verify->given_used = given_fits(verify, &verify->reply.prompts[0]);
        /* Those that belong to a prompt are shown with it, if somebody is asked. */
        show_notices(verify, !verify->reply.judged && !(first && verify->given_used));
        if (verify->reply.judged)
            return verify->reply.verdict;
        debug_state(verify, "prompts", verify->reply.prompt_count);
        outcome = answer_step(verify, first);
        if (outcome != PAM_SUCCESS)
            return outcome;
        verify->past_first = verify->past_first || first;
    }
    return unavailable(verify, VARLINK_NONSENSE);
}

/* The password that an earlier module left, where the options say that it may be the answer. */
static int read_first_pass(struct verify *verify)
{
    int outcome;

    if (verify->options->first_pass == FIRST_PASS_UNUSED)
        return PAM_SUCCESS;
    outcome = get_item(verify, "PAM_AUTHTOK", PAM_AUTHTOK, &verify->given);
    if (outcome == PAM_SUCCESS && verify->given != NULL && strlen(verify->given) > CONVERSE_ANSWER_MAX)
        verify->given = NULL;
    return outcome;
}

static enum varlink_fault open_at(struct verify *verify, const char *path)
{
    enum varlink_fault fault = varlink_open(&verify->link, path);

    verify->socket = path;
    if (verify->options->debug)
        pam_syslog(verify->pamh, LOG_DEBUG, "%s: %s", path, fault == VARLINK_OK ? "connected" : varlink_explain(fault));
    return fault;
}

/* Whether there is no such socket, or none for this process. Not one that is there and cannot be trusted. */
static bool is_closed(enum varlink_fault fault)
{
    return fault == VARLINK_NO_SOCKET || fault == VARLINK_NOBODY_LISTENS || fault == VARLINK_NO_ACCESS;
}

/*
 * Root's logins go by the admins' socket, where no user can fill the queue before them. The daemon judges there as on
 * the other one, which has to do where this one is closed. For both the effective uid counts: su(1) and sudo(8) have
 * root's.
 */
static enum varlink_fault open_default(struct verify *verify)
{
    if (geteuid() == 0) {
        enum varlink_fault fault = open_at(verify, OPTIONS_SOCKET_ADMIN);

        if (!is_closed(fault))
            return fault;
    }
    return open_at(verify, OPTIONS_SOCKET_VERIFY);
}

static int open_link(struct verify *verify)
{
    const char *path = verify->options->socket;
    enum varlink_fault fault;

    varlink_start_clock(&verify->link);
    fault = path == NULL ? open_default(verify) : open_at(verify, path);
    varlink_stop_clock(&verify->link);
    return fault == VARLINK_OK ? PAM_SUCCESS : unavailable(verify, fault);
}

static struct verify *verify_new(pam_handle_t *pamh, const struct options *options, int flags, const char *user)
{
    struct verify *verify = calloc(1, sizeof *verify);

    if (verify == NULL)
        return NULL;
    verify->pamh = pamh;
    verify->options = options;
    verify->user = user;
    verify->silent = ((unsigned)flags & PAM_SILENT) != 0;
    varlink_init(&verify->link, options->timeout);
    return verify;
}

static void verify_free(struct verify *verify)
{
    varlink_close(&verify->link);
    explicit_bzero(verify->combined, sizeof verify->combined);
    explicit_bzero(&verify->reply, sizeof verify->reply); /* its notices may have a key to enrol with */
    free(verify);
}

/*
 * Leaves the password that came with the code to the next module: the first answer without what the daemon says was
 * the code; all of it when no code was needed. Returns `outcome`, or why it could not be done.
 */
static int forward_password(struct verify *verify, int outcome)
{
    if (verify->reply.has_code && !answer_remove_code(verify->combined, &verify->reply.code))
        return unavailable(verify, VARLINK_NONSENSE);
    if (verify->combined[0] == '\0')
        return outcome;
    return pam_set_item(verify->pamh, PAM_AUTHTOK, verify->combined) == PAM_SUCCESS ? outcome : PAM_BUF_ERR;
}

static int login(struct verify *verify)
{
    int outcome = open_link(verify);

    if (outcome == PAM_SUCCESS)
        outcome = read_first_pass(verify);
    if (outcome != PAM_SUCCESS)
        return outcome;
    outcome = converse_once(verify);
    if (outcome == PAM_AUTH_ERR && verify->given_used && !verify->asked &&
        verify->options->first_pass == FIRST_PASS_TRY) {
        verify->given = NULL;
        outcome = converse_once(verify);
    }
    if (outcome == PAM_MAXTRIES && verify->reply.judged && verify->reply.retry_after > 0 && !verify->silent)
        converse_too_many(verify->pamh, verify->reply.retry_after);
    if (verify->options->forward_pass && (outcome == PAM_SUCCESS || outcome == PAM_IGNORE))
        outcome = forward_password(verify, outcome);
    return outcome;
}

int verify_login(pam_handle_t *pamh, const struct options *options, int flags, const char *user)
{
    struct verify *verify = verify_new(pamh, options, flags, user);
    int outcome;

    if (verify == NULL)
        return PAM_BUF_ERR;
    outcome = login(verify);
    debug_state(verify, "authenticate returns", (size_t)outcome);
    verify_free(verify);
    return outcome;
}

static int account(struct verify *verify)
{
    int outcome = open_link(verify);

    if (outcome == PAM_SUCCESS)
        outcome = read_context(verify);
    if (outcome != PAM_SUCCESS)
        return outcome;
    write_call(verify, "Account");
    json_write(&verify->link.call, "}}");
    outcome = exchange(verify, REPLY_VERDICT);
    return outcome == PAM_SUCCESS ? verify->reply.verdict : outcome;
}

int verify_account(pam_handle_t *pamh, const struct options *options, int flags, const char *user)
{
    struct verify *verify = verify_new(pamh, options, flags, user);
    int outcome;

    if (verify == NULL)
        return PAM_BUF_ERR;
    outcome = account(verify);
    debug_state(verify, "acct_mgmt returns", (size_t)outcome);
    verify_free(verify);
    return outcome;
}
