#!/usr/bin/env bash
# Builds Kubernetes 1.20.2 from Debian's source package into the directory $1, working in $2:
# the node's and the control plane's programs, kubectl, and the images that pods run.
# As root, for it installs packages. About six minutes on two cores.
set -euo pipefail
out=$1 work=$2
version=1.20.2
names="kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl"

# Sources come from lists of their own, so that the machine's are not changed.
lists=$work/apt
mkdir -p "$out" "$lists/sources.list.d" "$work/src"
for file in /etc/apt/sources.list.d/*.sources; do
    [ -e "$file" ] && sed 's/^Types: .*/Types: deb deb-src/' "$file" >"$lists/sources.list.d/$(basename "$file")"
done
if [ -e /etc/apt/sources.list ]; then
    sed -n 's/^deb \(.*\)/deb \1\ndeb-src \1/p' /etc/apt/sources.list >"$lists/sources.list"
else
    : >"$lists/sources.list"
fi
apt() {
    apt-get -o Dir::Etc::sourcelist="$lists/sources.list" -o Dir::Etc::sourceparts="$lists/sources.list.d" "$@"
}
apt update
DEBIAN_FRONTEND=noninteractive apt install --yes --no-install-recommends \
    golang-1.19-go gcc libc6-dev dpkg-dev busybox-static golang-github-modern-go-reflect2-dev

# The source package; its tree has all that it needs in vendor/.
cd "$work/src"
[ -d kubernetes-$version ] || {
    apt source --download-only kubernetes
    dpkg-source --no-check -x kubernetes_*"$version"-*.dsc kubernetes-$version
}
tree=$work/src/kubernetes-$version
export GOPATH=$work/go GOCACHE=$work/gocache GO111MODULE=off CGO_ENABLED=0 GOFLAGS=-trimpath
# Memory is cheaper here than the compiler's collecting of its garbage.
export GOGC=400
export PATH=/usr/lib/go-1.19/bin:$PATH
mkdir -p "$GOPATH/src/k8s.io"
ln -sfn "$tree" "$GOPATH/src/k8s.io/kubernetes"
cd "$GOPATH/src/k8s.io/kubernetes"

# The vendored reflect2 is from before Go 1.18, whose runtime has changed.
reflect2=vendor/github.com/modern-go/reflect2
rm -f "$reflect2"/*.go "$reflect2"/*.s
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.go /usr/share/gocode/src/github.com/modern-go/reflect2/*.s "$reflect2"/
rm -f "$reflect2"/*_test.go

# Generated code that the source package leaves out.
openapi=pkg/generated/openapi/zz_generated.openapi.go
if [ ! -e $openapi ]; then
    go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    packages=$(grep -rl --include=*.go '+k8s:openapi-gen=' pkg staging/src vendor/k8s.io 2>/dev/null |
        xargs -n1 dirname | sed -e 's,^staging/src/,,' -e 's,^vendor/,,' -e 's,^pkg/,k8s.io/kubernetes/pkg/,' | sort -u)
    inputs=
    for package in $packages; do
        case $package in *testdata* | *generated* | k8s.io/code-generator* | k8s.io/gengo*) continue ;; esac
        case $package in
        k8s.io/kubernetes/*) inputs=$inputs,$package ;;
        *) inputs=$inputs,k8s.io/kubernetes/vendor/$package ;;
        esac
    done
    "$work/openapi-gen" -O zz_generated.openapi -h hack/boilerplate/boilerplate.generatego.txt \
        -p k8s.io/kubernetes/pkg/generated/openapi -i "${inputs#,}" -r "$work/violations" --output-base "$GOPATH/src"
fi

flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    at=k8s.io/kubernetes/vendor/$package
    flags="$flags -X $at.gitVersion=v$version -X $at.gitMajor=1 -X $at.gitMinor=20"
done
# All by one command: while one is linked, another is compiled.
packages=
for name in $names; do
    packages="$packages ./cmd/$name"
done
mkdir -p "$work/bin"
# shellcheck disable=SC2086 # Names without spaces, one argument each.
go build -tags providerless,dockerless -ldflags "$flags" -o "$work/bin/" $packages
for name in $names; do
    mv "$work/bin/$name" "$out/$name"
done

# What keeps the namespaces of a pod, as an image without a registry.
gcc -Os -static -o "$out/pause" build/pause/linux/pause.c
