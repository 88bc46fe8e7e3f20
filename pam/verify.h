/* One login: the calls of org.otpbridge.Verify, and the person between them. */
#ifndef OTPBRIDGE_VERIFY_H
#define OTPBRIDGE_VERIFY_H

#include "options.h"

#include <security/pam_modules.h>

enum { VERIFY_USER_MAX = 256 /* bytes */ };

/*
 * Both return the PAM code of the daemon's verdict, or a refusing code when there is none. PAM_SUCCESS and
 * PAM_IGNORE are the daemon's word alone.
 */
int verify_login(pam_handle_t *pamh, const struct options *options, int flags, const char *user);
int verify_account(pam_handle_t *pamh, const struct options *options, int flags, const char *user);

#endif
