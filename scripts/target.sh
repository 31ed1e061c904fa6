# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# A throw-away iSCSI target on loopback: one tgtd of our own with one LU in a file. Sourced by scripts/demo and the suites.
#
# target_start   sets target_url; 0 if the target answers
# target_stop    ends the tgtd that target_start started, and no other; harmless without one
#
# tgtd obeys only root, so these two use sudo where the caller is not root.
export PATH=$PATH:/usr/sbin:/sbin
target_url='' target_pid='' target_dir='' target_control=''
export target_url
target_iqn=iqn.2026-11.org.holdfast:scratch

target_as_root () {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

target_admin () {
  target_as_root tgtadm -C "$target_control" --lld iscsi "$@"
}

# Does something listen on this port of loopback?
target_answers () { # PORT
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

target_start () {
  local port attempt look
  target_dir=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-target-XXXXXX")
  truncate -s 64M "$target_dir/disk"
  for attempt in 1 2 3 4 5; do
    # A port below the kernel's own range, and a control channel of the same number: two instances do not meet in either.
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    ! target_answers "$port" || continue
    target_control=$port
    target_as_root tgtd -f -C "$port" --iscsi "portal=127.0.0.1:$port" >"$target_dir/tgtd.log" 2>&1 &
    target_pid=$!
    # Wait for the event: it answers, or it ended (the port was taken meanwhile).
    for look in {1..200}; do
      kill -0 "$target_pid" 2>/dev/null || break
      if target_answers "$port" && target_admin --op show --mode system >/dev/null 2>&1; then
        target_admin --op new --mode target --tid 1 -T "$target_iqn" &&
          target_admin --op new --mode logicalunit --tid 1 --lun 1 -b "$target_dir/disk" &&
          target_admin --op bind --mode target --tid 1 -I ALL || break
        target_url=iscsi://127.0.0.1:$port/$target_iqn/1
        return 0
      fi
      sleep 0.05
    done
    target_stop_daemon
  done
  echo "target: tgtd did not start (attempt $attempt, $look looks):" >&2
  cat "$target_dir/tgtd.log" >&2
  return 1
}

# tgtd ignores SIGTERM while it has a target, so the target goes first.
target_stop_daemon () {
  [ -n "$target_pid" ] || return 0
  target_admin --op delete --force --mode target --tid 1 >/dev/null 2>&1
  target_admin --op delete --mode system >/dev/null 2>&1 || target_as_root kill -KILL "$target_pid" 2>/dev/null
  wait "$target_pid" 2>/dev/null
  target_pid='' target_url=''
}

target_stop () {
  target_stop_daemon
  [ -z "$target_dir" ] || rm -rf "$target_dir"
  target_dir=''
}
