/*
 * LD_PRELOAD: every flush to disk takes SLOWFLUSH_MS milliseconds longer, as on a disk without a power-safe cache.
 *
 * Flushes of several processes overlap, as if any number of them were one to the disk. With SLOWFLUSH_LOCK, the path
 * of a file, they come one after the other, as if the disk never took two together. A real disk lies in between.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static void wait_for_the_platter(void)
{
    const char *text = getenv("SLOWFLUSH_MS");
    long milliseconds = text != NULL ? strtol(text, NULL, 10) : 0;
    struct timespec delay = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&delay, NULL);
}

/* The lock, held until it is closed, or -1 if flushes overlap. A lock that cannot be had ends the run. */
static int take_turn(void)
{
    const char *path = getenv("SLOWFLUSH_LOCK");
    int lock = -1;

    if (path != NULL) {
        lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (lock < 0 || flock(lock, LOCK_EX) != 0) {
            perror(path);
            abort();
        }
    }
    return lock;
}

static int flush(const char *name, int fd)
{
    int (*real)(int);
    int lock = take_turn(), result;

    *(void **)&real = dlsym(RTLD_NEXT, name);
    wait_for_the_platter();
    result = real(fd);
    if (lock >= 0)
        close(lock);
    return result;
}

int fsync(int fd)
{
    return flush("fsync", fd);
}

int fdatasync(int fd)
{
    return flush("fdatasync", fd);
}
