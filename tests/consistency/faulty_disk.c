/* Makes the disk slow or broken for chosen processes, while they run.
 *
 * Preloaded into every process of a test's cluster. Files in the folder $ETCRAY_TESTING_FAULTS decide:
 *
 *   slow-<process id>    before each sync, wait as many milliseconds as it says
 *   broken-<process id>  syncs, and writes at an offset (which are a database's), fail with EIO
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int open_fault(const char *kind)
{
    const char *faults = getenv("ETCRAY_TESTING_FAULTS");
    char path[4096];

    if (faults == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/%s-%d", faults, kind, (int)getpid());
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void wait_as_told(void)
{
    char text[16] = {0};
    int file = open_fault("slow");

    if (file < 0)
        return;
    if (read(file, text, sizeof text - 1) > 0)
        usleep((useconds_t)(atoi(text) * 1000));
    close(file);
}

/* Leaves errno as it was, unless the disk is broken. */
static int is_broken(void)
{
    int before = errno;
    int file = open_fault("broken");

    if (file < 0) {
        errno = before;
        return 0;
    }
    close(file);
    errno = EIO;
    return 1;
}

#define SYNC(name)                                              \
    int name(int file)                                          \
    {                                                           \
        static int (*real)(int);                                \
                                                                \
        if (real == NULL)                                       \
            real = (int (*)(int))dlsym(RTLD_NEXT, #name);       \
        wait_as_told();                                         \
        return is_broken() ? -1 : real(file);                   \
    }

#define WRITE(name, offset_type)                                                          \
    ssize_t name(int file, const void *data, size_t size, offset_type offset)             \
    {                                                                                     \
        static ssize_t (*real)(int, const void *, size_t, offset_type);                   \
                                                                                          \
        if (real == NULL)                                                                 \
            real = (ssize_t (*)(int, const void *, size_t, offset_type))dlsym(RTLD_NEXT, #name); \
        return is_broken() ? -1 : real(file, data, size, offset);                         \
    }

SYNC(fdatasync)
SYNC(fsync)
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
