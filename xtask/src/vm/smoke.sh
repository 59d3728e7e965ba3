#!/bin/busybox sh
# The first process of a virtual machine in which the static binary is asked a few questions.
export PATH=/usr/local/bin:/usr/bin HOME=/root TERM=dumb
busybox mkdir -p /proc /sys /dev /tmp /run
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox mount -t tmpfs -o mode=1777 tmpfs /tmp
(busybox sleep @LIMIT@; busybox poweroff -f) >/dev/null 2>&1 &
busybox ip link set lo up
# What one of them needs may come after it in the order of names.
for round in 1 2; do
    for module in /modules/*; do
        [ -e "$module" ] || continue
        case "$module" in
        *.xz) busybox xzcat "$module" >/tmp/m.ko ;;
        *) busybox cp "$module" /tmp/m.ko ;;
        esac
        busybox insmod /tmp/m.ko 2>/dev/null
    done
done

echo "%% begin smoke"
passed=0 failed=0
# is NAME WANTED FILE: whether the file has the text.
is() {
    if busybox grep -q -e "$2" "$3"; then
        echo "test $1 ... ok"
        passed=$((passed + 1))
    else
        busybox sed 's/^/    /' "$3"
        echo "test $1 ... FAILED"
        failed=$((failed + 1))
    fi
}
busybox uname -srm
busybox nc -l -p 8080 >/dev/null </dev/zero &
listener=$!
for try in 1 2 3 4 5 6 7 8 9 10; do
    busybox grep -qi ':1F90 ' /proc/net/tcp /proc/net/tcp6 && break
    busybox sleep 1
done

whereis-port --version >/tmp/out 2>&1
is version '^whereis-port ' /tmp/out
whereis-port --plain 8080 >/tmp/out 2>&1
echo "status $?" >>/tmp/out
is question "pid $listener" /tmp/out
is question_user 'user root' /tmp/out
is question_status '^status 0$' /tmp/out
whereis-port --plain 9 >/tmp/out 2>&1
echo "status $?" >>/tmp/out
is nothing '^status [13]$' /tmp/out
whereis-port list --plain >/tmp/out 2>&1
is list '8080' /tmp/out
whereis-port --json 8080 >/tmp/out 2>&1
is json "\"pid\": *$listener" /tmp/out
whereis-port doctor >/tmp/doctor 2>&1
is doctor 'kernel' /tmp/doctor
busybox sed 's/^/    doctor: /' /tmp/doctor
busybox mkdir -p /sys/kernel/tracing
busybox mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
whereis-port trace >/tmp/trace 2>&1 &
trace=$!
# It tells of what is there when it is ready; a listener that comes then is an event.
for try in 1 2 3 4 5 6 7 8 9 10; do
    busybox timeout 2 busybox nc -l -p 8081 >/dev/null </dev/zero 2>&1
    busybox grep -q 8081 /tmp/trace && break
done
is trace '8081' /tmp/trace
busybox kill "$trace" "$listener" 2>/dev/null
word=ok
[ "$failed" = 0 ] || word=FAILED
echo "test result: $word. $passed passed; $failed failed; 0 ignored; 0 measured; 0 filtered out"
echo "%% end smoke $failed"
echo "%% done"
busybox poweroff -f
