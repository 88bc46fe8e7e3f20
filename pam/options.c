#include "options.h"

#include "reply.h"

#include <stddef.h>
#include <string.h>
#include <sys/un.h>

enum { STACK_NAME_MAX = 64 };

/* Each setter takes what stands after `=` (NULL without one) and returns what is wrong, or NULL. */
typedef const char *option_setter(struct options *options, const char *value);

static const char *set_socket(struct options *options, const char *value)
{
    if (value[0] != '/')
        return "must be an absolute path";
    if (strlen(value) >= sizeof ((struct sockaddr_un *)NULL)->sun_path)
        return "is longer than a socket's path can be (107 bytes)";
    options->socket = value;
    return NULL;
}

static const char *set_stack(struct options *options, const char *value)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t length = strlen(value);

    if (length == 0 || length > STACK_NAME_MAX || strspn(value, allowed) != length)
        return "must be 1 to 64 letters, digits, '-', '_' or '.'";
    options->stack = value;
    return NULL;
}

static const char *set_timeout(struct options *options, const char *value)
{
    int seconds = 0;

    for (const char *digit = value; *digit != '\0' && seconds <= OPTIONS_TIMEOUT_MAX; digit++)
        seconds = *digit >= '0' && *digit <= '9' ? seconds * 10 + (*digit - '0') : OPTIONS_TIMEOUT_MAX + 1;
    if (seconds < 1 || seconds > OPTIONS_TIMEOUT_MAX)
        return "must be a whole number of seconds from 1 to 300";
    options->timeout = seconds;
    return NULL;
}

static const char *set_prompt(struct options *options, const char *value)
{
    if (value[0] == '\0' || strlen(value) >= REPLY_TEXT_MAX)
        return "must be a text of 1 to 511 bytes";
    options->prompt = value;
    return NULL;
}

static const char *set_first_pass(struct options *options, enum first_pass first_pass)
{
    if (options->first_pass != FIRST_PASS_UNUSED && options->first_pass != first_pass)
        return "excludes the other of use_first_pass and try_first_pass";
    options->first_pass = first_pass;
    return NULL;
}

static const char *set_use_first_pass(struct options *options, const char *value)
{
    (void)value;
    return set_first_pass(options, FIRST_PASS_ONLY);
}

static const char *set_try_first_pass(struct options *options, const char *value)
{
    (void)value;
    return set_first_pass(options, FIRST_PASS_TRY);
}

static const char *set_forward_pass(struct options *options, const char *value)
{
    (void)value;
    options->forward_pass = true;
    return NULL;
}

static const char *set_nullok(struct options *options, const char *value)
{
    (void)value;
    options->nullok = true;
    return NULL;
}

static const char *set_echo(struct options *options, const char *value)
{
    (void)value;
    options->echo = true;
    return NULL;
}

static const char *set_debug(struct options *options, const char *value)
{
    (void)value;
    options->debug = true;
    return NULL;
}

static const struct {
    const char *name;
    bool takes_value;
    option_setter *set;
} known[] = {
    {"socket", true, set_socket},
    {"stack", true, set_stack},
    {"timeout", true, set_timeout},
    {"prompt", true, set_prompt},
    {"authtok_prompt", true, set_prompt},
    {"use_first_pass", false, set_use_first_pass},
    {"try_first_pass", false, set_try_first_pass},
    {"forward_pass", false, set_forward_pass},
    {"nullok", false, set_nullok},
    {"nouserok", false, set_nullok},
    {"echo_verification_code", false, set_echo},
    {"echo-verification-code", false, set_echo},
    {"debug", false, set_debug},
};

static const char *set_option(struct options *options, const char *argument)
{
    size_t length = strcspn(argument, "=");
    const char *value = argument[length] == '=' ? argument + length + 1 : NULL;

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != length || memcmp(known[i].name, argument, length) != 0)
            continue;
        if (known[i].takes_value && value == NULL)
            return "needs a value: NAME=VALUE, or [NAME=VALUE WITH SPACES]";
        if (!known[i].takes_value && value != NULL)
            return "takes no value";
        return known[i].set(options, value);
    }
    return "is not an option of this module; see pam_otpbridge(8)";
}

bool options_read(struct options *options, int argc, const char **argv, options_complain *complain, void *context)
{
    bool right = true;

    *options = (struct options){.timeout = OPTIONS_TIMEOUT_DEFAULT};
    for (int i = 0; i < argc; i++) {
        const char *problem = set_option(options, argv[i]);

        if (problem == NULL)
            continue;
        complain(context, argv[i], problem);
        right = false;
    }
    return right;
}
