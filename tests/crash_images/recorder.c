/* Records what a process does to the files below one directory, in one order.
 *
 * Preloaded into a process, this library stands before libc's calls that change files. A call that
 * concerns the directory (RECORDER_ROOT) is made and written to a journal (RECORDER_JOURNAL) under one
 * lock, so that the journal's order is the order in which the calls took effect. `journal.py` reads it.
 *
 * A record is a header (operation, descriptor, flags, offset, length) and three byte strings: a path,
 * a second path, data. A write below RECORDER_ROOT/../promises is no write but a mark: what the process
 * has promised to others so far.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum operation { OPEN = 1, WRITE, TRUNCATE, SYNC, CLOSE, RENAME, UNLINK, MKDIR, RMDIR, MARK };

struct header {
    uint32_t operation;
    int32_t descriptor;
    int64_t flags;
    int64_t offset;
    int64_t length;
    uint32_t path_bytes, other_bytes, data_bytes;
} __attribute__((packed));

enum { DESCRIPTORS_MAX = 1 << 16 };
enum kind { UNTRACKED = 0, TRACKED = 1, MARKS = 2 };

static char root[PATH_MAX], marks[PATH_MAX];
static int journal = -1;
static unsigned char tracked[DESCRIPTORS_MAX];
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t raw_write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return real(fd, data, size);
}

__attribute__((constructor)) static void begin(void) {
    const char *directory = getenv("RECORDER_ROOT"), *file = getenv("RECORDER_JOURNAL");
    REAL(int, open, const char *, int, ...);
    if (!directory || !file) return;
    snprintf(root, sizeof root, "%s", directory);
    snprintf(marks, sizeof marks, "%s.promises", directory);
    journal = real(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) abort();
}

static int below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return length && !strncmp(path, directory, length) && (path[length] == '/' || path[length] == 0);
}

static const char *absolute(int directory, const char *path, char *buffer) {
    char link[64];
    ssize_t length;
    if (path[0] == '/') return path;
    if (directory == AT_FDCWD) {
        if (!getcwd(buffer, PATH_MAX)) return path;
        length = strlen(buffer);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        length = readlink(link, buffer, PATH_MAX - 1);
        if (length < 0) return path;
    }
    snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return buffer;
}

static void put(enum operation operation, int fd, int64_t flags, int64_t offset, int64_t length,
                const char *path, const char *other, const void *data, uint32_t size) {
    struct header header = {operation, fd, flags, offset, length,
                            path ? strlen(path) : 0, other ? strlen(other) : 0, size};
    int before = errno;
    if (raw_write(journal, &header, sizeof header) != sizeof header) abort();
    if (path && raw_write(journal, path, header.path_bytes) < 0) abort();
    if (other && raw_write(journal, other, header.other_bytes) < 0) abort();
    if (size && raw_write(journal, data, size) != (ssize_t)size) abort();
    errno = before;
}

static enum kind kind_of(int fd) {
    return journal >= 0 && fd >= 0 && fd < DESCRIPTORS_MAX ? tracked[fd] : UNTRACKED;
}

#define LOCKED(expression) \
    pthread_mutex_lock(&lock); \
    expression; \
    pthread_mutex_unlock(&lock)

static int opened(int fd, const char *path, int flags) {
    if (fd >= DESCRIPTORS_MAX) abort();
    if (below(path, marks)) {
        tracked[fd] = MARKS;
    } else {
        tracked[fd] = TRACKED;
        put(OPEN, fd, flags, 0, 0, path, 0, 0, 0);
    }
    return fd;
}

#define OPEN_BODY(name, directory) \
    mode_t mode = 0; \
    char buffer[PATH_MAX]; \
    int fd; \
    const char *full = absolute(directory, path, buffer); \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode = va_arg(arguments, mode_t); \
        va_end(arguments); \
    }

int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...);
    OPEN_BODY(open, AT_FDCWD)
    if (journal < 0 || !(below(full, root) || below(full, marks))) return real(path, flags, mode);
    LOCKED(fd = real(path, flags, mode); if (fd >= 0) opened(fd, full, flags));
    return fd;
}

int open64(const char *path, int flags, ...) {
    REAL(int, open64, const char *, int, ...);
    OPEN_BODY(open64, AT_FDCWD)
    if (journal < 0 || !(below(full, root) || below(full, marks))) return real(path, flags, mode);
    LOCKED(fd = real(path, flags, mode); if (fd >= 0) opened(fd, full, flags));
    return fd;
}

int openat(int directory, const char *path, int flags, ...) {
    REAL(int, openat, int, const char *, int, ...);
    OPEN_BODY(openat, directory)
    if (journal < 0 || !(below(full, root) || below(full, marks))) return real(directory, path, flags, mode);
    LOCKED(fd = real(directory, path, flags, mode); if (fd >= 0) opened(fd, full, flags));
    return fd;
}

int openat64(int directory, const char *path, int flags, ...) {
    REAL(int, openat64, int, const char *, int, ...);
    OPEN_BODY(openat64, directory)
    if (journal < 0 || !(below(full, root) || below(full, marks))) return real(directory, path, flags, mode);
    LOCKED(fd = real(directory, path, flags, mode); if (fd >= 0) opened(fd, full, flags));
    return fd;
}

/* What fortified programs call when they create nothing. */
int __open_2(const char *path, int flags) { return open(path, flags); }
int __open64_2(const char *path, int flags) { return open64(path, flags); }
int __openat_2(int directory, const char *path, int flags) { return openat(directory, path, flags); }
int __openat64_2(int directory, const char *path, int flags) { return openat64(directory, path, flags); }

static void wrote(int fd, int64_t offset, const void *data, ssize_t done) {
    if (done <= 0) return;
    if (kind_of(fd) == MARKS)
        put(MARK, fd, 0, 0, 0, 0, 0, data, done);
    else
        put(WRITE, fd, 0, offset, done, 0, 0, data, done);
}

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t done;
    if (kind_of(fd) == UNTRACKED) return raw_write(fd, data, size);
    LOCKED(done = raw_write(fd, data, size);
           wrote(fd, kind_of(fd) == TRACKED ? lseek(fd, 0, SEEK_CUR) - done : 0, data, done));
    return done;
}

#define PWRITE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset) { \
        REAL(ssize_t, name, int, const void *, size_t, offset_type); \
        ssize_t done; \
        if (kind_of(fd) == UNTRACKED) return real(fd, data, size, offset); \
        LOCKED(done = real(fd, data, size, offset); wrote(fd, offset, data, done)); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(name, length_type) \
    int name(int fd, length_type length) { \
        REAL(int, name, int, length_type); \
        int result; \
        if (kind_of(fd) != TRACKED) return real(fd, length); \
        LOCKED(result = real(fd, length); \
               if (!result) put(TRUNCATE, fd, 0, 0, length, 0, 0, 0, 0)); \
        return result; \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

/* Space that is reserved reads as zeros: as if the file had been made longer. */
#define FALLOCATE(name, offset_type) \
    int name(int fd, int mode, offset_type offset, offset_type length) { \
        REAL(int, name, int, int, offset_type, offset_type); \
        int result; \
        struct stat after; \
        if (kind_of(fd) != TRACKED) return real(fd, mode, offset, length); \
        LOCKED(result = real(fd, mode, offset, length); \
               if (!result && !fstat(fd, &after)) put(TRUNCATE, fd, mode, 0, after.st_size, 0, 0, 0, 0)); \
        return result; \
    }
FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)

#define SYNC_CALL(name) \
    int name(int fd) { \
        REAL(int, name, int); \
        int result; \
        if (kind_of(fd) != TRACKED) return real(fd); \
        LOCKED(result = real(fd); if (!result) put(SYNC, fd, 0, 0, 0, 0, 0, 0, 0)); \
        return result; \
    }
SYNC_CALL(fsync)
SYNC_CALL(fdatasync)

int close(int fd) {
    REAL(int, close, int);
    int result;
    if (kind_of(fd) == UNTRACKED) return real(fd);
    LOCKED(if (kind_of(fd) == TRACKED) put(CLOSE, fd, 0, 0, 0, 0, 0, 0, 0);
           tracked[fd] = UNTRACKED; result = real(fd));
    return result;
}

static int renamed(int result, const char *from, const char *to) {
    if (!result && (below(from, root) || below(to, root))) put(RENAME, -1, 0, 0, 0, from, to, 0, 0);
    return result;
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    char first[PATH_MAX], second[PATH_MAX];
    int result;
    if (journal < 0) return real(from, to);
    LOCKED(result = renamed(real(from, to), absolute(AT_FDCWD, from, first), absolute(AT_FDCWD, to, second)));
    return result;
}

int renameat(int one, const char *from, int other, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    char first[PATH_MAX], second[PATH_MAX];
    int result;
    if (journal < 0) return real(one, from, other, to);
    LOCKED(result = renamed(real(one, from, other, to), absolute(one, from, first), absolute(other, to, second)));
    return result;
}

static int removed(int result, enum operation operation, const char *path) {
    if (!result && below(path, root)) put(operation, -1, 0, 0, 0, path, 0, 0, 0);
    return result;
}

#define BY_PATH(name, operation) \
    int name(const char *path) { \
        REAL(int, name, const char *); \
        char buffer[PATH_MAX]; \
        int result; \
        if (journal < 0) return real(path); \
        LOCKED(result = removed(real(path), operation, absolute(AT_FDCWD, path, buffer))); \
        return result; \
    }
BY_PATH(unlink, UNLINK)
BY_PATH(remove, UNLINK)
BY_PATH(rmdir, RMDIR)

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    char buffer[PATH_MAX];
    int result;
    if (journal < 0) return real(directory, path, flags);
    LOCKED(result = removed(real(directory, path, flags), flags & AT_REMOVEDIR ? RMDIR : UNLINK,
                            absolute(directory, path, buffer)));
    return result;
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    char buffer[PATH_MAX];
    int result;
    if (journal < 0) return real(path, mode);
    LOCKED(result = removed(real(path, mode), MKDIR, absolute(AT_FDCWD, path, buffer)));
    return result;
}
