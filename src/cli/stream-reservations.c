/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Owns: reading reservations out of the sections that a walk found. Thread: any.
 *
 * Theory of operation: the walk proved where a section begins and ends; inside it the lengths of dbus-vmstate are tested one by
 * one against that end. The number of entries in front of them is only told, because QEMU writes it before it asks the helpers. A
 * record is known by its own magic, not by the id of who saved it. A subsection is what the walk, by the JSON description, says
 * it is, and its bytes must say the same.
 */
#include "config.h"

#include "cli/stream-reservations.h"

#include <string.h>

#define VMSTATE_ID "dbus-vmstate/dbus-vmstate"
#define VMSTATE_ID_MAX 255u
/* DBUS_VMSTATE_SIZE_LIMIT of QEMU, and of a record. */
#define VMSTATE_DATA_MAX HF_RECORD_SIZE_MAX
#define RECORD_MAGIC "HOLDFAST"

/* type 05, length of the name, name, version; key, type (vmstate_scsi_disk_pr_state). */
#define PR_NAME "scsi-disk/pr"
#define PR_SIZE 27u
#define PR_HEAD_SIZE 18u

static void
entry_free (gpointer data)
{
  HfVmstateEntry *entry = data;

  g_free (entry->id);
  hf_record_free (entry->record);
  g_free (entry->problem);
  g_free (entry);
}

void
hf_vmstate_free (HfVmstate *vmstate)
{
  if (!vmstate)
    return;
  g_ptr_array_unref (vmstate->entries);
  g_free (vmstate->problem);
  g_free (vmstate);
}

gboolean
hf_vmstate_is_section (const HfStreamSection *section)
{
  return section->type == 0x04 && strcmp (section->id, VMSTATE_ID) == 0;
}

/* ---- dbus-vmstate ---- */

typedef struct {
  HfReader *reader;
  guint64 offset, end;
} Cursor;

static gboolean
take (Cursor *cursor, guint64 length, const char *what, guint64 *ret_offset, GError **error)
{
  if (length > cursor->end - cursor->offset) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "%s at offset %" G_GUINT64_FORMAT " has %" G_GUINT64_FORMAT " bytes, and %" G_GUINT64_FORMAT " are left", what,
                 cursor->offset, length, cursor->end - cursor->offset);
    return FALSE;
  }
  *ret_offset = cursor->offset;
  cursor->offset += length;
  return TRUE;
}

static gboolean
take_be32 (Cursor *cursor, const char *what, guint32 *ret, GError **error)
{
  guint64 offset;

  return take (cursor, 4, what, &offset, error) && hf_reader_be32 (cursor->reader, offset, ret, error);
}

/* Its length first, then itself. */
static gboolean
take_counted (Cursor *cursor, const char *what, guint32 max, guint64 *ret_offset, guint32 *ret_length, GError **error)
{
  guint64 at = cursor->offset;

  if (!take_be32 (cursor, what, ret_length, error))
    return FALSE;
  if (*ret_length > max) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "%s at offset %" G_GUINT64_FORMAT " has %u bytes; QEMU takes at most %u", what, at, *ret_length, max);
    return FALSE;
  }
  return take (cursor, *ret_length, what, ret_offset, error);
}

/* The data of entry begin like a record: it is one, or has a problem. */
static gboolean
read_record (HfReader *reader, HfVmstateEntry *entry, GError **error)
{
  char magic[sizeof RECORD_MAGIC - 1];
  g_autofree guint8 *data = NULL;
  g_autoptr (GError) refused = NULL;

  if (entry->length < sizeof magic)
    return TRUE;
  if (!hf_reader_get (reader, entry->offset, magic, sizeof magic, error))
    return FALSE;
  if (memcmp (magic, RECORD_MAGIC, sizeof magic) != 0)
    return TRUE;
  data = g_malloc (entry->length);
  if (!hf_reader_get_large (reader, entry->offset, data, entry->length, error))
    return FALSE;
  entry->record = hf_record_decode (data, entry->length, &refused);
  if (!entry->record)
    entry->problem = g_strdup (refused->message);
  return TRUE;
}

static gboolean
read_entry (HfVmstate *vmstate, Cursor *cursor, GError **error)
{
  HfVmstateEntry *entry = g_new0 (HfVmstateEntry, 1);
  guint64 offset;
  guint32 length;

  g_ptr_array_add (vmstate->entries, entry);
  if (!take_counted (cursor, "an id", VMSTATE_ID_MAX, &offset, &length, error))
    return FALSE;
  entry->id = g_malloc0 (length + 1);
  if (!hf_reader_get (cursor->reader, offset, entry->id, length, error)
      || !take_counted (cursor, "the data of a helper", VMSTATE_DATA_MAX, &entry->offset, &length, error))
    return FALSE;
  entry->length = length;
  return read_record (cursor->reader, entry, error);
}

/* QEMU writes as many bytes as its buffer has (g_memory_output_stream_get_size in backends/dbus-vmstate.c), a power of two that
   was filled with zeros. An id is not empty, so four zeros, or less than four bytes, can be nothing else; they are looked at
   once. *ret: the entries are over. */
static gboolean
take_padding (Cursor *cursor, gboolean *ret, GError **error)
{
  guint8 piece[4096];
  guint32 next = 0;

  *ret = FALSE;
  if (cursor->end - cursor->offset >= sizeof next && !hf_reader_be32 (cursor->reader, cursor->offset, &next, error))
    return FALSE;
  while (next == 0 && cursor->offset < cursor->end) {
    gsize length = (gsize)MIN (cursor->end - cursor->offset, sizeof piece);

    if (!hf_reader_get (cursor->reader, cursor->offset, piece, length, error))
      return FALSE;
    for (gsize i = 0; i < length; i++)
      if (piece[i] != 0) {
        g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                     "offset %" G_GUINT64_FORMAT " begins neither an entry nor the zeros behind the last one",
                     cursor->offset + i);
        return FALSE;
      }
    cursor->offset += length;
  }
  *ret = next == 0;
  return TRUE;
}

static gboolean
read_entries (HfVmstate *vmstate, Cursor *cursor, GError **error)
{
  gboolean over;
  guint32 size;

  if (!take_be32 (cursor, "the size", &size, error))
    return FALSE;
  if (size != cursor->end - cursor->offset) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "it says that it has %u bytes, and the section has %" G_GUINT64_FORMAT, size, cursor->end - cursor->offset);
    return FALSE;
  }
  if (!take_be32 (cursor, "the number of entries", &vmstate->declared, error))
    return FALSE;
  while (cursor->offset < cursor->end) {
    if (!take_padding (cursor, &over, error))
      return FALSE;
    if (over)
      return TRUE;
    if (vmstate->entries->len == MIN (vmstate->declared, HF_VMSTATE_ENTRIES_MAX)) {
      g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED, "%" G_GUINT64_FORMAT " bytes are left behind %u entries",
                   cursor->end - cursor->offset, vmstate->entries->len);
      return FALSE;
    }
    if (!read_entry (vmstate, cursor, error)) {
      g_ptr_array_set_size (vmstate->entries, (int)vmstate->entries->len - 1);
      return FALSE;
    }
  }
  return TRUE;
}

HfVmstate *
hf_vmstate_read (HfReader *reader, const HfStreamSection *section)
{
  HfVmstate *vmstate = g_new0 (HfVmstate, 1);
  Cursor cursor = { reader, section->body_offset, section->body_offset + section->body_length };
  g_autoptr (GError) error = NULL;

  vmstate->entries = g_ptr_array_new_with_free_func (entry_free);
  if (!read_entries (vmstate, &cursor, &error))
    vmstate->problem = g_strdup (error->message);
  return vmstate;
}

/* ---- scsi-disk/pr ---- */

const HfStreamSubsection *
hf_scsi_disk_pr_find (const HfStreamSection *section)
{
  if (section->type != 0x04)
    return NULL;
  for (guint i = 0; section->subsections && i < section->subsections->len; i++) {
    const HfStreamSubsection *subsection = section->subsections->pdata[i];
    if (strcmp (subsection->name, PR_NAME) == 0)
      return subsection;
  }
  return NULL;
}

gboolean
hf_scsi_disk_pr_read (HfReader *reader, const HfStreamSubsection *subsection, HfScsiDiskPr *ret, GError **error)
{
  static const char head[] = "\x05\x0c" PR_NAME "\x00\x00\x00\x01";
  guint8 bytes[PR_SIZE];

  G_STATIC_ASSERT (PR_HEAD_SIZE + sizeof (guint64) + 1 == PR_SIZE && sizeof head - 1 == PR_HEAD_SIZE);
  if (subsection->length != PR_SIZE) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 PR_NAME " at offset %" G_GUINT64_FORMAT " has %" G_GUINT64_FORMAT " bytes, not %u", subsection->offset,
                 subsection->length, PR_SIZE);
    return FALSE;
  }
  if (!hf_reader_get (reader, subsection->offset, bytes, sizeof bytes, error))
    return FALSE;
  if (memcmp (bytes, head, PR_HEAD_SIZE) != 0) {
    g_set_error (error, HF_STREAM_ERROR, HF_STREAM_ERROR_MALFORMED,
                 "what lies at offset %" G_GUINT64_FORMAT " is not version 1 of " PR_NAME, subsection->offset);
    return FALSE;
  }
  ret->offset = subsection->offset;
  ret->key = 0;
  for (guint i = 0; i < sizeof ret->key; i++)
    ret->key = ret->key << 8 | bytes[PR_HEAD_SIZE + i];
  ret->type = bytes[PR_SIZE - 1];
  return TRUE;
}

static char *
describe_reservation (const HfPrObservation *observation)
{
  if (!observation->reserved)
    return g_strdup ("nobody holds a reservation");
  if (hf_pr_type_is_all_registrants (observation->type))
    return g_strdup_printf ("every registrant holds: %s", hf_pr_type_to_string (observation->type));
  return g_strdup_printf ("key 0x%" G_GINT64_MODIFIER "x holds: %s", observation->holder_key,
                          hf_pr_type_to_string (observation->type));
}

char *
hf_scsi_disk_pr_compare (const HfScsiDiskPr *pr, const HfPrObservation *observation)
{
  gboolean holds =
      observation->reserved && (hf_pr_type_is_all_registrants (observation->type) || observation->holder_key == pr->key);

  if (hf_pr_observation_count_key (observation, pr->key) == 0)
    return g_strdup_printf ("key 0x%" G_GINT64_MODIFIER "x is not registered", pr->key);
  if ((pr->type != 0) == holds && (!holds || observation->type == pr->type))
    return NULL;
  return describe_reservation (observation);
}
