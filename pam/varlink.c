#include "varlink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SECOND = 1000000000, MILLISECOND = 1000000, CONNECT_PAUSE_MAX_MS = 50, PASSWD_BYTES = 4096 };

static const char service_user[] = "otpbridge";

static int64_t now(void)
{
    struct timespec time;

    if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
        return INT64_MAX; /* a clock that fails is a deadline that has passed */
    return (int64_t)time.tv_sec * SECOND + time.tv_nsec;
}

/* Milliseconds to the deadline, rounded up; 0 once it has passed. */
static int remaining_ms(const struct varlink *link)
{
    int64_t left = link->deadline - now();

    if (left <= 0)
        return 0;
    left = (left + MILLISECOND - 1) / MILLISECOND;
    return left > INT_MAX ? INT_MAX : (int)left;
}

void varlink_init(struct varlink *link, int timeout_seconds)
{
    link->fd = -1;
    link->timeout = (int64_t)timeout_seconds * SECOND;
    link->budget = link->timeout * VARLINK_BUDGET_FACTOR;
    link->in_used = link->in_taken = 0;
    json_writer_init(&link->call, link->out, sizeof link->out);
}

void varlink_start_clock(struct varlink *link)
{
    link->started = now();
    link->deadline = link->started == INT64_MAX
                         ? 0
                         : link->started + (link->timeout < link->budget ? link->timeout : link->budget);
}

void varlink_stop_clock(struct varlink *link)
{
    /* A clock that failed at the start leaves nothing to wait with. */
    int64_t spent = link->started == INT64_MAX ? INT64_MAX : now() - link->started;

    link->budget = spent < link->budget ? link->budget - spent : 0;
    link->deadline = 0;
}

/* Whether `uid` is root, the effective user or the daemon's own. The last is looked up only when it decides. */
static bool trusted(uid_t uid)
{
    char buffer[PASSWD_BYTES];
    struct passwd entry, *found = NULL;

    if (uid == 0 || uid == geteuid())
        return true;
    if (getpwnam_r(service_user, &entry, buffer, sizeof buffer, &found) != 0 || found == NULL)
        return false;
    return found->pw_uid == uid;
}

/*
 * Nobody but the trusted may have made the socket, or be able to put another in its place. The server's own
 * uid is checked once connected; this tells the cases apart and keeps answers from other hands.
 */
static enum varlink_fault check_socket(const char *path, uid_t *owner)
{
    char folder[sizeof ((struct sockaddr_un *)NULL)->sun_path];
    struct stat info;
    char *slash;

    if (strlen(path) >= sizeof folder)
        return VARLINK_NO_SOCKET;
    memcpy(folder, path, strlen(path) + 1);
    slash = strrchr(folder, '/');
    if (slash == NULL)
        return VARLINK_NO_SOCKET;
    slash[slash == folder ? 1 : 0] = '\0';

    if (stat(folder, &info) != 0)
        return errno == EACCES ? VARLINK_NO_ACCESS : VARLINK_NO_SOCKET;
    if (!trusted(info.st_uid) || ((info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0))
        return VARLINK_UNSAFE_FOLDER;
    if (lstat(path, &info) != 0)
        return errno == EACCES ? VARLINK_NO_ACCESS : VARLINK_NO_SOCKET;
    if (!S_ISSOCK(info.st_mode))
        return VARLINK_NOT_A_SOCKET;
    if (!trusted(info.st_uid))
        return VARLINK_WRONG_OWNER;
    *owner = info.st_uid;
    return VARLINK_OK;
}

/* A socket that is closed on exec and is none of the standard three, should the host have closed those. */
static int new_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int higher;

    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return higher;
}

/* EAGAIN says that the server's queue is full, not that it is gone: try again until the deadline. */
static enum varlink_fault connect_to(struct varlink *link, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int pause = 1;

    memcpy(address.sun_path, path, strlen(path) + 1);
    while (connect(link->fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        int left = remaining_ms(link);

        switch (errno) {
        case EAGAIN:
        case EINTR:
            break;
        case ENOENT:
            return VARLINK_NO_SOCKET;
        case ECONNREFUSED:
            return VARLINK_NOBODY_LISTENS;
        case EACCES:
        case EPERM:
            return VARLINK_NO_ACCESS;
        default:
            return VARLINK_SYSTEM;
        }
        if (left == 0)
            return VARLINK_TIMEOUT;
        poll(NULL, 0, pause < left ? pause : left);
        pause = pause * 2 < CONNECT_PAUSE_MAX_MS ? pause * 2 : CONNECT_PAUSE_MAX_MS;
    }
    return VARLINK_OK;
}

/* The server is who called listen(): with socket activation that is root (systemd), not the daemon's user. */
static enum varlink_fault check_server(const struct varlink *link, uid_t owner)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    if (getsockopt(link->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || size != sizeof peer)
        return VARLINK_SYSTEM;
    return peer.uid == owner || trusted(peer.uid) ? VARLINK_OK : VARLINK_WRONG_SERVER;
}

enum varlink_fault varlink_open(struct varlink *link, const char *path)
{
    uid_t owner;
    enum varlink_fault fault = check_socket(path, &owner);

    if (fault != VARLINK_OK)
        return fault;
    link->fd = new_socket();
    if (link->fd < 0)
        return VARLINK_SYSTEM;
    fault = connect_to(link, path);
    if (fault == VARLINK_OK)
        fault = check_server(link, owner);
    if (fault != VARLINK_OK)
        varlink_close(link);
    return fault;
}

/* Waits until `events` or the other side's hanging up. */
static enum varlink_fault wait_for(const struct varlink *link, short events)
{
    for (;;) {
        struct pollfd poller = {.fd = link->fd, .events = events};
        int left = remaining_ms(link);
        int ready;

        if (left == 0)
            return VARLINK_TIMEOUT;
        ready = poll(&poller, 1, left);
        if (ready > 0)
            return VARLINK_OK;
        if (ready < 0 && errno != EINTR)
            return VARLINK_SYSTEM;
    }
}

struct json_writer *varlink_new_call(struct varlink *link)
{
    json_writer_init(&link->call, link->out, sizeof link->out);
    return &link->call;
}

static enum varlink_fault send_all(const struct varlink *link)
{
    size_t sent = 0;

    while (sent < link->call.used) {
        enum varlink_fault fault = wait_for(link, POLLOUT);
        ssize_t count;

        if (fault != VARLINK_OK)
            return fault;
        count = send(link->fd, link->out + sent, link->call.used - sent, MSG_NOSIGNAL);
        if (count >= 0)
            sent += (size_t)count;
        else if (errno == EPIPE || errno == ECONNRESET)
            return VARLINK_CLOSED;
        else if (errno != EINTR && errno != EAGAIN)
            return VARLINK_SYSTEM;
    }
    return VARLINK_OK;
}

enum varlink_fault varlink_send(struct varlink *link)
{
    enum varlink_fault fault;
    char early;

    if (link->call.failed || link->call.used == sizeof link->out)
        fault = VARLINK_SYSTEM;
    else if (link->in_taken != link->in_used || recv(link->fd, &early, 1, MSG_PEEK | MSG_DONTWAIT) > 0)
        fault = VARLINK_NONSENSE; /* an answer before its question */
    else {
        link->out[link->call.used++] = '\0';
        fault = send_all(link);
    }
    explicit_bzero(link->out, link->call.used);
    link->call.used = 0;
    return fault;
}

/* Moves what is not handed out yet to the front, so that one whole message always fits. */
static void make_room(struct varlink *link)
{
    size_t kept = link->in_used - link->in_taken;

    memmove(link->in, link->in + link->in_taken, kept);
    explicit_bzero(link->in + kept, link->in_used - kept);
    link->in_used = kept;
    link->in_taken = 0;
}

enum varlink_fault varlink_receive(struct varlink *link, const char **text, size_t *length)
{
    size_t searched = 0;

    make_room(link);
    for (;;) {
        const char *end = memchr(link->in + searched, '\0', link->in_used - searched);
        enum varlink_fault fault;
        ssize_t count;

        if (end != NULL) {
            *text = link->in;
            *length = (size_t)(end - link->in);
            link->in_taken = *length + 1;
            return VARLINK_OK;
        }
        searched = link->in_used;
        if (searched == sizeof link->in)
            return VARLINK_TOO_LONG;
        fault = wait_for(link, POLLIN);
        if (fault != VARLINK_OK)
            return fault;
        count = recv(link->fd, link->in + link->in_used, sizeof link->in - link->in_used, 0);
        if (count > 0)
            link->in_used += (size_t)count;
        else if (count == 0 || errno == ECONNRESET)
            return VARLINK_CLOSED;
        else if (errno != EINTR && errno != EAGAIN)
            return VARLINK_SYSTEM;
    }
}

void varlink_close(struct varlink *link)
{
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    explicit_bzero(link->in, link->in_used);
    explicit_bzero(link->out, link->call.used);
    link->in_used = link->in_taken = link->call.used = 0;
}

const char *varlink_explain(enum varlink_fault fault)
{
    switch (fault) {
    case VARLINK_OK:
        return "no fault";
    case VARLINK_NO_SOCKET:
        return "the socket does not exist: start otpbridged (systemctl start otpbridged.socket), or correct socket=";
    case VARLINK_NOT_A_SOCKET:
        return "there is something at this path that is not a socket: correct socket=";
    case VARLINK_WRONG_OWNER:
        return "the socket belongs neither to root nor to the user otpbridge nor to this process's user: "
               "find out who made it";
    case VARLINK_UNSAFE_FOLDER:
        return "the socket's folder belongs to another user or is writable by everyone: "
               "make it root's or otpbridge's, mode 0755";
    case VARLINK_WRONG_SERVER:
        return "the server runs neither as root nor as the user otpbridge nor as this process's user: "
               "find out who runs it";
    case VARLINK_NOBODY_LISTENS:
        return "nobody listens on the socket: start otpbridged (systemctl start otpbridged.socket)";
    case VARLINK_NO_ACCESS:
        return "this process may not reach the socket: check its mode (0666), its folder's (0755), "
               "and SELinux or AppArmor";
    case VARLINK_TIMEOUT:
        return "the daemon did not answer in time: see its log, or raise timeout=";
    case VARLINK_CLOSED:
        return "the daemon closed the connection before it answered: see its log";
    case VARLINK_TOO_LONG:
        return "the daemon's message is longer than 64 KiB: is something else listening there?";
    case VARLINK_NONSENSE:
        return "what came is no answer of org.otpbridge.Verify: are daemon and module of the same release?";
    case VARLINK_SYSTEM:
        break;
    }
    return "a system call failed; is the process out of descriptors or memory?";
}
