/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A whole file: where the stream lies in it, both walks, and verify. What is found good is whole, and every walk ends with either
 * a result or an error of its own.
 */
#include "fuzz.h"

#include "stream/verify.h"

static void
check_walks (const HfImage *image)
{
  g_autoptr (HfStreamMap) forward = NULL, tail = NULL;
  g_autoptr (GError) forward_error = NULL, tail_error = NULL;
  gboolean whole;

  whole = hf_walk_forward (image->reader, image->start, image->end, NULL, &forward, &forward_error);
  if (!forward || whole != (forward_error == NULL) || whole != (forward->end != 0))
    g_error ("the walk forward has a result and an error, or neither");
  whole = hf_walk_tail (image->reader, image->start, image->end, &tail, &tail_error);
  if (!tail || whole != (tail_error == NULL) || whole != (tail->end != 0))
    g_error ("the walk from the end has a result and an error, or neither");
  for (guint i = 0; i < forward->sections->len; i++) {
    const HfStreamSection *section = g_ptr_array_index (forward->sections, i);

    if (section->offset < image->start || section->length > image->end - section->offset)
      g_error ("a section outside of the stream");
  }
}

static void
check_verify (HfImage *image)
{
  g_autoptr (HfVerifyReport) report = NULL;
  g_autoptr (GError) error = NULL;

  if (!hf_verify_image (image, HF_VERIFY_DEFAULT, NULL, &report, &error))
    g_error ("bytes in memory could not be verified: %s", error->message);
  if (image->kind == HF_IMAGE_ANY)
    return;
  if (report->n_problems == 0 && (report->forward->end != image->end || report->tail->end != image->end || report->incomplete))
    g_error ("good, but not whole");
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  for (guint any = 0; any < 2; any++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (HfImage) image = hf_image_of_reader (hf_reader_new_memory (data, length), 0, any, &error);

    if ((image == NULL) != (error != NULL))
      g_error ("an image and an error, or neither");
    if (!image)
      continue;
    g_assert (image->start <= image->end && image->end <= length);
    if (image->kind != HF_IMAGE_ANY)
      check_walks (image);
    check_verify (image);
  }
  return 0;
}
