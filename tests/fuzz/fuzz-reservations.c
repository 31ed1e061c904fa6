/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The body of a dbus-vmstate section, and the 27 bytes of scsi-disk/pr, as anybody may have written them into a stream. */
#include "fuzz.h"

#include "cli/stream-reservations.h"

#include <stdlib.h>

static void
must (int holds)
{
  if (!holds)
    abort ();
}

static void
check_vmstate (HfReader *reader, size_t length)
{
  HfStreamSection section = { .type = 0x04, .id = (char *)"dbus-vmstate/dbus-vmstate", .body_length = length };
  g_autoptr (HfVmstate) vmstate = hf_vmstate_read (reader, &section);

  must (vmstate->entries->len <= HF_VMSTATE_ENTRIES_MAX && vmstate->entries->len <= vmstate->declared);
  for (guint i = 0; i < vmstate->entries->len; i++) {
    const HfVmstateEntry *entry = vmstate->entries->pdata[i];
    must (entry->id && entry->offset <= length && entry->length <= length - entry->offset);
    must (!entry->record || !entry->problem);
  }
}

static void
check_pr (HfReader *reader, size_t length)
{
  HfStreamSubsection subsection = { .name = (char *)"scsi-disk/pr", .length = length };
  g_autoptr (GError) error = NULL;
  HfScsiDiskPr pr;

  must (hf_scsi_disk_pr_read (reader, &subsection, &pr, &error) == (error == NULL));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  g_autoptr (HfReader) reader = hf_reader_new_memory (data, length);

  check_vmstate (reader, length);
  check_pr (reader, length);
  return 0;
}
