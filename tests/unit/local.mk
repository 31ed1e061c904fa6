# SPDX-License-Identifier: LGPL-2.1-or-later
# One GTest program for each file of src/, linked with the core archive; its source is tests/unit/NAME.c by default.
UNIT_TESTS =
UNIT_TESTS += tests/unit/test-header
UNIT_TESTS += tests/unit/test-pr-plan tests/unit/test-pr-exec
tests_unit_test_pr_exec_SOURCES = tests/unit/test-pr-exec.c tests/fake/scripted-transport.c tests/fake/scripted-transport.h
tests_unit_test_transport_iscsi_SOURCES = tests/unit/test-transport-iscsi.c tests/fake/iscsi-target.c tests/fake/iscsi-target.h
UNIT_TESTS += tests/unit/test-record tests/unit/test-journal
UNIT_TESTS += tests/unit/test-pr-wire tests/unit/test-pr-observation tests/unit/test-pr-state
UNIT_TESTS += tests/unit/test-line-buffer
UNIT_TESTS += tests/unit/test-fail tests/unit/test-worker tests/unit/test-descriptors
UNIT_TESTS += tests/unit/test-json-check
tests_unit_test_json_check_LDADD = libholdfast-core.la $(JSON_LIBS) $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-lu tests/unit/test-lu-identity tests/unit/test-scsi-result tests/unit/test-nexus
UNIT_TESTS += tests/unit/test-nexus-sysfs tests/unit/test-transport-iscsi tests/unit/test-transport-sgio
tests_unit_test_lu_SOURCES = tests/unit/test-lu.c tests/fake/scripted-transport.c tests/fake/scripted-transport.h
UNIT_TESTS += tests/unit/test-qmp
tests_unit_test_qmp_LDADD = libholdfast-qemu.la $(JSON_LIBS) $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-vmstate-bus
private_bus = tests/unit/private-bus.c tests/unit/private-bus.h tests/unit/private-qemu.c tests/unit/private-qemu.h
tests_unit_test_vmstate_bus_SOURCES = tests/unit/test-vmstate-bus.c $(private_bus)
tests_unit_test_vmstate_bus_LDADD = libholdfast-qemu.la $(GLIB_LIBS)

UNIT_TESTS += tests/unit/test-parallel

UNIT_TESTS += tests/unit/test-stream-positioned
stream_contract = tests/unit/stream-contract.c tests/unit/stream-contract.h \
  tests/unit/stream-contract-direct.c tests/unit/stream-contract-private.h
tests_unit_test_stream_positioned_SOURCES = tests/unit/test-stream-positioned.c $(stream_contract)
tests_unit_test_stream_positioned_LDADD = libholdfast-stream.la $(SECCOMP_LIBS) $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-engine
tests_unit_test_stream_engine_SOURCES = tests/unit/test-stream-engine.c $(stream_contract)
tests_unit_test_stream_engine_LDADD = libholdfast-stream.la $(SECCOMP_LIBS) $(GLIB_LIBS)

# src/stream: files
UNIT_TESTS += tests/unit/test-stream-trailer
tests_unit_test_stream_trailer_LDADD = libholdfast-stream.la $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-save-file tests/unit/test-stream-status
tests_unit_test_stream_status_LDADD = libholdfast-stream.la $(JSON_LIBS) $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-block-writer
tests_unit_test_stream_block_writer_LDADD = libholdfast-stream.la $(GLIB_LIBS)
tests_unit_test_stream_save_file_LDADD = libholdfast-stream.la $(GLIB_LIBS)
qemu_stream = tests/fake/qemu-stream.c tests/fake/qemu-stream.h
UNIT_TESTS += tests/unit/test-stream-capture
tests_unit_test_stream_capture_SOURCES = tests/unit/test-stream-capture.c $(qemu_stream)
tests_unit_test_stream_capture_LDADD = libholdfast-stream.la $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-output
tests_unit_test_stream_output_LDADD = libholdfast-stream.la $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-replay
tests_unit_test_stream_replay_SOURCES = tests/unit/test-stream-replay.c $(qemu_stream)
tests_unit_test_stream_replay_LDADD = libholdfast-stream.la $(GLIB_LIBS)

# src/stream: the walks
UNIT_TESTS += tests/unit/test-stream-reader tests/unit/test-stream-image
tests_unit_test_stream_reader_LDADD = libholdfast-stream.la $(GLIB_LIBS)
tests_unit_test_stream_image_LDADD = libholdfast-stream.la $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-walks
tests_unit_test_stream_walks_SOURCES = tests/unit/test-stream-walks.c $(qemu_stream)
tests_unit_test_stream_walks_LDADD = libholdfast-stream.la $(GLIB_LIBS)
tests_unit_test_stream_walks_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=hf_description_number -Wl,--wrap=hf_forward_json_number
UNIT_TESTS += tests/unit/test-stream-verify
tests_unit_test_stream_verify_SOURCES = tests/unit/test-stream-verify.c $(qemu_stream)
tests_unit_test_stream_verify_LDADD = libholdfast-stream.la $(GLIB_LIBS)

classic_stream = tests/unit/classic-stream.c tests/unit/classic-stream.h
UNIT_TESTS += tests/unit/test-stream-feed
tests_unit_test_stream_feed_SOURCES = tests/unit/test-stream-feed.c $(classic_stream)
tests_unit_test_stream_feed_LDADD = libholdfast-stream.la $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-mapped-ram
tests_unit_test_stream_mapped_ram_SOURCES = tests/unit/test-stream-mapped-ram.c $(classic_stream)
tests_unit_test_stream_mapped_ram_LDADD = libholdfast-stream.la $(GLIB_LIBS)
ram_model = tests/unit/ram-model.c tests/unit/ram-model.h $(classic_stream)
UNIT_TESTS += tests/unit/test-stream-mapped-writer
tests_unit_test_stream_mapped_writer_SOURCES = tests/unit/test-stream-mapped-writer.c $(ram_model)
tests_unit_test_stream_mapped_writer_LDADD = libholdfast-stream.la $(GLIB_LIBS)
UNIT_TESTS += tests/unit/test-stream-convert
tests_unit_test_stream_convert_SOURCES = tests/unit/test-stream-convert.c $(ram_model)
tests_unit_test_stream_convert_LDADD = libholdfast-stream.la $(GLIB_LIBS)

# Every public header compiles alone, and the umbrella with it.
tests_unit_test_header_SOURCES = tests/unit/test-header.c

check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
UNIT_TESTS += tests/unit/test-stream-lost-pages
tests_unit_test_stream_lost_pages_LDADD = libholdfast-stream.la $(GLIB_LIBS)
