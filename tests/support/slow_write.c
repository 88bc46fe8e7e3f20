/* Preloaded, it makes every pwrite(2) take a little longer, so that a commit is longer under way and a crash is
 * more likely to hit it before it is done. SLOW_WRITE_US says how many microseconds. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static void linger(void)
{
    const char *text = getenv("SLOW_WRITE_US");

    usleep(text == NULL ? 0 : (useconds_t)atoi(text));
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    linger();
    return syscall(SYS_pwrite64, fd, bytes, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(fd, bytes, count, offset);
}
