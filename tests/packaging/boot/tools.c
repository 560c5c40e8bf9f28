/*
 * What the boot test needs inside the virtual machine and BusyBox does not have.
 *
 * usage: tools oldkernel PROGRAM [ARGUMENT]...   runs it as on Linux 2.6.37: what is newer is not there
 *        tools newest                            says (by its status) whether a newer call is answered
 *        tools udpecho PORT                      sends every datagram back to where it came from
 *
 * Built for MIPS, O32, by scripts/boot-test.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The last system call of Linux 2.6.37 on MIPS with the O32 calls, prlimit64; 4339 came with 2.6.39. */
#define LAST_OLD_CALL 4338
/* getrandom, of Linux 3.17: one that every program of today asks for first. */
#define NEWER_CALL 4353

static int fail(const char *what)
{
	perror(what);
	return 125;
}

/* An old kernel says ENOSYS to what it does not know; so does this filter, which a program cannot take off again. */
static int old_kernel(char **command)
{
	struct sock_filter rules[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_OLD_CALL, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof rules / sizeof *rules, rules };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return fail("PR_SET_NO_NEW_PRIVS");
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		return fail("PR_SET_SECCOMP");
	execv(command[0], command);
	return fail(command[0]);
}

static int newest(void)
{
	char byte;

	return syscall(NEWER_CALL, &byte, 1, 1 /* GRND_NONBLOCK */) == 1 || errno != ENOSYS ? 0 : 1;
}

static int udp_echo(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int s = socket(AF_INET, SOCK_DGRAM, 0);

	if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof address) != 0)
		return fail("udpecho");
	for (;;) {
		char data[2048];
		struct sockaddr_in from;
		socklen_t size = sizeof from;
		ssize_t n = recvfrom(s, data, sizeof data, 0, (struct sockaddr *)&from, &size);

		if (n >= 0)
			sendto(s, data, n, 0, (struct sockaddr *)&from, size);
	}
}

int main(int count, char **words)
{
	if (count > 2 && strcmp(words[1], "oldkernel") == 0)
		return old_kernel(words + 2);
	if (count == 2 && strcmp(words[1], "newest") == 0)
		return newest();
	if (count == 3 && strcmp(words[1], "udpecho") == 0)
		return udp_echo(atoi(words[2]));
	fprintf(stderr, "usage: see tests/packaging/boot/tools.c\n");
	return 2;
}
