/* Preloaded into a host: fails, tears, leaves out, or dies at, the calls it
 * makes on files below TORTURE_DIR. Built by the tests that use it.
 *
 * TORTURE_CALLS  which calls, separated by commas
 * TORTURE_NTH    the number of the call, from 1
 * TORTURE_HOW    once, forever: it fails with TORTURE_ERRNO
 *                torn:  half of a write is made, then it fails, once
 *                kill:  the process is killed before the call
 *                hang:  the call never returns
 *                skip:  every call succeeds and does nothing
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, TEAR, SKIP };

static unsigned char ours[65536];
static long counted;

static int __attribute__((noinline)) below(const char *volatile path) {
    const char *dir = getenv("TORTURE_DIR");
    return dir && path && strncmp(path, dir, strlen(dir)) == 0;
}

static int marked(int fd) {
    return fd >= 0 && fd < (int)sizeof ours && ours[fd];
}

static int listed(const char *call) {
    const char *calls = getenv("TORTURE_CALLS");
    size_t length = strlen(call);
    while (calls && *calls) {
        size_t next = strcspn(calls, ",");
        if (next == length && strncmp(calls, call, length) == 0) return 1;
        calls += next + (calls[next] == ',');
    }
    return 0;
}

static int decide(const char *call, int is_ours) {
    if (!is_ours || !listed(call)) return PASS;
    const char *how = getenv("TORTURE_HOW");
    if (strcmp(how, "skip") == 0) return SKIP;
    long number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    long nth = atol(getenv("TORTURE_NTH"));
    if (number < nth || (number > nth && strcmp(how, "forever") != 0)) return PASS;
    if (number == nth) {
        char line[64];
        int length = snprintf(line, sizeof line, "\nhit %s\n", call);
        if (syscall(SYS_write, 1, line, length) < 0) _exit(99);
    }
    if (strcmp(how, "kill") == 0) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
        for (;;) pause();
    }
    if (strcmp(how, "hang") == 0) for (;;) pause();
    if (strcmp(how, "torn") == 0) return TEAR;
    errno = atoi(getenv("TORTURE_ERRNO"));
    return FAIL;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define GUARD(call, is_ours, value)            \
    switch (decide(call, is_ours)) {           \
    case SKIP: return 0;                       \
    case FAIL: case TEAR: return value;        \
    }

static int mark(int fd, int is_ours) {
    if (fd >= 0 && fd < (int)sizeof ours) ours[fd] = is_ours;
    return fd;
}

#define OPEN(name)                                       \
    int name(const char *path, int flags, ...) {         \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        mode_t mode = va_arg(rest, mode_t);              \
        va_end(rest);                                    \
        REAL(name);                                      \
        GUARD("open", below(path), -1);                  \
        return mark(real(path, flags, mode), below(path)); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                             \
    int name(int dir, const char *path, int flags, ...) {        \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = va_arg(rest, mode_t);                      \
        va_end(rest);                                            \
        REAL(name);                                              \
        int is_ours = below(path) || (path[0] != '/' && marked(dir)); \
        GUARD("open", is_ours, -1);                              \
        return mark(real(dir, path, flags, mode), is_ours);      \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(close);
    mark(fd, 0);
    return real(fd);
}

#define WRITE(name, parameters, arguments, halved)     \
    ssize_t name parameters {                          \
        REAL(name);                                    \
        switch (decide("write", marked(fd))) {         \
        case FAIL: return -1;                          \
        case TEAR:                                     \
            if (length > 1) real halved;               \
            errno = atoi(getenv("TORTURE_ERRNO"));     \
            return -1;                                 \
        }                                              \
        return real arguments;                         \
    }
WRITE(write, (int fd, const void *bytes, size_t length), (fd, bytes, length), (fd, bytes, length / 2))
WRITE(pwrite, (int fd, const void *bytes, size_t length, off_t at), (fd, bytes, length, at),
      (fd, bytes, length / 2, at))
WRITE(pwrite64, (int fd, const void *bytes, size_t length, off64_t at), (fd, bytes, length, at),
      (fd, bytes, length / 2, at))

ssize_t read(int fd, void *bytes, size_t length) {
    REAL(read);
    GUARD("read", marked(fd), -1);
    return real(fd, bytes, length);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
    REAL(pread64);
    GUARD("read", marked(fd), -1);
    return real(fd, bytes, length, at);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    GUARD("fdatasync", marked(fd), -1);
    return real(fd);
}

int fsync(int fd) {
    REAL(fsync);
    GUARD("fsync", marked(fd), -1);
    return real(fd);
}

int sync_file_range(int fd, off64_t from, off64_t length, unsigned flags) {
    REAL(sync_file_range);
    GUARD("sync_file_range", marked(fd), -1);
    return real(fd, from, length, flags);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    GUARD("rename", below(from), -1);
    return real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    GUARD("unlink", below(path), -1);
    return real(path);
}

int unlinkat(int dir, const char *path, int flags) {
    REAL(unlinkat);
    GUARD("unlink", below(path) || marked(dir), -1);
    return real(dir, path, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    GUARD("mkdir", below(path), -1);
    return real(path, mode);
}

int ftruncate64(int fd, off64_t length) {
    REAL(ftruncate64);
    GUARD("truncate", marked(fd), -1);
    return real(fd, length);
}

DIR *opendir(const char *path) {
    REAL(opendir);
    GUARD("list", below(path), NULL);
    DIR *dir = real(path);
    if (dir) mark(dirfd(dir), below(path));
    return dir;
}

struct dirent64 *readdir64(DIR *dir) {
    REAL(readdir64);
    GUARD("list", marked(dirfd(dir)), NULL);
    return real(dir);
}

/* Whether it is asked whether there is such a call, with a path of NULL, is not for the compiler to decide. */
static int __attribute__((noinline)) empty(const char *path) {
    const char *volatile asked = path;
    return asked && !*asked;
}

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *found) {
    REAL(statx);
    GUARD("stat", below(path) || (empty(path) && marked(dir)), -1);
    return real(dir, path, flags, mask, found);
}

int fstat64(int fd, struct stat64 *found) {
    REAL(fstat64);
    GUARD("stat", marked(fd), -1);
    return real(fd, found);
}

int chmod(const char *path, mode_t mode) {
    REAL(chmod);
    GUARD("chmod", below(path), -1);
    return real(path, mode);
}

int fchmod(int fd, mode_t mode) {
    REAL(fchmod);
    GUARD("chmod", marked(fd), -1);
    return real(fd, mode);
}

int flock(int fd, int operation) {
    REAL(flock);
    GUARD("flock", marked(fd), -1);
    return real(fd, operation);
}

off64_t lseek64(int fd, off64_t offset, int whence) {
    REAL(lseek64);
    GUARD("lseek", marked(fd), -1);
    return real(fd, offset, whence);
}

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length,
                        unsigned flags) {
    REAL(copy_file_range);
    GUARD("copy", marked(from), -1);
    return real(from, from_at, to, to_at, length, flags);
}
