#!/usr/bin/env bash
# The machines of tests/support/slurm_hosts.py, in Linux namespaces. Each role runs as process 1 of its
# machine, so that all of a machine ends with it; nothing is left that needs to be tidied up.
#   slurm_host.sh controller FOLDER            the network between the hosts, munge and slurmctld
#   slurm_host.sh plug FOLDER NAME ADDRESS     (beside the controller) starts a host and its cable
#   slurm_host.sh host FOLDER NAME ADDRESS     the host itself
# FOLDER holds slurm.conf, and `shared`: the folders beneath /tmp that hosts see, one a line.
set -euo pipefail
role=$1 folder=$2 name=${3:-} address=${4:-}
export SLURM_CONF=$folder/etc/slurm.conf

controller() {
  hostname controller
  ip link set lo up
  ip link add bridge type bridge
  ip address add 10.0.0.1/24 dev bridge
  ip link set bridge up
  munged --force --socket="$folder/munge/socket" --key-file="$folder/munge/key" \
    --log-file="$folder/munge/log" --pid-file="$folder/munge/pid" --seed-file="$folder/munge/seed"
  slurmctld -D &
  reap_forever
}

plug() {
  unshare --net --uts --mount --ipc --pid --fork --kill-child --mount-proc \
    "$0" host "$folder" "$name" "$address" &
  local unshared=$! host
  until host=$(pgrep -P "$unshared"); do
    kill -0 "$unshared"
    sleep 0.02
  done
  ip link delete "cable-$name" 2>/dev/null || true # a host that was switched off
  ip link add "cable-$name" type veth peer name eth0 netns "$host"
  ip link set "cable-$name" master bridge up
  wait "$unshared"
}

host() {
  hostname "$name"
  mount --make-rprivate /
  own_tmp
  mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm
  mount --bind "$folder/etc/hosts" /etc/hosts
  until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
  ip link set lo up
  ip address add "$address/24" dev eth0
  ip link set eth0 up
  ip route add default via 10.0.0.1
  cd /
  slurmd -D -N "$name" &
  reap_forever
}

# A /tmp of the host's own, with the shared folders in their places.
own_tmp() {
  local tmp=$folder/hosts/$name/tmp shared
  mkdir -p "$tmp" "$folder/hosts/$name/spool"
  mount -t tmpfs -o size=4g,mode=1777 tmpfs "$tmp"
  while read -r shared; do
    mkdir -p "$tmp/${shared#/tmp/}"
    mount --rbind "$shared" "$tmp/${shared#/tmp/}"
  done <"$folder/etc/shared"
  mount --rbind "$tmp" /tmp
}

# Process 1 must wait for those that lost their parents; bash does when a child of its own ends.
reap_forever() {
  trap : TERM CHLD
  while :; do
    sleep 3600 &
    wait "$!" || true
  done
}

"$role"
