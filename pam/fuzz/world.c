#include "world.h"

#include "converse.h"
#include "options.h"
#include "utf8.h"
#include "varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    FDS = 16,
    LOW_FD = 1,       /* what socket(2) gives when the host has closed its standard output */
    USUAL_FD = 5,
    CALLS_MAX = 200000, /* of a login; more is one that does not end */
    CALL_NS = 100000,   /* what a call takes, so that trying again comes to an end */
    MILLISECOND = 1000000,
    STRANGER = 4242,    /* a uid that nothing belongs to */
    ORDINARY = 1000,    /* of a process that is not root's */
    SERVICE = 99        /* that of the user otpbridge */
};

/* The bytes of the header. */
enum { FAILS_FIRST, FAILS_EACH, FAILS_HOW, OWNERS, PLACE, PERSON, ANSWERS, PIECES, PACE, ITEMS, EARLY };

static struct {
    bool runs; /* else a call is libFuzzer's own */
    const uint8_t *header;
    const uint8_t *said;
    size_t size, given, allowed; /* bytes of `said`: all, handed out, those that calls have brought about */
    size_t call_used;            /* bytes of the call that is being sent */
    bool open[FDS];
    int64_t now, person;
    unsigned calls, prompts;
    bool stranger; /* something that belongs to a stranger was shown to the module */
    bool unseen;   /* it could not look at the socket that it tried last */
    bool unread;   /* it could not read an item of PAM's */
    void *answers[64];
    size_t answer_count;
    void *block; /* what calloc(3) gave */
    size_t block_size;
    char forwarded[CONVERSE_ANSWER_MAX + 1];
    bool forwards;
    size_t asked, whole; /* bytes of `said` handed out up to the last call, and up to the end of the last message */
} world;

void world_check(bool holds)
{
    if (!holds)
        abort();
}

static bool bit(size_t byte, unsigned number)
{
    return (world.header[byte] >> number & 1) != 0;
}

/* Counts a call; whether it is one that fails, with `errno` set to one of these. */
static bool fails(const int *errors, size_t count)
{
    unsigned first = world.header[FAILS_FIRST], each = world.header[FAILS_EACH];

    world_check(++world.calls < CALLS_MAX);
    world.now += CALL_NS;
    if (first == 0 || world.calls < first)
        return false;
    if (world.calls != first && (each == 0 || (world.calls - first) % each != 0))
        return false;
    errno = errors[(world.header[FAILS_HOW] + world.calls) % count];
    return true;
}

#define FAILS(...) fails((const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

/* --- descriptors --- */

static int open_fd(int fd)
{
    while (world.open[fd])
        fd++;
    world.open[fd] = true;
    return fd;
}

static void check_fd(int fd)
{
    world_check(fd >= 0 && fd < FDS && world.open[fd]);
}

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);

int __wrap_socket(int domain, int type, int protocol)
{
    if (!world.runs)
        return __real_socket(domain, type, protocol);
    world_check(domain == AF_UNIX && (type & SOCK_CLOEXEC) != 0 && (type & SOCK_NONBLOCK) != 0);
    if (FAILS(EMFILE, ENFILE, ENOMEM, EACCES))
        return -1;
    return open_fd(bit(PLACE, 7) ? LOW_FD : USUAL_FD);
}

int __real_close(int fd);
int __wrap_close(int fd);

int __wrap_close(int fd)
{
    if (!world.runs)
        return __real_close(fd);
    check_fd(fd);
    world.open[fd] = false; /* on Linux even where it fails */
    return FAILS(EINTR, EIO) ? -1 : 0;
}

static int duplicate(int fd, int command, long least)
{
    check_fd(fd);
    world_check(command == F_DUPFD_CLOEXEC && least > STDERR_FILENO && least < FDS / 2);
    return FAILS(EMFILE, EINVAL) ? -1 : open_fd((int)least);
}

int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);

int __wrap_fcntl(int fd, int command, ...)
{
    va_list arguments;
    long argument;

    va_start(arguments, command);
    argument = va_arg(arguments, long);
    va_end(arguments);
    return world.runs ? duplicate(fd, command, argument) : __real_fcntl(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, ...)
{
    va_list arguments;
    long argument;

    va_start(arguments, command);
    argument = va_arg(arguments, long);
    va_end(arguments);
    return world.runs ? duplicate(fd, command, argument) : __real_fcntl64(fd, command, argument);
}

/* --- who owns what --- */

uid_t __real_geteuid(void);
uid_t __wrap_geteuid(void);

uid_t __wrap_geteuid(void)
{
    if (!world.runs)
        return __real_geteuid();
    return bit(PLACE, 4) ? ORDINARY : 0;
}

static uid_t owner(unsigned kind)
{
    switch (kind & 3) {
    case 0:
        return 0;
    case 1:
        return geteuid();
    case 2:
        world.stranger = world.stranger || bit(OWNERS, 6) || bit(OWNERS, 7);
        return SERVICE; /* trusted if such a user can be found */
    default:
        world.stranger = true;
        return STRANGER;
    }
}

static int show(struct stat *info, bool folder)
{
    memset(info, 0, sizeof *info);
    if (folder)
        world.unseen = false; /* it turns to another socket */
    if (FAILS(ENOENT, EACCES, EIO, ELOOP)) {
        world.unseen = true;
        return -1;
    }
    info->st_uid = owner(world.header[OWNERS] >> (folder ? 0 : 2));
    info->st_mode = folder ? S_IFDIR | 0755 : S_IFSOCK | 0666;
    if (folder && bit(PLACE, 0))
        info->st_mode |= S_IWOTH | S_IWGRP;
    if (folder && bit(PLACE, 1))
        info->st_mode |= S_ISVTX;
    if (!folder && bit(PLACE, 2))
        info->st_mode = S_IFREG | 0666;
    if ((folder && bit(PLACE, 0) && !bit(PLACE, 1)) || (!folder && bit(PLACE, 2)))
        world.stranger = true;
    return 0;
}

int __real_stat(const char *path, struct stat *info);
int __wrap_stat(const char *path, struct stat *info);
int __real_lstat(const char *path, struct stat *info);
int __wrap_lstat(const char *path, struct stat *info);
int __real_stat64(const char *path, struct stat *info);
int __wrap_stat64(const char *path, struct stat *info);
int __real_lstat64(const char *path, struct stat *info);
int __wrap_lstat64(const char *path, struct stat *info);

int __wrap_stat(const char *path, struct stat *info)
{
    return world.runs ? show(info, true) : __real_stat(path, info);
}

int __wrap_lstat(const char *path, struct stat *info)
{
    return world.runs ? show(info, false) : __real_lstat(path, info);
}

int __wrap_stat64(const char *path, struct stat *info)
{
    return world.runs ? show(info, true) : __real_stat64(path, info);
}

int __wrap_lstat64(const char *path, struct stat *info)
{
    return world.runs ? show(info, false) : __real_lstat64(path, info);
}

int __real_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size, struct passwd **found);
int __wrap_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size, struct passwd **found);

int __wrap_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size, struct passwd **found)
{
    if (!world.runs)
        return __real_getpwnam_r(name, entry, buffer, size, found);
    world_check(strcmp(name, "otpbridge") == 0);
    *found = NULL;
    if (FAILS(EIO, ENFILE, ERANGE, EINTR)) {
        world.stranger = true;
        return errno;
    }
    if (bit(OWNERS, 6))
        return 0; /* no such user */
    memset(entry, 0, sizeof *entry);
    entry->pw_uid = bit(OWNERS, 7) ? SERVICE + 1 : SERVICE;
    *found = entry;
    return 0;
}

int __real_getsockopt(int fd, int level, int name, void *value, socklen_t *size);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size);

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    struct ucred peer = {.pid = 1};

    if (!world.runs)
        return __real_getsockopt(fd, level, name, value, size);
    check_fd(fd);
    world_check(level == SOL_SOCKET && name == SO_PEERCRED && *size == sizeof peer);
    if (FAILS(EIO, ENOPROTOOPT)) {
        world.stranger = true;
        return -1;
    }
    peer.uid = owner(world.header[OWNERS] >> 4);
    memcpy(value, &peer, sizeof peer);
    if (bit(PLACE, 3)) {
        *size = sizeof peer - 1;
        world.stranger = true;
    }
    return 0;
}

bool world_is_trusted(void)
{
    return !world.stranger && !world.unseen;
}

bool world_was_read(void)
{
    return !world.unread;
}

/* --- time --- */

int __real_clock_gettime(clockid_t clock, struct timespec *time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *time);

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
    if (!world.runs)
        return __real_clock_gettime(clock, time);
    world_check(clock == CLOCK_MONOTONIC);
    if (FAILS(EINVAL))
        return -1;
    time->tv_sec = world.now / 1000000000;
    time->tv_nsec = world.now % 1000000000;
    return 0;
}

/* Whether the daemon has something to say, or has hung up after the last of it. */
static bool readable(void)
{
    return world.given < world.allowed || world.allowed == world.size;
}

int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    unsigned pace = world.header[PACE];

    if (!world.runs)
        return __real_poll(fds, count, timeout);
    world_check(timeout >= 0 && count <= 1);
    if (FAILS(EINTR, ENOMEM)) {
        world.now += (int64_t)timeout * MILLISECOND / 2;
        return -1;
    }
    if (count == 0 || ((fds->events & POLLIN) != 0 && !readable()) || (pace & 7) == 7) {
        world.now += (int64_t)timeout * MILLISECOND;
        return 0;
    }
    check_fd(fds->fd);
    world.now += (int64_t)timeout * MILLISECOND * (pace & 7) / 8;
    fds->revents = fds->events;
    return 1;
}

int64_t world_waited(void)
{
    return world.now - world.person;
}

/* --- the socket --- */

int __real_connect(int fd, const struct sockaddr *to, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *to, socklen_t size);

int __wrap_connect(int fd, const struct sockaddr *to, socklen_t size)
{
    if (!world.runs)
        return __real_connect(fd, to, size);
    check_fd(fd);
    world_check(to->sa_family == AF_UNIX);
    if (strcmp(((const struct sockaddr_un *)to)->sun_path, OPTIONS_SOCKET_ADMIN) == 0)
        world_check(geteuid() == 0);
    return FAILS(EAGAIN, ECONNREFUSED, EINTR, ENOENT, EACCES, EPERM, EIO, EISCONN) ? -1 : 0;
}

/* What the daemon says after one more whole call. */
static void allow(void)
{
    const uint8_t *end = memchr(world.said + world.allowed, 1, world.size - world.allowed);

    world.allowed = end == NULL ? world.size : (size_t)(end - world.said) + 1;
}

static size_t piece(size_t wanted)
{
    size_t most = world.header[PIECES] == 0 ? wanted : world.header[PIECES];

    return wanted < most ? wanted : most;
}

ssize_t __real_send(int fd, const void *data, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *data, size_t size, int flags);

ssize_t __wrap_send(int fd, const void *data, size_t size, int flags)
{
    if (!world.runs)
        return __real_send(fd, data, size, flags);
    check_fd(fd);
    world_check(size > 0 && (flags & MSG_NOSIGNAL) != 0);
    if (FAILS(EPIPE, EAGAIN, EINTR, ECONNRESET, ENOBUFS))
        return -1;
    size = piece(size);
    world.call_used += size;
    world_check(world.call_used <= VARLINK_FRAME_MAX);
    if (memchr(data, 0, size) != NULL) {
        world_check(((const char *)data)[size - 1] == '\0'); /* one call at a time */
        world.call_used = 0;
        world.asked = world.given;
        allow();
    }
    return (ssize_t)size;
}

ssize_t __real_recv(int fd, void *data, size_t size, int flags);
ssize_t __wrap_recv(int fd, void *data, size_t size, int flags);

ssize_t __wrap_recv(int fd, void *data, size_t size, int flags)
{
    bool peeks = (flags & MSG_PEEK) != 0;
    size_t taken = 0;

    if (!world.runs)
        return __real_recv(fd, data, size, flags);
    check_fd(fd);
    world_check(size > 0);
    if (FAILS(EAGAIN, ECONNRESET, EINTR, EIO, ENOMEM))
        return -1;
    while (world.given < world.allowed && world.said[world.given] == 1)
        world.given++;
    if (!readable()) {
        errno = EAGAIN;
        return -1;
    }
    size = peeks ? size : piece(size);
    while (taken < size && world.given + taken < world.allowed && world.said[world.given + taken] != 1)
        taken++;
    memcpy(data, world.said + world.given, taken);
    if (!peeks) {
        world.given += taken;
        for (size_t place = world.given - taken; place < world.given; place++)
            if (world.said[place] == 0)
                world.whole = place + 1;
    }
    return (ssize_t)taken;
}

bool world_said(const char *word)
{
    const uint8_t *answers = world.said + world.asked;
    size_t size = world.whole > world.asked ? world.whole - world.asked : 0;

    return memmem(answers, size, word, strlen(word)) != NULL || memmem(answers, size, "\\u00", 4) != NULL;
}

/* --- memory --- */

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_calloc(size_t count, size_t size)
{
    if (!world.runs)
        return __real_calloc(count, size);
    world_check(world.block == NULL);
    if (FAILS(ENOMEM))
        return NULL;
    world.block = __real_calloc(count, size);
    world.block_size = count * size;
    return world.block;
}

static void check_wiped(const void *memory, size_t size)
{
    world_check(memmem(memory, size, WORLD_PASSWORD, strlen(WORLD_PASSWORD)) == NULL);
}

void __real_free(void *memory);
void __wrap_free(void *memory);

void __wrap_free(void *memory)
{
    if (!world.runs || memory == NULL) {
        __real_free(memory);
        return;
    }
    if (memory == world.block) {
        check_wiped(memory, world.block_size);
        world.block = NULL;
    } else {
        size_t place = 0;

        while (place < world.answer_count && world.answers[place] != memory)
            place++;
        world_check(place < world.answer_count && *(char *)memory == '\0');
        check_wiped((char *)memory + 1, strlen(WORLD_PASSWORD)); /* an answer has that much room at least */
        world.answers[place] = world.answers[--world.answer_count];
    }
    __real_free(memory);
}

/* --- libpam and the person --- */

static char *answer(void)
{
    static const char *const answers[] = {"123456", "", WORLD_PASSWORD "123456", "\xff\"\\\x01", WORLD_PASSWORD};
    bool endless = bit(ANSWERS, 7) && world.prompts > 1;
    const char *text = answers[(world.header[ANSWERS] + world.prompts) % (sizeof answers / sizeof *answers)];
    size_t size = endless ? CONVERSE_ANSWER_MAX + 2 : strlen(text) + strlen(WORLD_PASSWORD) + 2;
    char *given = __real_calloc(1, size);

    world_check(given != NULL && world.answer_count < sizeof world.answers / sizeof *world.answers);
    if (endless)
        memset(given, 'x', size - 1);
    else
        memcpy(given, text, strlen(text) + 1);
    world.answers[world.answer_count++] = given;
    return given;
}

int pam_prompt(pam_handle_t *pamh, int style, char **response, const char *format, ...)
{
    char text[CONVERSE_TEXT_MAX];
    bool asks = style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON;
    va_list arguments;
    int length;

    (void)pamh;
    va_start(arguments, format);
    length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    world_check(length >= 0 && (size_t)length < sizeof text && utf8_valid(text));
    for (const char *at = text, *line = text; *at != '\0'; at++) {
        if (*at == '\n')
            line = at + 1;
        world_check((unsigned char)*at >= 0x20 || *at == '\n');
        world_check(at - line < CONVERSE_LINE_MAX);
    }
    world_check((response != NULL) == asks);
    world.person += (int64_t)world.header[PERSON] * 1000000000;
    world.now += (int64_t)world.header[PERSON] * 1000000000;
    if (FAILS(0)) {
        static const int outcomes[] = {PAM_CONV_ERR, PAM_IGNORE, PAM_BUF_ERR, PAM_SUCCESS, PAM_ABORT};

        /* Success without an answer too. */
        return outcomes[world.header[FAILS_HOW] % (sizeof outcomes / sizeof *outcomes)];
    }
    if (asks) {
        world.prompts++;
        *response = answer();
    }
    /* With an answer, and not success. */
    return asks && bit(ANSWERS, 6) && world.prompts > 2 ? PAM_CONV_AGAIN : PAM_SUCCESS;
}

int pam_get_user(pam_handle_t *pamh, const char **user, const char *prompt)
{
    static char endless[400];
    const char *const names[] = {"alice", "alice", "", "\xff\xfe", endless, NULL, "\xc3\xa9\xe2\x82\xac", "a\"\\"};

    (void)pamh;
    (void)prompt;
    memset(endless, 'x', sizeof endless - 1);
    if (FAILS(0))
        return PAM_CONV_AGAIN;
    *user = names[world.header[ITEMS] & 7];
    return PAM_SUCCESS;
}

int pam_get_item(const pam_handle_t *pamh, int type, const void **item)
{
    (void)pamh;
    *item = NULL;
    if (FAILS(0)) {
        world.unread = true;
        return PAM_BUF_ERR;
    }
    if (type == PAM_AUTHTOK && bit(ITEMS, 3))
        *item = bit(ITEMS, 4) ? "654321" : WORLD_PASSWORD "654321";
    else if (type != PAM_AUTHTOK && bit(ITEMS, 5))
        *item = "192.0.2.1\x1b\xff";
    return PAM_SUCCESS;
}

int pam_set_item(pam_handle_t *pamh, int type, const void *item)
{
    (void)pamh;
    world_check(type == PAM_AUTHTOK && strlen(item) > 0 && strlen(item) <= CONVERSE_ANSWER_MAX);
    if (FAILS(0))
        return PAM_BUF_ERR;
    memcpy(world.forwarded, item, strlen(item) + 1);
    world.forwards = true;
    return PAM_SUCCESS;
}

const char *world_forwarded(void)
{
    return world.forwards ? world.forwarded : NULL;
}

void pam_syslog(const pam_handle_t *pamh, int priority, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    int length;

    (void)pamh;
    (void)priority;
    va_start(arguments, format);
    length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    world_check(length >= 0 && (size_t)length < sizeof text);
    check_wiped(text, (size_t)length);
    world_check(strstr(text, "654321") == NULL && strstr(text, "123456") == NULL);
}

/* --- from beginning to end --- */

void world_begin(const uint8_t header[WORLD_HEADER], const uint8_t *said, size_t size)
{
    memset(&world, 0, sizeof world);
    world.header = header;
    world.said = said;
    world.size = size;
    world.now = bit(EARLY, 1) ? 3000000000 : (int64_t)1 << 50; /* soon after the machine has started, or later */
    if (bit(EARLY, 0))
        allow(); /* the daemon speaks before it is asked */
    world.person = world.now;
    world.runs = true;
}

void world_end(void)
{
    world.runs = false;
    for (int fd = 0; fd < FDS; fd++)
        world_check(!world.open[fd]);
    world_check(world.block == NULL && world.answer_count == 0);
}
