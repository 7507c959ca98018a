#!/bin/sh
# PID 1 of the guest kernel: makes a writable root over the machine's own file system, runs one command in it,
# writes the command's exit status where the host finds it, and powers off.
#
# The kernel command line gives one word: isl_dir=DIR, a folder on the host that holds
#   command.sh   what to run
#   binds        folders to mount read-write from the host, one path a line
# and receives
#   status       the exit status of command.sh; no such file means that the guest died
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
modules=/usr/lib/uml/modules
new=/mnt/root

mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
    case $word in isl_dir=*) dir=${word#isl_dir=} ;; esac
done
echo 0 > /proc/sys/kernel/ctrl-alt-del     # the console's "cad" becomes SIGINT to us instead of a reboot

# The root is the host's, read-only; all writes go to memory.
insmod "$modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o size=90% tmpfs /mnt
mkdir /mnt/upper /mnt/work "$new"
mount -t overlay -o "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work" overlay "$new"

mkdir -p "$new/lib/modules"
mount -t hostfs -o "$modules" none "$new/lib/modules"
mount -t proc proc "$new/proc"
mount -t sysfs sysfs "$new/sys"
mount -t devtmpfs devtmpfs "$new/dev"
mkdir -p "$new/dev/pts" "$new/dev/shm"
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts "$new/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mkdir -p "$new/run/netns" "$new/run/lock"
mount -t tmpfs -o mode=755 cgroup "$new/sys/fs/cgroup"
for controller in cpu memory pids freezer devices; do
    mkdir "$new/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "$new/sys/fs/cgroup/$controller"
done
while read -r path; do
    mkdir -p "$new$path"
    mount -t hostfs -o "$path" none "$new$path"
done < "$dir/binds"

chroot "$new" ip link set lo up
ulimit -n 65536

# A session of its own, with the console as its terminal: Ctrl-C typed there reaches it.
chroot "$new" setsid -c sh "$dir/command.sh" < /dev/tty0 > /dev/tty0 2>&1 &
child=$!
trap 'kill -INT -- "-$child"' INT
while :; do
    wait "$child"
    status=$?
    kill -0 "$child" 2> /dev/null || break
done
echo "$status" > "$new$dir/status"
sync
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
