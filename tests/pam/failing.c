/*
 * Preloaded into a program that logs in: the FAIL_AT-th call that pam_otpbridge.so makes into libc or libpam fails.
 *
 * Calls of the program itself and of other libraries are left alone. The name of the call that failed goes to the
 * file FAIL_LOG; no file means that the module made fewer calls than that.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int turn;

static int fails(const char *name, void *caller)
{
    Dl_info where;
    int file;

    if (dladdr(caller, &where) == 0 || strstr(where.dli_fname, "pam_otpbridge") == NULL || ++turn != atoi(getenv("FAIL_AT")))
        return 0;
    file = open(getenv("FAIL_LOG"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || write(file, name, strlen(name)) < 0)
        abort();
    close(file);
    return 1;
}

/* A function that says `value` (with errno) when it is its turn, else does what it does. */
#define FAILING(type, name, value, error, parameters, arguments)                      \
    type name parameters                                                              \
    {                                                                                 \
        type(*real) parameters = (type(*) parameters)dlsym(RTLD_NEXT, #name);         \
                                                                                      \
        if (!fails(#name, __builtin_return_address(0)))                               \
            return real arguments;                                                    \
        errno = (error);                                                              \
        return (value);                                                               \
    }

FAILING(int, socket, -1, ENFILE, (int domain, int type, int protocol), (domain, type, protocol))
FAILING(int, connect, -1, ECONNREFUSED, (int fd, const struct sockaddr *to, socklen_t size), (fd, to, size))
FAILING(int, getsockopt, -1, EIO, (int fd, int level, int name, void *value, socklen_t *size), (fd, level, name, value, size))
FAILING(ssize_t, send, -1, EPIPE, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
FAILING(ssize_t, recv, -1, EIO, (int fd, void *data, size_t size, int flags), (fd, data, size, flags))
FAILING(int, poll, -1, ENOMEM, (struct pollfd * fds, nfds_t count, int timeout), (fds, count, timeout))
FAILING(int, lstat64, -1, EACCES, (const char *path, struct stat64 *info), (path, info))
FAILING(int, stat64, -1, EACCES, (const char *path, struct stat64 *info), (path, info))
FAILING(int, clock_gettime, -1, EINVAL, (clockid_t clock, struct timespec *time), (clock, time))
FAILING(int, getpwnam_r, EIO, EIO, (const char *name, struct passwd *entry, char *buffer, size_t size, struct passwd **found),
        (name, entry, buffer, size, found))
FAILING(int, pam_get_user, PAM_CONV_ERR, 0, (pam_handle_t * pamh, const char **user, const char *prompt), (pamh, user, prompt))
FAILING(int, pam_get_item, PAM_BUF_ERR, 0, (const pam_handle_t *pamh, int type, const void **item), (pamh, type, item))
FAILING(int, pam_set_item, PAM_BUF_ERR, 0, (pam_handle_t * pamh, int type, const void *item), (pamh, type, item))

/* dlsym() itself may allocate, so the next calloc is not looked up. */
extern void *__libc_calloc(size_t count, size_t size);

void *calloc(size_t count, size_t size)
{
    if (!fails("calloc", __builtin_return_address(0)))
        return __libc_calloc(count, size);
    errno = ENOMEM;
    return NULL;
}

int fcntl64(int fd, int command, ...)
{
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, "fcntl64");
    va_list arguments;
    long argument;

    va_start(arguments, command);
    argument = va_arg(arguments, long);
    va_end(arguments);
    if (!fails("fcntl64", __builtin_return_address(0)))
        return real(fd, command, argument);
    errno = EMFILE;
    return -1;
}

int pam_prompt(pam_handle_t *pamh, int style, char **response, const char *format, ...)
{
    va_list arguments;
    int outcome;

    if (fails("pam_prompt", __builtin_return_address(0)))
        return PAM_CONV_ERR;
    va_start(arguments, format);
    outcome = pam_vprompt(pamh, style, response, format, arguments);
    va_end(arguments);
    return outcome;
}
