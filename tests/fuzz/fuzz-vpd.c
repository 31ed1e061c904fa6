/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* VPD pages 83h and 80h from any LU: a decoded identity that holds its own rules, or an error. */

#include "config.h"

#include "fuzz.h"

#include <holdfast/scsi.h>
#include <stdlib.h>

static void
require (gboolean condition)
{
  if (!condition)
    abort ();
}

static void
check_identity (const HfLuIdentity *identity)
{
  g_autofree char *text = hf_lu_identity_to_string (identity);

  require (identity->n_designators <= HF_DESIGNATORS_MAX);
  for (const char *p = text; *p; p++)
    require (g_ascii_isgraph (*p));
  require (g_utf8_validate (identity->serial, -1, NULL));
  if (identity->n_designators > 0 || *identity->serial)
    require (hf_lu_identity_equal (identity, identity));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t length)
{
  HfLuIdentity identity = { 0 };
  g_autoptr (GError) error = NULL;
  guint16 port = 0;

  if (hf_lu_identity_parse_83 (data, length, &identity, &port, &error))
    require (identity.n_designators > 0 && !error);
  else
    require (identity.n_designators == 0 && error && error->domain == HF_SCSI_ERROR);
  g_clear_error (&error);
  require (hf_lu_identity_parse_80 (data, length, &identity, &error) == (error == NULL));
  check_identity (&identity);
  return 0;
}
