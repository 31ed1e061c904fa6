# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# What the suites of this folder share: TAP, build trees, the list of the project's files. Sourced; a suite ends with `finish`.
set -u
top=${HOLDFAST_SRCDIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
check_dir=${CHECK_DIR:-$top/build/check}
jobs=$(nproc)
# Only warnings and errors are printed.
quiet=(-s V=1 LIBTOOLFLAGS=--silent)
cd "$top" || exit 1
mkdir -p "$check_dir"

test_count=0 tests_failed=0

# One test: it passes if the command ends with 0. What the command printed is shown if it does not.
try () { # DESCRIPTION COMMAND...
  local description=$1 output status
  shift
  test_count=$((test_count + 1))
  output=$("$@" 2>&1 </dev/null)
  status=$?
  if [ "$status" -eq 0 ]; then
    echo "ok $test_count - $description"
    return 0
  fi
  tests_failed=$((tests_failed + 1))
  echo "not ok $test_count - $description"
  { [ -z "$output" ] || printf '%s\n' "$output"; } | sed 's/^/# /'
  echo "# exit status $status of: $*"
  return 1
}

# The same for a check that must find something wrong.
refused () {
  ! "$@"
}

# A check that prints what is wrong and nothing else.
try_silent () { # DESCRIPTION COMMAND...
  local description=$1
  shift
  try "$description" silent "$@"
}
silent () {
  local output
  output=$("$@" 2>&1)
  printf '%s' "$output"
  [ -z "$output" ]
}

skip () { # DESCRIPTION REASON
  test_count=$((test_count + 1))
  echo "ok $test_count - $1 # SKIP $2"
}

finish () {
  echo "1..$test_count"
  [ "$tests_failed" -eq 0 ]
  exit
}

# The build tree NAME: configured with the arguments, and made. Suites that run side by side share trees; the first one builds.
tree_dir () { # NAME
  echo "$top/build/check-$1"
}
make_tree () { # NAME CONFIGURE-ARGUMENT...
  local dir
  dir=$(tree_dir "$1")
  shift
  (
    mkdir -p "$dir"
    exec 9>"$dir.lock"
    flock 9
    if [ "$(cat "$dir/.arguments" 2>/dev/null)" != "$*" ]; then
      find "$dir" -mindepth 1 -delete
    fi
    cd "$dir" || exit 1
    if [ ! -e config.status ]; then
      "$top/configure" --quiet "$@" || exit 1
      printf '%s' "$*" >.arguments
    fi
    make "${quiet[@]}" -j"$jobs" all && make "${quiet[@]}" -j"$jobs" check TESTS= >/dev/null
  )
}

# The trees, one definition each.
tree_gcc_sanitizers () {
  make_tree gcc-sanitizers CC=gcc --enable-werror --enable-sanitizers
}
tree_clang () {
  make_tree clang CC=clang --enable-werror
}
tree_plain () {
  make_tree plain CC=gcc --enable-werror --prefix="$(tree_dir plain)/_inst"
}
tree_tsan () {
  make_tree tsan CC=gcc --enable-werror --enable-sanitizers=thread
}
tree_fuzz () {
  make_tree fuzz CC=clang --enable-werror --enable-sanitizers --enable-fuzzers
}

# What `make check` runs, without the suites on real targets, which are suites of their own here.
unit_tests () { # TREE-NAME
  local test tests=()
  for test in $(make -s -C "$(tree_dir "$1")" --eval='print-tests: ; @echo $(TESTS)' print-tests); do
    case $test in
      tests/iscsi/* | tests/lab/*) ;;
      *) tests+=("$test") ;;
    esac
  done
  echo "${tests[*]}"
}

# `make check` in a tree, told as TAP: every test program's own lines, and a failure for one that crashed or broke its plan.
make_check () { # TREE-NAME
  local dir stamp trs log name status
  dir=$(tree_dir "$1")
  stamp=$check_dir/.$1-started
  touch "$stamp"
  make -C "$dir" -s -k -j"$jobs" check TESTS="$(unit_tests "$1")" >"$check_dir/$1-make.log" 2>&1
  status=$?
  while read -r trs; do
    log=${trs%.trs}.log
    name=$(basename "${trs%.trs}")
    sed -nE "s,^((not )?ok) *[0-9]* *-? *,\\1 - $name ,p" "$log"
    if grep -q '^:test-result: ERROR' "$trs" || ! grep -q '^:test-result:' "$trs"; then
      echo "not ok - $name ended as it should"
      sed 's/^/# /' "$log"
    elif ! grep -qE '^(not )?ok ' "$log"; then
      # A test program that does not speak TAP is one test.
      if grep -q '^:test-result: PASS' "$trs"; then echo "ok - $name"; else echo "not ok - $name"; fi
      grep -q '^:test-result: PASS' "$trs" || sed 's/^/# /' "$log"
    elif grep -q '^:test-result: FAIL' "$trs"; then
      sed 's/^/# /' "$log"
    fi
  done < <(find "$dir" -name '*.trs' -newer "$stamp" | sort)
  if [ "$status" -ne 0 ]; then
    grep -E '(error|warning|\*\*\*)' "$check_dir/$1-make.log" | head -40 | sed 's/^/# /'
  fi
  return "$status"
}

# The project's files: what git knows, or, in an unpacked release, everything that was not built.
files () { # [PATTERN...]
  if [ -e .git ] && command -v git >/dev/null; then
    git -c safe.directory='*' ls-files -- "$@"
  else
    local pattern arguments=()
    for pattern in "$@"; do
      arguments+=(${arguments:+-o} -path "./$pattern")
    done
    find . \( -name 'build*' -o -name autom4te.cache -o -name m4 \) -prune -o -type f \( "${arguments[@]:--true}" \) -print | sed 's,^\./,,' | sort
  fi
}

# Those of them that start with #! of a shell, and the bash completion.
shell_scripts () {
  local file
  files | while read -r file; do
    [ -f "$file" ] || continue
    case $file in
      *.c | *.h | *.md | *.1) continue ;;
    esac
    head -c 64 "$file" | head -n 1 | grep -aqE '^#!.*[/ ](ba)?sh( |$)' && echo "$file"
  done
}
