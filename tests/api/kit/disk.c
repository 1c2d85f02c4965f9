/* Stands before the C library of a server under test, and lets its disk fail on order. The orders are in a file that the
 * test writes and this process maps: see disk.rs, which has the same layout. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct orders {
    uint32_t errnum;        /* 0: nothing fails */
    uint32_t calls;         /* bits: 1 writes, 2 syncs */
    int64_t pass;           /* so many calls go through before one fails */
    int64_t fail;           /* so many fail; then they go through again */
    int64_t seen;           /* calls that were asked about, counted here */
    char path[224];         /* what the file's path must contain */
};

static struct orders *orders;

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("DISK_ORDERS");
    int fd = at ? open(at, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct orders), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) orders = mapped;
    close(fd);
}

static int fails(int fd, uint32_t call) {
    if (!orders || !__atomic_load_n(&orders->errnum, __ATOMIC_SEQ_CST) || !(orders->calls & call)) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, orders->path)) return 0;
    int64_t seen = __atomic_fetch_add(&orders->seen, 1, __ATOMIC_SEQ_CST);
    if (seen < orders->pass || seen >= orders->pass + orders->fail) return 0;
    errno = (int)orders->errnum;
    return 1;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(write);
    return fails(fd, 1) ? -1 : real(fd, bytes, n);
}
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
    REAL(pwrite);
    return fails(fd, 1) ? -1 : real(fd, bytes, n, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    REAL(pwrite64);
    return fails(fd, 1) ? -1 : real(fd, bytes, n, at);
}
ssize_t writev(int fd, const struct iovec *pieces, int n) {
    REAL(writev);
    return fails(fd, 1) ? -1 : real(fd, pieces, n);
}
int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    return fails(fd, 1) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    return fails(fd, 1) ? -1 : real(fd, size);
}
int fsync(int fd) {
    REAL(fsync);
    return fails(fd, 2) ? -1 : real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    return fails(fd, 2) ? -1 : real(fd);
}
