/*
 * Loads a server with calls from one thread, so that the server gets nearly all of the machine.
 *
 *     wireload SOCKET CONNECTIONS kept|each < frames
 *     wireload PORT   CONNECTIONS http      < frames
 *
 * `frames` are whole calls, each ended by its NUL, made before anything is timed. Call i belongs to connection
 * i % CONNECTIONS, which sends its own in order, each once the reply to the one before has come. `kept`: the
 * connections are opened before the timed part and stay. `each`: every call opens its own and closes it, and its time
 * is from before socket() to after the reply. `http`: the same on a TCP port of this machine, where a frame is sent
 * without its NUL and a reply ends when the server hangs up. Prints:
 *
 *     wall NANOSECONDS      from the first call to the last reply
 *     cpu NANOSECONDS       user and system time of this program in the timed part
 *     call CODE NANOSECONDS for each call: 0 if its verdict was success, or its value true
 *
 * The first reply with another verdict is shown on standard error.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_MAX = 16384, EVENTS = 256 };

struct call {
    const char *frame;
    size_t length;
    int64_t spent;
    int refused;
};

struct connection {
    int fd;
    size_t call; /* in flight */
    size_t used; /* bytes of its reply */
    int64_t begun;
    char reply[REPLY_MAX + 1];
};

static union {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_in port;
} address;
static socklen_t address_length;
static struct call *calls;
static size_t call_count, connection_count, done;
static int keep, http, poller;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t cpu_time(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return ((int64_t)usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000 +
           ((int64_t)usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static char *read_all(size_t *length)
{
    size_t room = 1 << 20, used = 0, count;
    char *all = malloc(room);

    while (all != NULL && (count = fread(all + used, 1, room - used, stdin)) > 0)
        if ((used += count) == room)
            all = realloc(all, room *= 2);
    if (all == NULL)
        fail("memory");
    *length = used;
    return all;
}

static void cut(char *frames, size_t length)
{
    size_t room = 1024;

    calls = malloc(room * sizeof *calls);
    for (char *end, *left = frames; (end = memchr(left, '\0', length - (size_t)(left - frames))) != NULL; left = end + 1) {
        if (call_count == room)
            calls = realloc(calls, (room *= 2) * sizeof *calls);
        if (calls == NULL)
            fail("memory");
        calls[call_count++] = (struct call){.frame = left, .length = (size_t)(end + !http - left)};
    }
}

static void open_connection(struct connection *connection)
{
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = connection};

    connection->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | (http ? 0 : SOCK_NONBLOCK), 0);
    if (connection->fd < 0 || connect(connection->fd, &address.any, address_length) != 0)
        fail("connect");
    if (http)
        fcntl(connection->fd, F_SETFL, O_NONBLOCK); /* TCP connects only while it is waited for */
    if (epoll_ctl(poller, EPOLL_CTL_ADD, connection->fd, &interest) != 0)
        fail("epoll_ctl");
}

static void begin_call(struct connection *connection)
{
    const struct call *call = &calls[connection->call];

    connection->used = 0;
    connection->begun = now();
    if (!keep)
        open_connection(connection);
    if (send(connection->fd, call->frame, call->length, MSG_NOSIGNAL) != (ssize_t)call->length)
        fail("send");
}

static void judge(struct call *call, const char *reply)
{
    static int shown;

    call->refused = strstr(reply, http ? "\"value\": true" : "\"verdict\":\"success\"") == NULL;
    if (call->refused && !shown) {
        shown = 1;
        fprintf(stderr, "wireload: %s -> %s\n", call->frame, reply);
    }
}

static void receive(struct connection *connection)
{
    struct call *call = &calls[connection->call];
    ssize_t count = recv(connection->fd, connection->reply + connection->used, REPLY_MAX - connection->used, 0);

    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0 && (!http || connection->used == 0)) {
        fprintf(stderr, "wireload: the server hung up before it answered\n");
        exit(1);
    }
    if (count > 0) {
        connection->used += (size_t)count;
        if (http || connection->reply[connection->used - 1] != '\0') {
            if (connection->used == REPLY_MAX) {
                fprintf(stderr, "wireload: a reply is longer than %d bytes\n", REPLY_MAX);
                exit(1);
            }
            return;
        }
    }
    connection->reply[connection->used] = '\0';
    if (!keep)
        close(connection->fd);
    call->spent = now() - connection->begun;
    judge(call, connection->reply);
    done++;
    connection->call += connection_count;
    if (connection->call < call_count)
        begin_call(connection);
}

static void take_address(const char *text)
{
    size_t length = strlen(text);

    if (http) {
        address.port = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(text)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        address_length = sizeof address.port;
        return;
    }
    if (length >= sizeof address.local.sun_path) {
        fprintf(stderr, "wireload: the socket's path is too long\n");
        exit(2);
    }
    address.local.sun_family = AF_UNIX;
    memcpy(address.local.sun_path, text, length + 1);
    address_length = sizeof address.local;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    struct connection *connections;
    int64_t begun, cpu;
    size_t length;
    char *frames;

    connection_count = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;
    keep = connection_count > 0 && strcmp(argv[3], "kept") == 0;
    http = connection_count > 0 && strcmp(argv[3], "http") == 0;
    if (!keep && !http && (connection_count == 0 || strcmp(argv[3], "each") != 0)) {
        fprintf(stderr, "usage: wireload SOCKET|PORT CONNECTIONS kept|each|http < frames\n");
        return 2;
    }
    take_address(argv[1]);
    frames = read_all(&length);
    cut(frames, length);
    if (connection_count > call_count)
        connection_count = call_count;
    connections = calloc(connection_count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || poller < 0)
        fail("memory or epoll");
    for (size_t i = 0; keep && i < connection_count; i++)
        open_connection(&connections[i]);

    cpu = cpu_time();
    begun = now();
    for (size_t i = 0; i < connection_count; i++) {
        connections[i].call = i;
        begin_call(&connections[i]);
    }
    while (done < call_count) {
        int ready = epoll_wait(poller, events, EVENTS, -1);

        if (ready < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < ready; i++)
            receive(events[i].data.ptr);
    }
    printf("wall %lld\ncpu %lld\n", (long long)(now() - begun), (long long)(cpu_time() - cpu));
    for (size_t i = 0; i < call_count; i++)
        printf("call %d %lld\n", calls[i].refused, (long long)calls[i].spent);
    return 0;
}
