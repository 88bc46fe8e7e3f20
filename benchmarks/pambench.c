/*
 * Times logins through a PAM stack from inside of a process, as sshd or sudo would do them.
 *
 *     pambench CONFDIR SERVICE PROCESSES WARMUP [together | paused MICROSECONDS | killed MICROSECONDS] < logins
 *
 * A line of `logins` is a user, a space and the code to answer with: both are made before anything is timed. Login i
 * belongs to process i % PROCESSES, which goes through its own in order. The first WARMUP of each process are not
 * timed. All processes start the timed part together. With `together` they start every login together, so that the
 * same code on as many lines as there are processes is tried by all of them at once. With `paused` each waits that
 * long after each of its timed logins. With `killed` all processes get SIGKILL that long after the start, whatever they
 * are doing. Prints:
 *
 *     wall NANOSECONDS      from the first start to the last end; this and the next not with `killed`
 *     cpu NANOSECONDS       user and system time of all processes in the timed part
 *     call CODE NANOSECONDS for each timed login: what pam_authenticate returned, and pam_start to pam_end;
 *                           code -1 if the process was killed before it was through
 *
 * Modules log. Where nobody listens on /dev/log the C library writes to the console instead, which takes longer than
 * a login, so this program listens there itself while it runs. It says so and ends with status 3 if it cannot.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = 256, CODE_MAX_BYTES = 32, PROCESSES_MAX = 64, NO_LOG = 3, UNFINISHED = -1 };

struct login {
    char user[NAME_MAX_BYTES];
    char code[CODE_MAX_BYTES];
    int64_t spent;
    int result;
};

struct span {
    int64_t begin, end, cpu;
};

struct shared {
    pthread_barrier_t start;
    struct span spans[PROCESSES_MAX];
    struct login logins[];
};

static const char *log_path = "/dev/log";

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

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    struct pam_response *answers = calloc((size_t)count, sizeof *answers);

    if (answers == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF || messages[i]->msg_style == PAM_PROMPT_ECHO_ON)
            answers[i].resp = strdup(data);
    *responses = answers;
    return PAM_SUCCESS;
}

static void log_in(const char *confdir, const char *service, struct login *login)
{
    struct pam_conv conversation = {converse, login->code};
    pam_handle_t *handle = NULL;
    int64_t begun = now();
    int result = pam_start_confdir(service, login->user, &conversation, confdir, &handle);

    if (result == PAM_SUCCESS) {
        result = pam_authenticate(handle, 0);
        login->result = result; /* said: a kill before the end of pam_end does not take it back */
        pam_end(handle, result);
    }
    login->result = result;
    login->spent = now() - begun;
}

static void work(struct shared *shared, size_t count, int process, int processes, int warmup, int together,
                 useconds_t pause, char **argv)
{
    struct span *span = &shared->spans[process];
    size_t next = (size_t)process;

    for (; warmup > 0 && next < count; warmup--, next += (size_t)processes)
        log_in(argv[1], argv[2], &shared->logins[next]);
    pthread_barrier_wait(&shared->start);
    span->begin = now();
    span->cpu = cpu_time();
    for (; next < count; next += (size_t)processes) {
        if (together)
            pthread_barrier_wait(&shared->start);
        log_in(argv[1], argv[2], &shared->logins[next]);
        if (pause > 0)
            usleep(pause);
    }
    span->cpu = cpu_time() - span->cpu;
    span->end = now();
}

static size_t read_logins(struct login **logins)
{
    size_t count = 0, room = 1024;
    struct login *all = malloc(room * sizeof *all);

    for (;;) {
        if (all == NULL)
            fail("memory");
        memset(&all[count], 0, sizeof *all);
        if (scanf("%255s %31s", all[count].user, all[count].code) != 2)
            break;
        all[count].result = UNFINISHED;
        if (++count == room)
            all = realloc(all, (room *= 2) * sizeof *all);
    }
    *logins = all;
    return count;
}

/* The socket that this program must drain, or -1 where a syslog daemon does it. */
static int log_sink(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    memcpy(address.sun_path, log_path, strlen(log_path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        close(fd);
        return -1;
    }
    if (errno == ECONNREFUSED)
        unlink(log_path); /* left by a process that is gone */
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        fprintf(stderr, "pambench: nobody listens on %s, and it cannot be made: %s\n", log_path, strerror(errno));
        exit(NO_LOG);
    }
    return fd;
}

/* Throws log messages away until every process has closed its end of the pipe, or for so long. */
static void drain(int sink, int pipe_end, int64_t nanoseconds)
{
    struct pollfd waiting[] = {{.fd = pipe_end, .events = POLLIN}, {.fd = sink, .events = POLLIN}};
    int64_t end = now() + nanoseconds;
    char message[8192];

    while (nanoseconds < 0 || now() < end) {
        int64_t left = end - now();
        struct timespec time = {left / 1000000000, left > 0 ? left % 1000000000 : 0};

        if (ppoll(waiting, 2, nanoseconds < 0 ? NULL : &time, NULL) < 0 && errno != EINTR)
            fail("ppoll");
        if (waiting[1].revents & POLLIN)
            while (recv(sink, message, sizeof message, MSG_DONTWAIT) >= 0)
                ;
        if (waiting[0].revents & POLLHUP)
            return;
    }
}

int main(int argc, char **argv)
{
    int together = argc == 6 && strcmp(argv[5], "together") == 0;
    int paused = argc == 7 && strcmp(argv[5], "paused") == 0;
    int killed = argc == 7 && strcmp(argv[5], "killed") == 0;
    int right = argc == 5 || together || paused || killed;
    int processes = right ? atoi(argv[3]) : 0, warmup = right ? atoi(argv[4]) : 0;
    int sink, alive[2], status, failed = 0;
    pid_t pids[PROCESSES_MAX];
    struct login *logins;
    struct shared *shared;
    pthread_barrierattr_t across;
    int64_t begin = INT64_MAX, end = 0, cpu = 0;
    size_t count;

    if (processes < 1 || processes > PROCESSES_MAX) {
        fprintf(stderr, "usage: pambench CONFDIR SERVICE PROCESSES WARMUP "
                        "[together | paused MICROSECONDS | killed MICROSECONDS] < logins\n");
        return 2;
    }
    count = read_logins(&logins);
    if (together && count % (size_t)processes != 0) {
        fprintf(stderr, "pambench: together, but not as many logins for each process\n");
        return 2;
    }
    shared = mmap(NULL, sizeof *shared + count * sizeof *logins, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe(alive) != 0)
        fail("mmap or pipe");
    memcpy(shared->logins, logins, count * sizeof *logins);
    pthread_barrierattr_init(&across);
    pthread_barrierattr_setpshared(&across, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->start, &across, (unsigned)(processes + killed));
    sink = log_sink();
    for (int process = 0; process < processes; process++) {
        pids[process] = fork();
        if (pids[process] < 0)
            fail("fork");
        if (pids[process] == 0) {
            close(alive[0]);
            if (sink >= 0)
                close(sink);
            work(shared, count, process, processes, warmup, together, paused ? (useconds_t)atol(argv[6]) : 0, argv);
            _exit(0);
        }
    }
    close(alive[1]);
    if (killed) {
        pthread_barrier_wait(&shared->start);
        drain(sink, alive[0], atoll(argv[6]) * 1000);
        for (int process = 0; process < processes; process++)
            kill(pids[process], SIGKILL);
    }
    drain(sink, alive[0], -1);
    if (sink >= 0)
        unlink(log_path);
    while (wait(&status) > 0)
        failed |= status != 0;
    if (failed && !killed) {
        fprintf(stderr, "pambench: a login killed its process\n");
        return 1;
    }
    for (int process = 0; process < processes && !killed; process++) {
        begin = shared->spans[process].begin < begin ? shared->spans[process].begin : begin;
        end = shared->spans[process].end > end ? shared->spans[process].end : end;
        cpu += shared->spans[process].cpu;
    }
    if (!killed)
        printf("wall %lld\ncpu %lld\n", (long long)(end - begin), (long long)cpu);
    for (size_t i = 0; i < count; i++)
        if (i >= (size_t)processes * (size_t)warmup)
            printf("call %d %lld\n", shared->logins[i].result, (long long)shared->logins[i].spent);
    return 0;
}
