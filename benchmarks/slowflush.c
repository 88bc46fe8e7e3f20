/*
 * LD_PRELOAD: every flush to disk takes SLOWFLUSH_MS milliseconds longer, as on a disk without a power-safe cache.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_for_the_platter(void)
{
    const char *text = getenv("SLOWFLUSH_MS");
    long milliseconds = text != NULL ? strtol(text, NULL, 10) : 0;
    struct timespec delay = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&delay, NULL);
}

static int flush(const char *name, int fd)
{
    int (*real)(int);

    *(void **)&real = dlsym(RTLD_NEXT, name);
    wait_for_the_platter();
    return real(fd);
}

int fsync(int fd)
{
    return flush("fsync", fd);
}

int fdatasync(int fd)
{
    return flush("fdatasync", fd);
}
