#!/bin/busybox sh
# The first process of a virtual machine for tests. xtask fills in what to run.
export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root TERM=dumb
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mkdir -p /dev/pts /dev/shm
busybox mount -t devpts devpts /dev/pts
busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
busybox mount -t tmpfs -o mode=755 tmpfs /run
busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox mkdir -p /run/netns
busybox hostname vm
ip link set lo up
# By default a tenth of a small memory, which one of the tests would use up for all.
echo 2000000 > /proc/sys/fs/file-max
# Should the tests hang and nobody be left to end this machine.
(busybox sleep @LIMIT@; busybox poweroff -f) >/dev/null 2>&1 &

export WHEREIS_PORT_REQUIRE_LAB=1 WHEREIS_PORT_VM=1 WHEREIS_PORT_BIN=/usr/local/bin/whereis-port
cd /tmp
# run SUITE PROGRAM FILTER NAME...: the tests whose names have the filter and one of the names.
run() {
    echo "%% begin $1"
    suite=$1 program=$2 filter=$3
    shift 3
    # The tool loads no modules; until here it ran without those of conntrack.
    [ "$suite" = live ] && modprobe -a nf_conntrack nf_conntrack_netlink
    # Without it, pods on one bridge don't reach each other through a service.
    [ "$suite" = paths ] && modprobe br_netfilter
    # There is no Docker here, and what runs as long as time allows gets nowhere.
    tests=$("$program" --list --format terse | sed -n 's/: test$//p' |
        grep -F -e "$filter" | grep $(printf -- '-e %s ' "$@") |
        grep -v -e docker -e fuzz -e what_does_not_fit)
    # A name that no test has: without any, all of them would run.
    "$program" --test-threads 2 --exact ${tests:-none} 2>&1
    echo "%% end $suite $?"
}
@RUN@
echo "%% done"
busybox poweroff -f
