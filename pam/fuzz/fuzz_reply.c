/*
 * Whole logins against a daemon that says anything. The first byte of the input chooses the options, the second
 * how the person answers; the rest is what the daemon sends, a message up to each NUL.
 */
#include "pam_stubs.h"
#include "verify.h"

#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Packets keep the messages apart, so that one does not come before the call that it answers. */
static void send_messages(int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        const uint8_t *end = memchr(data, 0, size);
        size_t length = end != NULL ? (size_t)(end - data) + 1 : size;

        if (send(fd, data, length, MSG_DONTWAIT) < 0)
            return;
        data += length;
        size -= length;
    }
}

static bool contains(const uint8_t *data, size_t size, const char *text)
{
    return memmem(data, size, text, strlen(text)) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct options options = {.socket = "/stub", .timeout = 1};
    int fds[2], outcome;

    if (size < 2)
        return 0;
    options.first_pass = (enum first_pass)(data[0] % 3);
    options.forward_pass = (data[0] & 4) != 0;
    options.debug = (data[0] & 8) != 0;
    options.echo = (data[0] & 16) != 0;
    options.prompt = (data[0] & 32) != 0 ? "Prompt: " : NULL;
    stub_mood = data[1];
    stub_prompts = 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        abort();
    stub_fd = fds[0];
    send_messages(fds[1], data + 2, size - 2);
    shutdown(fds[1], SHUT_WR);

    if ((data[0] & 64) != 0)
        outcome = verify_account(stub_handle(), &options, 0, "alice");
    else
        outcome = verify_login(stub_handle(), &options, 0, "alice");
    close(fds[1]);

    /* Success and ignore are said by the daemon or not at all. */
    if (outcome == PAM_SUCCESS && !contains(data, size, "success") && !contains(data, size, "\\u00"))
        abort();
    if (outcome == PAM_IGNORE && !contains(data, size, "ignore") && !contains(data, size, "\\u00"))
        abort();
    return 0;
}
