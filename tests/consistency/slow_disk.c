/* Makes syncing slow for chosen processes, while they run.
 *
 * Preloaded into every process of a test's cluster. Before each sync, a process looks whether the file
 * $ETCRAY_TESTING_FAULTS/slow-<its process id> is there, and if so waits as many milliseconds as it says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_as_told(void)
{
    const char *faults = getenv("ETCRAY_TESTING_FAULTS");
    char path[4096], text[16] = {0};
    int file;

    if (faults == NULL)
        return;
    snprintf(path, sizeof path, "%s/slow-%d", faults, (int)getpid());
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    if (read(file, text, sizeof text - 1) > 0)
        usleep((useconds_t)(atoi(text) * 1000));
    close(file);
}

int fdatasync(int file)
{
    static int (*real)(int);

    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return real(file);
}

int fsync(int file)
{
    static int (*real)(int);

    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_as_told();
    return real(file);
}
