/* The floor: what a container of runc's default configuration costs the kernel.
 *
 * Does the same clone, mounts, devices, masks, change of root, execve and wait as a
 * runtime must, and nothing else: no configuration is read, no state kept, no
 * cgroup made, nothing is checked but that each call succeeds.
 *
 * usage: floor ROOTFS PROGRAM [ARGUMENT…]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRY(call) do { if ((call) < 0) { perror(#call); _exit(125); } } while (0)

static void device(const char *name, int major, int minor)
{
	TRY(mknod(name, S_IFCHR | 0666, makedev(major, minor)));
	TRY(chmod(name, 0666));
}

static void mask(const char *path)
{
	struct stat found;
	if (stat(path, &found) < 0)
		return;
	if (S_ISDIR(found.st_mode))
		TRY(mount("tmpfs", path, "tmpfs", MS_RDONLY, NULL));
	else
		TRY(mount("dev/null", path, NULL, MS_BIND, NULL));
}

static void read_only(const char *path)
{
	if (access(path, F_OK) < 0)
		return;
	TRY(mount(path, path, NULL, MS_BIND | MS_REC, NULL));
	TRY(mount(NULL, path, NULL, MS_BIND | MS_REC | MS_REMOUNT | MS_RDONLY, NULL));
}

static void container(const char *root, char **argv)
{
	const unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
	TRY(setsid());
	TRY(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
	TRY(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
	TRY(chdir(root));
	TRY(sethostname("floor", 5));
	mkdir("proc", 0755); mkdir("dev", 0755); mkdir("sys", 0755);
	TRY(mount("proc", "proc", "proc", 0, NULL));
	TRY(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
	TRY(mkdir("dev/pts", 0755)); TRY(mkdir("dev/shm", 0755)); TRY(mkdir("dev/mqueue", 0755));
	TRY(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		  "newinstance,ptmxmode=0666,mode=0620,gid=5"));
	TRY(mount("shm", "dev/shm", "tmpfs", plain, "mode=1777,size=65536k"));
	TRY(mount("mqueue", "dev/mqueue", "mqueue", plain, NULL));
	TRY(mount("sysfs", "sys", "sysfs", plain | MS_RDONLY, NULL));
	device("dev/null", 1, 3); device("dev/zero", 1, 5); device("dev/full", 1, 7);
	device("dev/random", 1, 8); device("dev/urandom", 1, 9); device("dev/tty", 5, 0);
	TRY(symlink("/proc/self/fd", "dev/fd")); TRY(symlink("/proc/self/fd/0", "dev/stdin"));
	TRY(symlink("/proc/self/fd/1", "dev/stdout")); TRY(symlink("/proc/self/fd/2", "dev/stderr"));
	TRY(symlink("pts/ptmx", "dev/ptmx"));
	read_only("proc/bus"); read_only("proc/fs"); read_only("proc/irq");
	read_only("proc/sys"); read_only("proc/sysrq-trigger");
	mask("proc/acpi"); mask("proc/asound"); mask("proc/kcore"); mask("proc/keys");
	mask("proc/latency_stats"); mask("proc/timer_list"); mask("proc/timer_stats");
	mask("proc/sched_debug"); mask("sys/firmware"); mask("proc/scsi");
	TRY(syscall(SYS_pivot_root, ".", "."));
	TRY(umount2(".", MNT_DETACH));
	TRY(chdir("/"));
	TRY(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	execv(argv[0], argv);
	perror(argv[0]);
	_exit(127);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: floor ROOTFS PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	struct clone_args args;
	memset(&args, 0, sizeof args);
	args.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
		     CLONE_NEWCGROUP;
	args.exit_signal = SIGCHLD;
	long pid = syscall(SYS_clone3, &args, sizeof args);
	TRY(pid);
	if (pid == 0)
		container(argv[1], argv + 2);
	int status;
	TRY(waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
