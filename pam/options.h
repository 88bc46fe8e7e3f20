/* The module's arguments in a PAM configuration line. */
#ifndef OTPBRIDGE_OPTIONS_H
#define OTPBRIDGE_OPTIONS_H

#include <stdbool.h>

/* Where the daemon listens for all, and for root and the group of its admins. */
#define OPTIONS_SOCKET_VERIFY "/run/otpbridge/verify"
#define OPTIONS_SOCKET_ADMIN "/run/otpbridge/admin"

enum {
    OPTIONS_TIMEOUT_DEFAULT = 10, /* seconds */
    OPTIONS_TIMEOUT_MAX = 300
};

/* Whether PAM_AUTHTOK, as an earlier module left it, is taken for the first answer. */
enum first_pass {
    FIRST_PASS_UNUSED,
    FIRST_PASS_TRY, /* if it looks like a code; ask when there is none or it is refused */
    FIRST_PASS_ONLY /* never ask */
};

/* The strings are the arguments themselves. */
struct options {
    const char *socket; /* NULL: the module chooses */
    const char *stack;  /* NULL: the daemon chooses */
    const char *prompt; /* NULL: the daemon's own text */
    int timeout;        /* seconds, 1 to OPTIONS_TIMEOUT_MAX */
    enum first_pass first_pass;
    bool forward_pass;
    bool nullok;
    bool echo;
    bool debug;
};

/* Called once for each argument that is wrong, with what is wrong about it. */
typedef void options_complain(void *context, const char *argument, const char *problem);

/* Reads all arguments, whether some are wrong or not. False when any was. */
bool options_read(struct options *options, int argc, const char **argv, options_complain *complain, void *context);

#endif
