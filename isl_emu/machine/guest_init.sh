#!/bin/sh
# PID 1 of the guest kernel: makes a writable root over the machine's own file system, runs one command in it,
# writes the command's exit status where the host finds it, and powers off.
#
# The kernel command line gives isl_dir, a folder on the host, and virtual, which is empty in real time. The folder holds
#   init         this script
#   command.sh   what to run
#   binds        folders of the host to mount, one a line: "rw PATH" or "ro PATH"
#   console      what the command's streams are: "interactive", "terminal" or "pipe"
# and receives
#   started      present once the command can be interrupted by the console's "cad"
#   status       the exit status of command.sh; no such file means that the guest died
#
# Our own output and the kernel's go to /dev/console; the command's go to /dev/tty0 and are not mixed with them.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
modules=/usr/lib/uml/modules
new=/mnt/root

# If even that is not to be had, the end of PID 1 is the end of the kernel.
power_off() {
    sync
    echo o > /proc/sysrq-trigger || exit 1
    while :; do sleep 1; done
}

must() {
    "$@" && return
    echo "isl-emu guest: cannot $*"
    power_off
}

# The root is the host's, read-only; all writes go to memory. A file that nodes may have one of their own of is there.
make_root() {
    for module in "$modules/$(uname -r)"/kernel/fs/overlayfs/overlay.ko*; do
        grep -qw overlay /proc/filesystems || must insmod "$module"
    done
    must mount -t tmpfs -o size=90% tmpfs /mnt
    must mkdir /mnt/upper /mnt/work "$new"
    must mount -t overlay -o "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work" overlay "$new"
    [ -e "$new/etc/resolv.conf" ] || must touch "$new/etc/resolv.conf"
    # a kernel that has everything built in has no modules
    if [ -d "$modules/$(uname -r)" ]; then
        must mkdir -p "$new/lib/modules"
        must mount -t hostfs -o "ro,$modules" none "$new/lib/modules"
    fi
}

mount_kernel_folders() {
    must mount -t proc proc "$new/proc"
    must mount -t sysfs sysfs "$new/sys"
    must mount -t devtmpfs devtmpfs "$new/dev"
    must mkdir -p "$new/dev/pts" "$new/dev/shm" "$new/root"
    must mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts "$new/dev/pts"
    must mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
    must mount -t tmpfs -o mode=755 tmpfs "$new/run"
    must mkdir -p "$new/run/netns" "$new/run/lock" "$new/run/home" "$new/run/written"
    must mount --bind /mnt/upper "$new/run/written"     # what is in memory alone, for live/execute.py to tell of
    must mount -t tmpfs -o mode=755 cgroup "$new/sys/fs/cgroup"
    for controller in cpu cpuacct memory pids freezer devices; do
        must mkdir "$new/sys/fs/cgroup/$controller"
        must mount -t cgroup -o "$controller" cgroup "$new/sys/fs/cgroup/$controller"
    done
}

mount_host_folders() {
    while read -r access path; do
        must mkdir -p "$new$path"
        must mount -t hostfs -o "$access,$path" none "$new$path"
    done < "$isl_dir/binds"
}

# Becomes the command, in a session of its own. A shell starts what is in the background deaf to SIGINT; env undoes it.
become_command() {
    exec env --default-signal=INT,QUIT "$@" sh "$isl_dir/command.sh"
}

start_command() {
    case $(cat "$isl_dir/console") in
        interactive)
            become_command setsid -c < /dev/tty0 > /dev/tty0 2>&1 & ;;
        terminal)
            stty -opost < /dev/tty0      # the host's terminal turns a newline into CR LF
            become_command setsid < /dev/null > /dev/tty0 2>&1 & ;;
        pipe)
            stty -opost < /dev/tty0
            must mkfifo /run/output
            cat /run/output > /dev/tty0 & copier=$!
            become_command setsid < /dev/null > /run/output 2>&1 & ;;
    esac
    child=$!
}

# A signal interrupts `wait`, which returns then before the command has ended, or just as it does: it is asked once more,
# and says 127 if it has told the status before.
await_command() {
    status=127
    while :; do
        interrupted=
        wait "$child"
        found=$?
        [ "$found" = 127 ] || status=$found
        [ -n "$interrupted" ] || return
    done
}

# The copier ends with the last writer; what the command left in the background is not waited for.
drain_output() {
    if [ -n "$copier" ]; then
        { sleep 1; kill "$copier"; } 2> /dev/null &
        wait "$copier"
    fi
    stty opost < /dev/tty0           # returns when the console has taken all output
}

# A setuid program whose owner is unknown behind the wall would take our rights away.
[ -n "$1" ] || exec setpriv --no-new-privs sh "$isl_dir/init" first
if [ "$1" = first ]; then
    must mount -t proc proc /proc
    echo 0 > /proc/sys/kernel/ctrl-alt-del     # "cad" becomes SIGINT to us instead of a reboot
    make_root
    mount_kernel_folders
    mount_host_folders
    # PID 1 shares its root with the kernel's own threads: after this they find modprobe's modules too.
    exec chroot "$new" sh "$isl_dir/init" in-new-root
fi

echo isl-emu > /proc/sys/kernel/hostname
must ip link set lo up
# Programs may choose any way to control congestion that this kernel has; elsewhere that is for root to allow.
congestion=/proc/sys/net/ipv4/tcp_available_congestion_control
[ ! -e "$congestion" ] || cat "$congestion" > /proc/sys/net/ipv4/tcp_allowed_congestion_control
# New networks begin with the settings of interfaces in the one that they are made from, so nodes are told them once.
[ ! -e /proc/sys/net/core/devconf_inherit_init_net ] || echo 3 > /proc/sys/net/core/devconf_inherit_init_net
ulimit -n 65536
# Virtual time begins at 0, and some programs (ping) take a clock that shows less than a second for one not read yet.
if [ -n "$virtual" ]; then sleep 2; fi
start_command
trap 'interrupted=yes; kill -INT "-$child"' INT
: > "$isl_dir/started"
await_command
drain_output
echo "$status" > "$isl_dir/status"
power_off
