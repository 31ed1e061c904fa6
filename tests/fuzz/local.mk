# SPDX-License-Identifier: LGPL-2.1-or-later
# What parses bytes of others, under libFuzzer. A target NAME is tests/fuzz/fuzz-NAME.c and the seeds in tests/fuzz/seeds/NAME/. It is
# built in two ways: with --enable-fuzzers (clang) against libFuzzer, run by tests/fuzz/run; else against replay.c, as a test of
# `make check` that runs each seed once, so that what a fuzzer found once stays found.
#
# A new target is three lines:
#   FUZZERS += tests/fuzz/fuzz-NAME
#   tests_fuzz_fuzz_NAME_SOURCES = tests/fuzz/fuzz-NAME.c $(FUZZ_MAIN)
#   tests_fuzz_fuzz_NAME_LDFLAGS = $(FUZZ_LINKFLAGS)
FUZZERS =

FUZZERS += tests/fuzz/fuzz-pr-wire
tests_fuzz_fuzz_pr_wire_SOURCES = tests/fuzz/fuzz-pr-wire.c $(FUZZ_MAIN)
tests_fuzz_fuzz_pr_wire_LDFLAGS = $(FUZZ_LINKFLAGS)

FUZZERS += tests/fuzz/fuzz-record
tests_fuzz_fuzz_record_SOURCES = tests/fuzz/fuzz-record.c $(FUZZ_MAIN)
tests_fuzz_fuzz_record_LDFLAGS = $(FUZZ_LINKFLAGS)

FUZZERS += tests/fuzz/fuzz-vpd
tests_fuzz_fuzz_vpd_SOURCES = tests/fuzz/fuzz-vpd.c $(FUZZ_MAIN)
tests_fuzz_fuzz_vpd_LDFLAGS = $(FUZZ_LINKFLAGS)

FUZZERS += tests/fuzz/fuzz-prhelper
tests_fuzz_fuzz_prhelper_SOURCES = tests/fuzz/fuzz-prhelper.c $(FUZZ_MAIN)
tests_fuzz_fuzz_prhelper_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_prhelper_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-control
tests_fuzz_fuzz_control_SOURCES = tests/fuzz/fuzz-control.c $(FUZZ_MAIN)
tests_fuzz_fuzz_control_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_control_LDADD = libholdfast-prhelper.la $(JSON_LIBS) $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-vm-image
tests_fuzz_fuzz_vm_image_SOURCES = tests/fuzz/fuzz-vm-image.c $(FUZZ_MAIN)
tests_fuzz_fuzz_vm_image_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_vm_image_LDADD = libholdfast-prhelper.la $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-trailer
tests_fuzz_fuzz_trailer_SOURCES = tests/fuzz/fuzz-trailer.c $(FUZZ_MAIN)
tests_fuzz_fuzz_trailer_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_trailer_LDADD = libholdfast-stream.la $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-feed
tests_fuzz_fuzz_feed_SOURCES = tests/fuzz/fuzz-feed.c $(FUZZ_MAIN)
tests_fuzz_fuzz_feed_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_feed_LDADD = libholdfast-stream.la $(GLIB_LIBS)

# What is fuzzed of these lies in a stream that is in order otherwise.
fuzz_stream = tests/fake/qemu-stream.c tests/fake/qemu-stream.h
FUZZERS += tests/fuzz/fuzz-stream-walk
tests_fuzz_fuzz_stream_walk_SOURCES = tests/fuzz/fuzz-stream-walk.c $(FUZZ_MAIN)
tests_fuzz_fuzz_stream_walk_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_stream_walk_LDADD = libholdfast-stream.la $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-description
tests_fuzz_fuzz_description_SOURCES = tests/fuzz/fuzz-description.c $(FUZZ_MAIN) $(fuzz_stream)
tests_fuzz_fuzz_description_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_description_LDADD = libholdfast-stream.la $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-mapped-ram
tests_fuzz_fuzz_mapped_ram_SOURCES = tests/fuzz/fuzz-mapped-ram.c $(FUZZ_MAIN) $(fuzz_stream)
tests_fuzz_fuzz_mapped_ram_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_mapped_ram_LDADD = libholdfast-stream.la $(GLIB_LIBS)

FUZZERS += tests/fuzz/fuzz-reservations
tests_fuzz_fuzz_reservations_SOURCES = tests/fuzz/fuzz-reservations.c $(FUZZ_MAIN)
tests_fuzz_fuzz_reservations_LDFLAGS = $(FUZZ_LINKFLAGS)
tests_fuzz_fuzz_reservations_LDADD = libholdfast-cli.la $(GLIB_LIBS)

if ENABLE_FUZZERS
# All of the tree counts its branches for libFuzzer; only the targets are linked with its main.
AM_CFLAGS += -fsanitize=fuzzer-no-link
FUZZ_MAIN = tests/fuzz/fuzz.h
FUZZ_LINKFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
noinst_PROGRAMS += $(FUZZERS)
else
FUZZ_MAIN = tests/fuzz/fuzz.h tests/fuzz/replay.c
FUZZ_LINKFLAGS = $(AM_LDFLAGS)
check_PROGRAMS += $(FUZZERS)
TESTS += $(FUZZERS)
endif

dist_check_SCRIPTS += tests/fuzz/run
EXTRA_DIST += tests/fuzz/seeds
