/*
 * Whole logins, from the entry points on, in a world where any call may fail and where the daemon says anything. The
 * first byte of the input chooses the arguments, the second the call, its flags and whether there is a socket=; then
 * come the header of the world (world.h) and what the daemon says.
 */
#include "world.h"

#include "options.h"
#include "varlink.h"

#include <errno.h>
#include <security/pam_modules.h>

enum { ARGUMENTS, CALL, WORLD, SAID = WORLD + WORLD_HEADER };
enum { TIMEOUT_S = 1, SLACK_NS = 500000000 }; /* the slack is for the calls between two looks at the clock */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_arguments(const char *arguments[], uint8_t bits, bool socket)
{
    static const char *const optional[] = {
        "forward_pass", "nullok", "debug", "echo_verification_code", "prompt=Prompt: ", "stack=sudo",
    };
    int count = 0;

    if (socket)
        arguments[count++] = "socket=/run/otpbridge/verify";
    arguments[count++] = "timeout=1";
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++)
        if ((bits >> i & 1) != 0)
            arguments[count++] = optional[i];
    if ((bits >> 6) != 0)
        arguments[count++] = (bits >> 6) == 1 ? "try_first_pass" : (bits >> 6) == 2 ? "use_first_pass" : "nonsense=1";
    return count;
}

static void check_outcome(int outcome, bool nonsense)
{
    bool lets_in = outcome == PAM_SUCCESS || outcome == PAM_IGNORE;

    world_check(outcome >= 0 && outcome < _PAM_RETURN_VALUES);
    world_check(!nonsense || outcome == PAM_SERVICE_ERR);
    /* Success and ignore are said by a daemon that may be believed, in answer to the last call, or not at all. */
    world_check(!lets_in || (world_is_trusted() && world_was_read()));
    world_check(outcome != PAM_SUCCESS || world_said("success"));
    world_check(outcome != PAM_IGNORE || world_said("ignore"));
    world_check(world_forwarded() == NULL || lets_in);
    world_check(world_waited() <= (int64_t)TIMEOUT_S * VARLINK_BUDGET_FACTOR * 1000000000 + SLACK_NS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char handle; /* nobody looks into it */
    const char *arguments[10];
    int count, flags, outcome;

    if (size < SAID)
        return 0;
    count = read_arguments(arguments, data[ARGUMENTS], (data[CALL] & 4) == 0);
    flags = (data[CALL] & 1) != 0 ? PAM_SILENT : 0;
    world_begin(data + WORLD, data + SAID, size - SAID);
    errno = EDOM;
    if ((data[CALL] & 2) != 0)
        outcome = pam_sm_acct_mgmt((pam_handle_t *)&handle, flags, count, arguments);
    else
        outcome = pam_sm_authenticate((pam_handle_t *)&handle, flags, count, arguments);
    world_check(errno == EDOM);
    world_end();
    check_outcome(outcome, data[ARGUMENTS] >> 6 == 3);
    return 0;
}
