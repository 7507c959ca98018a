"""Ways out that we know, as programs: of a container, and of a guest; all of them are in vain."""

from __future__ import annotations

# What a stranger's program could try from inside a container, as root there. Its arguments: a file of the
# machine's that is none of its business, and what it may see in /root. Each line says what was held, or DONE.
BREAK_OUTS = """
import ctypes, os, pathlib, signal, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "network": 0x40000000, "cgroup": 0x2000000}
LINK = sorted(set(os.listdir("/sys/class/net")) - {"lo"})[0]
SECRET, SEEN = sys.argv[1], {*sys.argv[2:], *pathlib.Path(sys.prefix).parts}

def attempt(what, action):
    try:
        done = action()
    except (OSError, subprocess.CalledProcessError) as error:
        print("held", what, error, flush=True)
    else:
        print("held" if isinstance(done, int) and done < 0 else "DONE", what, done, flush=True)

def run(*words):
    subprocess.run(words, check=True, capture_output=True)

def in_child(action):
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if action() in (0, None) else 1)
        except BaseException:
            os._exit(1)
    return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def shown(path):
    return 0 if pathlib.Path(path).exists() and pathlib.Path(path).read_bytes() else -1

for words in (
    ("ip", "link", "set", LINK, "down"), ("ip", "link", "del", LINK), ("ip", "addr", "flush", "dev", "lo"),
    ("ip", "route", "add", "10.99.0.0/16", "dev", LINK), ("ip", "route", "flush", "table", "main"),
    ("tc", "qdisc", "add", "dev", LINK, "root", "netem"), ("tc", "qdisc", "del", "dev", LINK, "root"),
    ("ip", "netns", "add", "x"), ("mount", "-t", "tmpfs", "none", "/mnt"), ("mount", "-t", "proc", "none", "/mnt"),
    ("mount", "-t", "hostfs", "none", "/mnt"), ("mount", "-t", "cgroup", "-o", "cpu", "none", "/mnt"),
    ("mount", "-t", "cgroup2", "none", "/mnt"), ("mount", "-o", "remount,rw", "/sys"),
    ("mount", "-o", "remount,rw,bind", "/proc/sys"), ("umount", "/proc/sys"), ("umount", "-l", "/proc"),
    ("umount", "-l", "/root"), ("umount", "/dev/shm"), ("hostname", "other"), ("mknod", "/tmp/d", "b", "8", "0"),
    ("mknod", "/tmp/mem", "c", "1", "1"), ("nsenter", "-t", "1", "-m", "true"),
    ("unshare", "-U", "-r", "true"), ("unshare", "-Ur", "-n", "ip", "link", "add", "x", "type", "dummy"),
    ("unshare", "-m", "true"), ("unshare", "-C", "true"), ("chroot", "/", "true"),
    ("chrt", "-f", "10", "true"), ("date", "-s", "2000-01-01"), ("sysctl", "-w", "net.ipv4.ip_forward=0"),
    ("sysctl", "-w", "kernel.core_pattern=|/bin/true"), ("sysctl", "-w", "kernel.pid_max=400"), ("dmesg",),
    ("insmod", "/tmp/x.ko"), ("iptables", "-A", "INPUT", "-j", "DROP"),
    ("prlimit", "--nofile=2000000:2000000", "true"), ("su", "-c", "ip link set lo down"),
    ("setpriv", "--bounding-set=+all", "--inh-caps=+all", "--ambient-caps=+all", "true"),
):
    attempt(" ".join(words), lambda: run(*words))
for number in os.listdir("/proc/self/fd"):
    path = "/proc/self/fd/" + number
    if os.path.exists(path) and os.path.isfile(path) and os.path.getsize(path) == 24:
        attempt("stop the run's clock", lambda: os.close(os.open(path, os.O_RDWR)))
attempt("raise priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -5))
for path in (
    "/proc/sysrq-trigger", "/proc/sys/kernel/sysrq", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/tcp_congestion_control",
    "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/class/net/lo/mtu", "/proc/mtrr",
    "/proc/1/mem", "/proc/self/ns_last_pid", "/proc/mconsole", "/proc/exitcode",
):
    def write():
        descriptor = os.open(path, os.O_WRONLY)
        return -1 if os.fstat(descriptor).st_rdev == os.makedev(1, 3) else 0
    attempt(f"write {path}", write)
for path in ("/proc/kcore", "/proc/kallsyms", "/proc/kmsg", "/proc/keys", "/proc/timer_list", "/etc/shadow",
             "/etc/gshadow", SECRET, "/proc/1/environ", "/dev/kmsg", "/dev/mem"):
    attempt(f"read {path}", lambda: shown(path))
for folder in ("/root", "/sys/fs/cgroup", "/sys/kernel/debug", "/run/netns"):
    attempt(f"list {folder}", lambda: 0 if set(os.listdir(folder)) - SEEN else -1)
attempt("never be killed", lambda: pathlib.Path("/proc/self/oom_score_adj").write_text("-1000"))
attempt("a file of PID 1", lambda: open("/proc/1/fd/0").close())
for folder in ("/proc/1/root", "/proc/1/cwd"):
    attempt(f"list {folder}", lambda: os.listdir(folder))
for name, flag in NEW.items():
    attempt(f"unshare {name}", lambda: libc.unshare(flag))
    attempt(f"clone {name}", lambda: libc.syscall(56, flag | 17, 0, 0, 0, 0))
attempt("clone3", lambda: libc.syscall(435, None, 0))

def climb():
    os.makedirs("/tmp/climb", exist_ok=True)
    os.chroot("/tmp/climb")
    os.chdir("/".join([".."] * 30))

def cgroup_of_its_own():
    if libc.unshare(NEW["user"] | NEW["mount"] | NEW["cgroup"]) < 0:
        return -1
    return libc.mount(b"cgroup", b"/mnt", b"cgroup", 0, b"memory")

attempt("climb out of the root folder", lambda: in_child(climb))
attempt("a cgroup of its own", lambda: in_child(cgroup_of_its_own))
for name, number, arguments in (
    ("setns", 308, (0, 0)), ("bpf", 321, (0, None, 0)), ("io_uring", 425, (1, None)), ("keyctl", 250, (0, 0)),
    ("perf", 298, (None, 0, -1, -1, 0)), ("userfaultfd", 323, (0,)), ("open by handle", 304, (-1, None, 0)),
    ("module", 313, (0, b"", 0)), ("kexec", 246, (0, 0, None, 0)), ("reboot", 169, (0xFEE1DEAD, 672274793, 0, 0)),
    ("syslog", 103, (3, ctypes.create_string_buffer(99), 99)), ("ptrace PID 1", 101, (0x4206, 1, 0, 0)),
    ("ioperm", 173, (0, 1, 1)), ("open a tree of mounts", 428, (-100, b"/", 1)), ("fsopen", 430, (b"tmpfs", 0)),
    ("acct", 163, (b"/tmp",)), ("quotactl", 179, (0, None, 0, None)), ("pivot", 155, (b"/", b"/")),
    ("fanotify", 300, (0, 0)), ("settimeofday", 164, (None, struct.pack("ii", 0, 0))), ("vhangup", 153, ()),
):
    attempt(name, lambda: libc.syscall(number, *arguments))
attempt("kill PID 1", lambda: (os.kill(1, signal.SIGKILL), time.sleep(0.1), os.kill(1, 0), -1)[-1])
attempt("machine's socket", lambda: socket.socket(40, socket.SOCK_STREAM).close())
open_now = {f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")}
attempt("descriptors of folders", lambda: [os.readlink(name) for name in open_now if os.path.isdir(name)] or -1)
print("rights", [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd"))])
"""

# What root in a guest could try; its environment says where.
HOSTFS = """
mkdir /mnt/host /mnt/leak && mount -t hostfs none /mnt/host -o / || exit 9
host=/mnt/host
try() { what=$1; shift; if sh -c "$*" > /dev/null 2>&1; then echo "DONE $what"; else echo "held $what"; fi; }
for folder in / /root /etc /usr /tmp /home /var/tmp $PROJECT $PROJECT/isl_emu $SECRET_FOLDER $PYTHON; do
    try "write $folder" "echo x > $host$folder/isl-emu-canary"
done
try "read /etc/shadow" "test -s $host/etc/shadow"
try "read secret" "cat $host$SECRET"
try "list /root" "ls -A $host/root | grep ."
try "list /home" "ls -A $host/home | grep ."
try "setuid program" "cp /bin/true $host$PROJECT/isl_emu/x && chmod 4755 $host$PROJECT/isl_emu/x"
try "mode of a foreign file" "chmod 4755 $host$PROJECT/isl_emu/cli.py"
try "owner of a foreign file" "chown 1:1 $host$PROJECT/isl_emu/cli.py"
try "core_pattern" "test -e $host/proc/sys/kernel/core_pattern"
try "a process of the host" "ls -d $host/proc/[0-9]*"
try "environment of a process" "cat $host/proc/$LAUNCHER/environ"
try "cgroup of the host" "mkdir $host/sys/fs/cgroup/isl-emu-canary"
try "disk" "ls $host/dev | grep -Ev '^(null|shm)$'"
try "device file" "mknod $host$RESULTS/device b 254 0"
try "network device" "ls -d /sys/class/net/*/device"
for number in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    for up in . .. ../../../../../..; do
        mount -t hostfs none /mnt/leak -o /proc/self/fd/$number/$up 2> /dev/null || continue
        try "descriptor $number $up" "test -e /mnt/leak$SECRET"
        umount /mnt/leak
    done
done
echo kept > $RESULTS/kept
"""
