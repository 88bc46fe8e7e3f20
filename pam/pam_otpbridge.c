/*
 * pam_otpbridge: a second factor judged by otpbridged.
 *
 * The entry points. No policy lives here: the module carries prompts and answers between pam_conv(3) and the
 * daemon. Whatever goes wrong refuses; see pam_otpbridge(8).
 */
#include "options.h"
#include "utf8.h"
#include "verify.h"

#include <errno.h>
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <string.h>
#include <syslog.h>

typedef int verify_function(pam_handle_t *pamh, const struct options *options, int flags, const char *user);

static void complain(void *context, const char *argument, const char *problem)
{
    pam_syslog(context, LOG_ERR, "option \"%s\" %s", argument, problem);
}

/*
 * A name that is too long or not UTF-8 is refused unseen: cut or mended, it could become the name of another
 * user. That tells nothing about who is in the store.
 */
static int get_user(pam_handle_t *pamh, const char **user)
{
    *user = NULL;
    if (pam_get_user(pamh, user, NULL) != PAM_SUCCESS)
        return PAM_CONV_ERR;
    if (*user == NULL || (*user)[0] == '\0' || strlen(*user) > VERIFY_USER_MAX || !utf8_valid(*user)) {
        pam_syslog(pamh, LOG_NOTICE, "the user name is missing, longer than %d bytes or not UTF-8", VERIFY_USER_MAX);
        return PAM_USER_UNKNOWN;
    }
    return PAM_SUCCESS;
}

static int enter(pam_handle_t *pamh, int flags, int argc, const char **argv, verify_function *verify)
{
    int saved_errno = errno;
    struct options options;
    const char *user;
    int outcome = PAM_SERVICE_ERR;

    if (options_read(&options, argc, argv, complain, pamh)) {
        outcome = get_user(pamh, &user);
        if (outcome == PAM_SUCCESS)
            outcome = verify(pamh, &options, flags, user);
    }
    errno = saved_errno;
    return outcome;
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return enter(pamh, flags, argc, argv, verify_login);
}

/* For logins that never authenticate through PAM (sshd with public keys), and for locks set since. */
int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return enter(pamh, flags, argc, argv, verify_account);
}

/* There are no credentials to set; refusing would undo an authentication that succeeded. */
int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void)pamh;
    (void)flags;
    (void)argc;
    (void)argv;
    return PAM_SUCCESS;
}
