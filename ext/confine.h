/* The system calls of a worker that serves, as a seccomp program. Owned by ext/confine.pyx.

   Written here and not through libseccomp: the compiler knows the numbers of the machine that it builds for, so that
   nothing has to be installed, loaded or called through ctypes where traffic is served. The kernel (5.11 and later)
   remembers which calls are allowed whatever their arguments are and runs no program for those; the order, by
   frequency, is for older ones. */
#ifndef SCRUBBER_CONFINE_H
#define SCRUBBER_CONFINE_H
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define SCRUBBER_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define SCRUBBER_AUDIT_ARCH AUDIT_ARCH_AARCH64
#else
#error "ext/confine.h knows x86_64 and aarch64: add the AUDIT_ARCH of this machine, and test it"
#endif
#define SCRUBBER_X32_BIT 0x40000000u

/* Whatever the arguments are. */
static const int scrubber_calls_allowed[] = {
#if defined(__x86_64__)
    __NR_epoll_wait,
#endif
    __NR_recvfrom, __NR_sendmsg, __NR_epoll_pwait, __NR_splice, __NR_read, __NR_write, __NR_close,
    __NR_accept4, __NR_connect, __NR_epoll_ctl, __NR_shutdown, __NR_setsockopt, __NR_getsockopt, __NR_getsockname,
    __NR_getpeername, __NR_sendto, __NR_recvmsg, __NR_clock_gettime, __NR_futex, __NR_getrandom, __NR_timerfd_settime,
    __NR_fcntl, __NR_pipe2, __NR_epoll_create1, __NR_eventfd2, __NR_dup, __NR_dup3,
    __NR_munmap, __NR_mremap, __NR_madvise, __NR_brk,
    /* Python's own: its descriptors, its signal handlers, the sizes of what it maps, the way out */
    __NR_fstat, __NR_lseek, __NR_pread64, __NR_readv, __NR_writev, __NR_ppoll, __NR_pselect6, __NR_clock_nanosleep,
    __NR_nanosleep, __NR_gettimeofday, __NR_clock_getres, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_rt_sigreturn,
    __NR_sigaltstack, __NR_restart_syscall, __NR_sched_yield, __NR_getpid, __NR_gettid, __NR_getppid, __NR_getuid,
    __NR_geteuid, __NR_getgid, __NR_getegid, __NR_rseq, __NR_exit, __NR_exit_group,
#if defined(__x86_64__)
    __NR_poll, __NR_select, __NR_time,
#endif
#if defined(__SANITIZE_ADDRESS__)
    /* A report reads /proc/self/maps and the symbols of what is mapped, and a fault is one only if it is told. */
    __NR_openat, __NR_readlinkat, __NR_newfstatat, __NR_getrlimit, __NR_prlimit64, __NR_sched_getaffinity,
    __NR_getcwd, __NR_sysinfo, __NR_uname, __NR_getdents64,
#if defined(__x86_64__)
    __NR_open, __NR_readlink, __NR_stat,
#endif
#endif
};

/* Nothing that runs here ever asks for these: who does has taken the process over, and it ends. */
static const int scrubber_calls_killed[] = {
    __NR_execve, __NR_execveat, __NR_ptrace, __NR_process_vm_readv, __NR_process_vm_writev, __NR_bpf, __NR_perf_event_open,
    __NR_init_module, __NR_finit_module, __NR_delete_module, __NR_kexec_load, __NR_mount, __NR_umount2, __NR_pivot_root,
    __NR_chroot, __NR_setns, __NR_unshare, __NR_add_key, __NR_request_key, __NR_keyctl, __NR_userfaultfd, __NR_reboot,
    __NR_swapon, __NR_swapoff, __NR_open_by_handle_at, __NR_name_to_handle_at, __NR_personality,
    __NR_io_uring_setup, __NR_io_uring_enter, __NR_io_uring_register,
    __NR_pidfd_getfd,
};

typedef struct {
    struct sock_filter code[512];
    unsigned short n;
} scrubber_program;

static void scrubber_emit(scrubber_program *p, uint16_t code, uint8_t yes, uint8_t no, uint32_t k) {
    if (p->n < sizeof p->code / sizeof p->code[0]) p->code[p->n] = (struct sock_filter){code, yes, no, k};
    p->n++;
}

static void scrubber_load(scrubber_program *p, size_t offset) {
    scrubber_emit(p, BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)offset);
}

static void scrubber_return(scrubber_program *p, uint32_t what) { scrubber_emit(p, BPF_RET | BPF_K, 0, 0, what); }

/* What is loaded is one of these: an answer; else on. */
static void scrubber_when(scrubber_program *p, const int *values, size_t n, uint32_t what) {
    for (size_t i = 0; i < n; i++) {
        scrubber_emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (uint32_t)values[i]);
        scrubber_return(p, what);
    }
}

/* The low half of an argument. (The kernel looks at no more where it is an int; PROT_EXEC lies there as well.) */
static size_t scrubber_argument(int i) {
    size_t at = offsetof(struct seccomp_data, args) + 8 * (size_t)i;
    return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? at + 4 : at;
}

/* A call that is allowed where an argument, without the bits of `ignored`, is one of these. */
static void scrubber_only(scrubber_program *p, int call, int argument, uint32_t ignored, const int *values, size_t n) {
    scrubber_emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, (uint8_t)(3 + 2 * n), (uint32_t)call);
    scrubber_load(p, scrubber_argument(argument));
    scrubber_emit(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, ~ignored);
    scrubber_when(p, values, n, SECCOMP_RET_ALLOW);
    scrubber_return(p, SECCOMP_RET_ERRNO | EPERM);
}

#define SCRUBBER_MANY(list) list, sizeof(list) / sizeof((list)[0])

static void scrubber_begin_program(scrubber_program *p) {
    p->n = 0;
    scrubber_load(p, offsetof(struct seccomp_data, arch));
    scrubber_emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SCRUBBER_AUDIT_ARCH);
    scrubber_return(p, SECCOMP_RET_KILL_PROCESS);
    scrubber_load(p, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    scrubber_emit(p, BPF_JMP | BPF_JGE | BPF_K, 0, 1, SCRUBBER_X32_BIT);
    scrubber_return(p, SECCOMP_RET_KILL_PROCESS);
#endif
}

static void scrubber_serving_program(scrubber_program *p) {
    const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    const int local[] = {AF_UNIX};
    const int by_descriptor[] = {AT_EMPTY_PATH};
    const int ioctls[] = {FIONBIO, FIOCLEX, FIONREAD, TIOCOUTQ};
    const int nothing[] = {0}, own[] = {(int)getpid()};
    scrubber_begin_program(p);
    scrubber_when(p, SCRUBBER_MANY(scrubber_calls_allowed), SECCOMP_RET_ALLOW);
    scrubber_only(p, __NR_mmap, 2, ~(uint32_t)PROT_EXEC, SCRUBBER_MANY(nothing));
    scrubber_only(p, __NR_mprotect, 2, ~(uint32_t)PROT_EXEC, SCRUBBER_MANY(nothing));
    scrubber_only(p, __NR_ioctl, 1, 0, SCRUBBER_MANY(ioctls));
    scrubber_only(p, __NR_newfstatat, 3, 0, SCRUBBER_MANY(by_descriptor)); /* fstat, in libc's words */
    scrubber_only(p, __NR_socketpair, 0, 0, SCRUBBER_MANY(local)); /* the loop wakes itself, at its end too */
    scrubber_only(p, __NR_tgkill, 0, 0, SCRUBBER_MANY(own)); /* abort() */
    /* socket: both the family and the type */
    scrubber_emit(p, BPF_JMP | BPF_JEQ | BPF_K, 0, 12, __NR_socket);
    scrubber_load(p, scrubber_argument(1));
    scrubber_emit(p, BPF_ALU | BPF_AND | BPF_K, 0, 0, ~(uint32_t)(SOCK_NONBLOCK | SOCK_CLOEXEC));
    scrubber_emit(p, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, SOCK_STREAM);
    scrubber_return(p, SECCOMP_RET_ERRNO | EPERM);
    scrubber_load(p, scrubber_argument(0));
    scrubber_when(p, SCRUBBER_MANY(families), SECCOMP_RET_ALLOW);
    scrubber_return(p, SECCOMP_RET_ERRNO | EPERM);
    scrubber_when(p, SCRUBBER_MANY(scrubber_calls_killed), SECCOMP_RET_KILL_PROCESS);
    scrubber_return(p, SECCOMP_RET_ERRNO | EPERM);
}

/* As on a kernel that has no io_uring: libuv would make a ring for its loop, and what goes through one passes no filter. */
static void scrubber_no_rings_program(scrubber_program *p) {
    const int setup[] = {__NR_io_uring_setup};
    scrubber_begin_program(p);
    scrubber_when(p, SCRUBBER_MANY(setup), SECCOMP_RET_ERRNO | ENOSYS);
    scrubber_return(p, SECCOMP_RET_ALLOW);
}

/* From now on, for every thread of this process. 0, or errno; no_new_privs has to be set. */
static int scrubber_confine(void (*write)(scrubber_program *)) {
    static scrubber_program program;
    write(&program);
    if (program.n > sizeof program.code / sizeof program.code[0]) return E2BIG;
    struct sock_fprog given = {program.n, program.code};
    long got = syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &given);
    return got == 0 ? 0 : got > 0 ? EBUSY : errno; /* above 0: a thread with a filter of its own */
}
#endif
