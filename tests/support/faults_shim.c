/*
 * LD_PRELOAD: a disk and a clock that misbehave when they are told to, by the numbers in the file FAULTS_CONTROL names.
 *
 * Writes and flushes of regular files alone are touched, and of clocks the one that tells the time of day.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* The order is known to faults/control.py. Below zero: never. */
struct control {
    _Atomic int64_t room;       /* bytes that may still be written before the disk is full */
    _Atomic int64_t flushes;    /* flushes that still succeed before they fail */
    _Atomic int64_t writes;     /* writes that are still done whole; the next is torn, and kills the process */
    _Atomic int64_t delay_us;   /* what each flush takes longer */
    _Atomic int64_t clock_s;    /* seconds that the time of day is ahead */
    _Atomic int64_t refused;    /* how many writes and flushes have failed */
};

static struct control *control;

__attribute__((constructor)) static void open_control(void)
{
    const char *path = getenv("FAULTS_CONTROL");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *found;

    if (fd < 0)
        return;
    found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED)
        control = found;
}

static int is_watched(int fd)
{
    struct stat about;

    return control != NULL && fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

static int fail(int error)
{
    control->refused++;
    errno = error;
    return -1;
}

/* --- writes --- */

/* How much of a write is done; -1 where none of it is. */
static ssize_t allowed(int fd, size_t count)
{
    int64_t room;

    if (!is_watched(fd))
        return (ssize_t)count;
    room = control->room;
    if (room < 0)
        return (ssize_t)count;
    while (!atomic_compare_exchange_weak(&control->room, &room, room > (int64_t)count ? room - (int64_t)count : 0))
        if (room < 0)
            return (ssize_t)count;
    if (room == 0)
        return fail(ENOSPC);
    return room < (int64_t)count ? (ssize_t)room : (ssize_t)count;
}

static int is_last_write(int fd)
{
    return is_watched(fd) && control->writes >= 0 && control->writes-- == 0;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    ssize_t part = allowed(fd, count);

    if (part < 0)
        return -1;
    if (is_last_write(fd)) {
        syscall(SYS_pwrite64, fd, bytes, count / 2, offset);
        kill(getpid(), SIGKILL);
    }
    return syscall(SYS_pwrite64, fd, bytes, (size_t)part, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    ssize_t part = allowed(fd, count);

    return part < 0 ? -1 : syscall(SYS_write, fd, bytes, (size_t)part);
}

/* --- flushes --- */

static int flush(long number, int fd)
{
    if (is_watched(fd)) {
        int64_t left = control->flushes;
        int64_t delay = control->delay_us;
        struct timespec wait = {delay / 1000000, delay % 1000000 * 1000};

        if (delay > 0)
            nanosleep(&wait, NULL);
        if (left == 0)
            return fail(EIO);
        if (left > 0)
            control->flushes--;
    }
    return (int)syscall(number, fd);
}

int fsync(int fd)
{
    return flush(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return flush(SYS_fdatasync, fd);
}

/* --- the time of day --- */

static int64_t ahead(void)
{
    return control != NULL ? control->clock_s : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    int done;

    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    done = real(clock, now);
    if (done == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec exact;

    clock_gettime(CLOCK_REALTIME, &exact);
    if (result != NULL)
        *result = exact.tv_sec;
    return exact.tv_sec;
}
