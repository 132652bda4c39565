// A layer between the server and the kernel, for tests: it makes calls fail, lie, stall or be the last, and writes down
// what was asked of the disk, so that a power cut can be worked out at any point of it (disk.rs).
//
// LD_PRELOAD brings it in; layer.rs compiles it, and sets these variables:
//
//   FAULTS_ROOT     only what lies below this directory is looked at (and replies, which lie nowhere)
//   FAULTS_CONTROL  a file of one page with rules, shared with the test, which may change them at any time
//   FAULTS_TRACE    a file to which records are appended; none: nothing is written down
//
// Every call goes to the kernel by its number, so nothing here depends on how the C library names its own functions.
// Calls that the C library makes within itself (stdio) are not seen; a test compares the trace with the directory.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// ---- What layer.rs knows too -----------------------------------------------------------------------------------

enum call {
    CALL_WRITE = 1,
    CALL_SYNC = 2,
    CALL_SYNC_RANGE = 4,
    CALL_RENAME = 8,
    CALL_REMOVE = 16,
    CALL_CREATE = 32,
    CALL_MKDIR = 64,
    CALL_TRUNCATE = 128,
    CALL_REPLY = 256,
    CALL_LINK = 512,
    CALL_READ = 1024,
    CALL_RECEIVE = 4096,
    CALL_SPACE = 2048, // to lie about it: a file system that does not tell its size
};

enum action {
    ACTION_COUNT,       // only `seen` grows
    ACTION_KILL_BEFORE, // SIGKILL to ourselves instead of the call
    ACTION_KILL_AFTER,  // the same when the call has returned
    ACTION_FAIL,        // -1 and `error`; nothing is done
    ACTION_LIE,         // success is reported; nothing is done
    ACTION_SHORT,       // of a write, half is done
    ACTION_DELAY,       // the call comes `ms` later; further rules are asked too
    ACTION_LINGER,      // of a sync: it has begun, and ends `ms` later; further rules are asked too
};

struct rule {
    uint32_t calls; // a set of `enum call`; empty: no rule
    uint32_t action;
    uint64_t first; // the first of the matching calls that is concerned, from 1 on
    uint64_t times; // and how many are
    int32_t error;
    uint32_t ms;
    char part[88];         // of the path
    _Atomic uint64_t seen; // matching calls so far
};
_Static_assert(sizeof(struct rule) == 128, "as in layer.rs");

enum { RULES = 16 };

enum record_kind {
    RECORD_WRITE = 1,  // at `a`
    RECORD_FILL = 2,   // at `a`, `b` times the one byte of data
    RECORD_SYNC = 3,   // begins; `a` is its number
    RECORD_SYNCED = 4, // has ended well
    RECORD_RENAME = 5,
    RECORD_REMOVE = 6,
    RECORD_CREATE = 7,
    RECORD_MKDIR = 8,
    RECORD_TRUNCATE = 9, // to `a`
    RECORD_EXTEND = 10,  // to `a` at least
    RECORD_REPLIES = 11, // about to be sent: each with its length, u16, before it
    RECORD_LINK = 12,
    RECORD_FAULT = 13, // rule `a` has acted
};

struct record {
    uint32_t len; // of all that follows it
    uint32_t kind;
    uint64_t a, b;
    uint32_t path_len, path2_len;
};
_Static_assert(sizeof(struct record) == 32, "as in layer.rs");

// ---- Setting up ------------------------------------------------------------------------------------------------

static char root[PATH_MAX];
static size_t root_len;
static struct rule *rules;
static int trace = -1;
static _Atomic uint64_t syncs;

__attribute__((constructor)) static void set_up(void) {
    const char *path = getenv("FAULTS_ROOT");
    if (!path || !realpath(path, root)) return;
    root_len = strlen(root);
    if ((path = getenv("FAULTS_CONTROL"))) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        void *page = mmap(NULL, RULES * sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || page == MAP_FAILED) abort();
        rules = page;
        close(fd);
    }
    if ((path = getenv("FAULTS_TRACE"))) {
        trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        if (trace < 0) abort();
    }
}

// ---- Paths -----------------------------------------------------------------------------------------------------

static int below_root(const char *path) {
    return root_len && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

// Where the open file lies now; 0 when that is not below the root.
static int path_of(int fd, char *path) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = root_len && fd != trace ? syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1) : -1;
    if (len < 0) return 0;
    path[len] = 0;
    return below_root(path);
}

// A path made absolute; 0 when it is not below the root.
static int path_at(int dir, const char *name, char *path) {
    if (!root_len) return 0;
    if (name[0] == '/') {
        if (snprintf(path, PATH_MAX, "%s", name) >= PATH_MAX) abort();
    } else {
        char base[PATH_MAX];
        if (dir == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(dir, base)) return 0;
        if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX) abort();
    }
    return below_root(path);
}

static int exists(const char *path) {
    struct stat stat;
    return !syscall(SYS_newfstatat, AT_FDCWD, path, &stat, AT_SYMLINK_NOFOLLOW);
}

// ---- Writing down ----------------------------------------------------------------------------------------------

static void note(enum record_kind kind, uint64_t a, uint64_t b, const char *path, const char *path2,
                 const struct iovec *data, int parts) {
    if (trace < 0) return;
    int error = errno;
    struct record record = {0, kind, a, b, path ? strlen(path) : 0, path2 ? strlen(path2) : 0};
    struct iovec iov[3 + parts];
    iov[0] = (struct iovec){&record, sizeof record};
    iov[1] = (struct iovec){(void *)path, record.path_len};
    iov[2] = (struct iovec){(void *)path2, record.path2_len};
    size_t len = record.path_len + record.path2_len;
    for (int i = 0; i < parts; i++) len += (iov[3 + i] = data[i]).iov_len;
    record.len = len;
    // One call on a file opened to append: records of all threads stand in the order in which they were noted.
    if (syscall(SYS_writev, trace, iov, 3 + parts) != (ssize_t)(sizeof record + len)) abort();
    errno = error;
}

static void note_write(uint64_t at, const char *path, const void *bytes, size_t len) {
    // What fills a file that is laid out need not be kept.
    if (len > 4096 && !memcmp(bytes, (const char *)bytes + 1, len - 1)) {
        struct iovec one = {(void *)bytes, 1};
        note(RECORD_FILL, at, len, path, NULL, &one, 1);
    } else {
        struct iovec all = {(void *)bytes, len};
        note(RECORD_WRITE, at, 0, path, NULL, &all, 1);
    }
}

// ---- Rules -----------------------------------------------------------------------------------------------------

struct verdict {
    enum action action;
    int rule;
    int error;
    uint32_t linger_ms;
};

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static void wait_ms(uint32_t ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&time, &time)) {}
}

// What is to become of a call. Does not return when it is to be the last and not to be made.
static struct verdict judge(enum call call, const char *path) {
    struct verdict verdict = {ACTION_COUNT, -1, 0, 0};
    for (int i = 0; rules && i < RULES; i++) {
        struct rule *rule = &rules[i];
        if (!(rule->calls & call) || !strstr(path, rule->part)) continue;
        uint64_t seen = atomic_fetch_add(&rule->seen, 1) + 1;
        if (seen < rule->first || seen - rule->first >= rule->times || rule->action == ACTION_COUNT) continue;
        if (rule->action == ACTION_DELAY) wait_ms(rule->ms);
        if (rule->action == ACTION_LINGER) verdict.linger_ms = rule->ms;
        if (rule->action == ACTION_DELAY || rule->action == ACTION_LINGER) continue;
        if (rule->action == ACTION_KILL_BEFORE) die();
        if (verdict.action != ACTION_COUNT) continue;
        verdict = (struct verdict){rule->action, i, rule->error, verdict.linger_ms};
    }
    if (verdict.action == ACTION_FAIL || verdict.action == ACTION_SHORT)
        note(RECORD_FAULT, verdict.rule, 0, path, NULL, NULL, 0);
    return verdict;
}

// The end of a call that was not made.
static long not_made(struct verdict verdict, long success) {
    if (verdict.action == ACTION_LIE) return success;
    errno = verdict.error;
    return -1;
}

static int is_made(struct verdict verdict) {
    return verdict.action != ACTION_FAIL && verdict.action != ACTION_LIE;
}

static long done(struct verdict verdict, long result) {
    if (verdict.action == ACTION_KILL_AFTER) die();
    return result;
}

// ---- The calls: content ----------------------------------------------------------------------------------------

// At the file's own position when `at` is negative.
static ssize_t write_at(int fd, const void *bytes, size_t len, off_t at) {
    char path[PATH_MAX];
    int seen = path_of(fd, path);
    struct verdict verdict = {ACTION_COUNT, -1, 0, 0};
    if (seen) {
        verdict = judge(CALL_WRITE, path);
        if (!is_made(verdict)) return not_made(verdict, len);
        if (verdict.action == ACTION_SHORT && len > 1) len /= 2;
        // Noted before it is done: nothing may take it for done, nor for not begun.
        if (trace >= 0) {
            off_t start = at;
            if (at < 0) {
                int append = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND;
                start = syscall(SYS_lseek, fd, 0, append ? SEEK_END : SEEK_CUR);
            }
            note_write(start, path, bytes, len);
        }
    }
    ssize_t wrote = at < 0 ? syscall(SYS_write, fd, bytes, len) : syscall(SYS_pwrite64, fd, bytes, len, at);
    // The disk under a trace is large enough, and breaks only by a rule.
    if (seen && trace >= 0 && wrote != (ssize_t)len) abort();
    return seen ? done(verdict, wrote) : wrote;
}

ssize_t write(int fd, const void *bytes, size_t len) { return write_at(fd, bytes, len, -1); }

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) { return write_at(fd, bytes, len, at); }

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) { return write_at(fd, bytes, len, at); }

ssize_t writev(int fd, const struct iovec *iov, int count) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return syscall(SYS_writev, fd, iov, count);
    // The part that comes first: a caller has to go on after that anyway.
    for (int i = 0; i < count; i++)
        if (iov[i].iov_len) return write_at(fd, iov[i].iov_base, iov[i].iov_len, -1);
    return 0;
}

static int truncate_to(int fd, off_t len) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return syscall(SYS_ftruncate, fd, len);
    struct verdict verdict = judge(CALL_TRUNCATE, path);
    if (!is_made(verdict)) return not_made(verdict, 0);
    note(RECORD_TRUNCATE, len, 0, path, NULL, NULL, 0);
    return done(verdict, syscall(SYS_ftruncate, fd, len));
}

int ftruncate(int fd, off_t len) { return truncate_to(fd, len); }

int ftruncate64(int fd, off_t len) { return truncate_to(fd, len); }

int fallocate(int fd, int mode, off_t at, off_t len) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return syscall(SYS_fallocate, fd, mode, at, len);
    struct verdict verdict = judge(CALL_TRUNCATE, path);
    if (!is_made(verdict)) return not_made(verdict, 0);
    // Room that is kept shows nothing; holes that are punched would show zeros, and nobody punches any here.
    if (trace >= 0 && mode & ~FALLOC_FL_KEEP_SIZE) abort();
    if (!mode) note(RECORD_EXTEND, at + len, 0, path, NULL, NULL, 0);
    return done(verdict, syscall(SYS_fallocate, fd, mode, at, len));
}

// ---- The calls: syncs ------------------------------------------------------------------------------------------

static int sync_by(long number, int fd) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return syscall(number, fd);
    struct verdict verdict = judge(CALL_SYNC, path);
    if (!is_made(verdict)) return not_made(verdict, 0);
    uint64_t id = atomic_fetch_add(&syncs, 1);
    note(RECORD_SYNC, id, 0, path, NULL, NULL, 0);
    int result = syscall(number, fd);
    wait_ms(verdict.linger_ms);
    if (!result) note(RECORD_SYNCED, id, 0, path, NULL, NULL, 0);
    return done(verdict, result);
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }

// Promises nothing about a power cut, so nothing is noted.
int sync_file_range(int fd, off_t at, off_t len, unsigned flags) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return syscall(SYS_sync_file_range, fd, at, len, flags);
    struct verdict verdict = judge(CALL_SYNC_RANGE, path);
    if (!is_made(verdict)) return not_made(verdict, 0);
    return done(verdict, syscall(SYS_sync_file_range, fd, at, len, flags));
}

// ---- The calls: names ------------------------------------------------------------------------------------------

static int open_at(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    if (!writes || !path_at(dir, name, path)) return syscall(SYS_openat, dir, name, flags, mode);
    int there = exists(path);
    struct verdict verdict = {ACTION_COUNT, -1, 0, 0};
    if (!there && flags & O_CREAT) verdict = judge(CALL_CREATE, path);
    // There is nothing to pretend: a lie is not made here.
    if (verdict.action == ACTION_FAIL) return not_made(verdict, 0);
    int fd = syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= 0 && !there) note(RECORD_CREATE, 0, 0, path, NULL, NULL, 0);
    if (fd >= 0 && there && flags & O_TRUNC) note(RECORD_TRUNCATE, 0, 0, path, NULL, NULL, 0);
    return done(verdict, fd);
}

static mode_t mode_of(int flags, va_list more) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(more, mode_t) : 0;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = mode_of(flags, more);                                                                            \
        va_end(more);                                                                                                  \
        return open_at(AT_FDCWD, path, flags, mode);                                                                   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int dir, const char *path, int flags, ...) {                                                              \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = mode_of(flags, more);                                                                            \
        va_end(more);                                                                                                  \
        return open_at(dir, path, flags, mode);                                                                        \
    }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to) {
    char path[PATH_MAX], path2[PATH_MAX];
    int seen = path_at(AT_FDCWD, from, path) && path_at(AT_FDCWD, to, path2);
    if (!seen) return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    struct verdict verdict = judge(CALL_RENAME, path2);
    if (!is_made(verdict)) return not_made(verdict, 0);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!result) note(RECORD_RENAME, 0, 0, path, path2, NULL, 0);
    return done(verdict, result);
}

static int link_at(int dir, const char *from, int dir2, const char *to, int flags) {
    char path[PATH_MAX], path2[PATH_MAX];
    int seen = path_at(dir, from, path) && path_at(dir2, to, path2);
    if (!seen) return syscall(SYS_linkat, dir, from, dir2, to, flags);
    struct verdict verdict = judge(CALL_LINK, path2);
    if (!is_made(verdict)) return not_made(verdict, 0);
    int result = syscall(SYS_linkat, dir, from, dir2, to, flags);
    if (!result) note(RECORD_LINK, 0, 0, path, path2, NULL, 0);
    return done(verdict, result);
}

int linkat(int dir, const char *from, int dir2, const char *to, int flags) {
    return link_at(dir, from, dir2, to, flags);
}

int link(const char *from, const char *to) { return link_at(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int remove_at(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    if (!path_at(dir, name, path)) return syscall(SYS_unlinkat, dir, name, flags);
    struct verdict verdict = judge(CALL_REMOVE, path);
    if (!is_made(verdict)) return not_made(verdict, 0);
    int result = syscall(SYS_unlinkat, dir, name, flags);
    if (!result) note(RECORD_REMOVE, 0, 0, path, NULL, NULL, 0);
    return done(verdict, result);
}

int unlink(const char *name) { return remove_at(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return remove_at(AT_FDCWD, name, AT_REMOVEDIR); }

int unlinkat(int dir, const char *name, int flags) { return remove_at(dir, name, flags); }

int mkdir(const char *name, mode_t mode) {
    char path[PATH_MAX];
    // One that is there already takes no disk to be told of.
    if (!path_at(AT_FDCWD, name, path) || exists(path)) return syscall(SYS_mkdirat, AT_FDCWD, name, mode);
    struct verdict verdict = judge(CALL_MKDIR, path);
    if (!is_made(verdict)) return not_made(verdict, 0);
    int result = syscall(SYS_mkdirat, AT_FDCWD, name, mode);
    if (!result) note(RECORD_MKDIR, 0, 0, path, NULL, NULL, 0);
    return done(verdict, result);
}

// ---- The calls: reads and replies ------------------------------------------------------------------------------

ssize_t pread(int fd, void *bytes, size_t len, off_t at) {
    char path[PATH_MAX];
    if (!rules || !path_of(fd, path)) return syscall(SYS_pread64, fd, bytes, len, at);
    struct verdict verdict = judge(CALL_READ, path);
    if (verdict.action == ACTION_FAIL) return not_made(verdict, 0);
    return done(verdict, syscall(SYS_pread64, fd, bytes, len, at));
}

ssize_t pread64(int fd, void *bytes, size_t len, off_t at) { return pread(fd, bytes, len, at); }

int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout) {
    struct verdict verdict = judge(CALL_RECEIVE, "receive");
    if (!is_made(verdict)) return not_made(verdict, 0);
    return done(verdict, syscall(SYS_recvmmsg, fd, messages, count, flags, timeout));
}

int statvfs(const char *name, struct statvfs *space) {
    char path[PATH_MAX];
    struct statfs found;
    int seen = path_at(AT_FDCWD, name, path);
    struct verdict verdict = {ACTION_COUNT, -1, 0, 0};
    if (seen) verdict = judge(CALL_SPACE, path);
    if (verdict.action == ACTION_FAIL) return not_made(verdict, 0);
    if (syscall(SYS_statfs, name, &found)) return -1;
    memset(space, 0, sizeof *space);
    if (verdict.action == ACTION_LIE) return 0;
    space->f_bsize = found.f_bsize;
    space->f_frsize = found.f_frsize ? found.f_frsize : found.f_bsize;
    space->f_blocks = found.f_blocks;
    space->f_bfree = found.f_bfree;
    space->f_bavail = found.f_bavail;
    return 0;
}

int statvfs64(const char *name, struct statvfs64 *space) { return statvfs(name, (struct statvfs *)space); }

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags) {
    struct verdict verdict = judge(CALL_REPLY, "reply");
    if (!is_made(verdict)) return not_made(verdict, count);
    if (trace >= 0 && count) {
        struct iovec iov[2 * count];
        uint16_t lens[count];
        for (unsigned i = 0; i < count; i++) {
            if (messages[i].msg_hdr.msg_iovlen != 1) abort();
            lens[i] = messages[i].msg_hdr.msg_iov->iov_len;
            iov[2 * i] = (struct iovec){&lens[i], sizeof lens[i]};
            iov[2 * i + 1] = *messages[i].msg_hdr.msg_iov;
        }
        // Before it is sent: from here on a client may have it.
        note(RECORD_REPLIES, 0, 0, "reply", NULL, iov, 2 * count);
    }
    return done(verdict, syscall(SYS_sendmmsg, fd, messages, count, flags));
}
