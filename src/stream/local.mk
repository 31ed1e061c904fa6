# SPDX-License-Identifier: LGPL-2.1-or-later
# The positioned calls are in libholdfast; the rest is an archive for the programs, because it needs liburing, xxHash and JSON.
libholdfast_core_la_SOURCES += src/stream/positioned.c src/stream/transfer.c src/stream/transfer.h src/stream/fault.c src/stream/fault.h

noinst_LTLIBRARIES += libholdfast-stream.la
libholdfast_stream_la_SOURCES = src/stream/stream-error.c src/stream/stream-error.h src/stream/stream-job.c
libholdfast_stream_la_LIBADD = libholdfast-core.la $(JSON_LIBS) $(URING_LIBS) $(XXHASH_LIBS) $(GLIB_LIBS)

# engine and positioned I/O
libholdfast_stream_la_SOURCES += src/stream/engine.c src/stream/engine.h src/stream/engine-private.h
libholdfast_stream_la_SOURCES += src/stream/engine-ring.c src/stream/engine-threads.c

# files
libholdfast_stream_la_SOURCES += src/stream/save-file.h src/stream/status.h src/stream/trailer.h src/stream/block-writer.h
libholdfast_stream_la_SOURCES += src/stream/capture.h
libholdfast_stream_la_SOURCES += src/stream/trailer.c src/stream/save-file.c src/stream/status.c src/stream/block-writer.c
libholdfast_stream_la_SOURCES += src/stream/capture.c src/stream/input.c src/stream/input.h
libholdfast_stream_la_SOURCES += src/stream/replay.c src/stream/output.c src/stream/output.h
libholdfast_stream_la_SOURCES += src/stream/direct-io.c src/stream/direct-io.h

# the walks
libholdfast_stream_la_SOURCES += src/stream/reader.h src/stream/stream-map.h src/stream/image.h src/stream/verify.h
libholdfast_stream_la_SOURCES += src/stream/reader.c src/stream/image.c
libholdfast_stream_la_SOURCES += src/stream/stream-map.c src/stream/description.c src/stream/description.h
libholdfast_stream_la_SOURCES += src/stream/walk-tail.c src/stream/walk-forward.c src/stream/forward-ram.c
libholdfast_stream_la_SOURCES += src/stream/forward-devices.c src/stream/forward-json.c src/stream/forward.h src/stream/verify.c
libholdfast_stream_la_SOURCES += src/stream/verify-layout.c src/stream/verify-sums.c src/stream/verify-parts.h
libholdfast_stream_la_SOURCES += src/stream/lost-pages.c src/stream/lost-pages.h

# RAM on the way
libholdfast_stream_la_SOURCES += src/stream/feed.h src/stream/mapped-ram.h src/stream/mapped-writer.h src/stream/convert.h
libholdfast_stream_la_SOURCES += src/stream/feed.c src/stream/mapped-ram.c src/stream/mapped-writer.c
libholdfast_stream_la_SOURCES += src/stream/page-set.c src/stream/page-set.h src/stream/run-writer.c src/stream/run-writer.h
libholdfast_stream_la_SOURCES += src/stream/convert.c
