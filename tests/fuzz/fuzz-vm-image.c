/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of a VM's image. What is accepted can be written, and what was written is read again as the same.
 */
#include "fuzz.h"

#include "prhelper/store.h"

#include <gio/gio.h>

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (HfVmImage) image = hf_vm_image_decode ((const char *)data, size, &error), again = NULL;
  g_autoptr (GBytes) text = NULL, same = NULL;
  gsize length;

  if ((image == NULL) != (error != NULL))
    g_error ("a result and an error, or neither");
  if (!image) {
    g_assert (g_error_matches (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA));
    return 0;
  }
  g_assert (image->held->len <= HF_STORE_HELD_MAX);
  g_assert ((image->phase == HF_VM_IDLE) == (image->record == NULL));
  text = hf_vm_image_encode (image);
  length = g_bytes_get_size (text);
  again = hf_vm_image_decode (g_bytes_get_data (text, NULL), length, &error);
  if (!again)
    g_error ("what was read and written cannot be read: %s", error->message);
  same = hf_vm_image_encode (again);
  if (!g_bytes_equal (text, same))
    g_error ("two texts of one image");
  return 0;
}
