/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A QEMU migration stream out of nothing: small, valid to the last byte, and with its structural boundaries known. As QEMU 7.2 to
 * 11 write it to a file: header, CONFIGURATION, START, PARTs and END of ram, SWITCHOVER_START, FULL sections of devices, EOF
 * byte, VMDESCRIPTION that matches them. Classic or mapped-ram.
 *
 * Same options, same bytes. Thread: any.
 */

#include <glib.h>

typedef struct {
  const char *machine;     /* NULL: "pc-q35-10.0" */
  guint page_bits;         /* 0: 12. Other than 12: CONFIGURATION names it */
  guint n_pages;           /* of the first block; 0: 16 */
  guint n_rounds;          /* PART sections; the first sends every page, the others some again, with other bytes; 0: 2 */
  guint32 seed;            /* of all contents */
  gboolean mapped;         /* mapped-ram instead of classic; the rounds become what they end in */
  gboolean no_footers;     /* migration.send-section-footer=off */
  gboolean no_description; /* suppress-vmdesc=on */
  gboolean no_command;     /* no SWITCHOVER_START, as 7.2 */
  gboolean uuid;           /* CONFIGURATION has configuration/uuid */
  gsize offset;            /* so many bytes of 0xee come before the stream; mapped-ram's offsets count them */
  /* A dbus-vmstate section with one helper of this id and these bytes; NULL: none. */
  const char *dbus_id;
  const guint8 *dbus_data;
  gsize dbus_length;
  /* A scsi-disk section with the subsection scsi-disk/pr; key 0: none. */
  guint64 pr_key;
  guint8 pr_type;
} FakeStreamOptions;

typedef struct {
  guint64 offset;   /* in bytes */
  const char *what; /* what ends or begins there; static */
} FakeBoundary;

#define FAKE_N_BLOCKS 3

typedef struct {
  GByteArray *bytes;  /* offset bytes of 0xee, then the stream, to its last byte */
  GArray *boundaries; /* FakeBoundary, ascending; the last one is the end */
  guint64 ram_end;    /* offset behind the footer of RAM END */
  guint64 eof;        /* offset of the EOF byte */
  guint64 first_page; /* offset of the bytes of a page that is not zero */
  const char *ids[FAKE_N_BLOCKS];
  GByteArray *ram[FAKE_N_BLOCKS]; /* what the guest's memory is in the end */
  guint32 page_size;
} FakeStream;

/* options NULL: all default. */
FakeStream *fake_stream_new (const FakeStreamOptions *options);
void fake_stream_free (FakeStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FakeStream, fake_stream_free)
