/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sizes that callers compile in: a change here is a change of the ABI. */
#include <holdfast/holdfast.h>

static void
test_sizes (void)
{
  g_assert_cmpuint (sizeof (HfTransportId), ==, 2 + HF_TRANSPORT_ID_MAX);
  g_assert_cmpuint (sizeof (HfDesignator), ==, 3 + HF_DESIGNATOR_MAX);
  g_assert_cmpuint (HF_PR_TYPE_EXCLUSIVE_ACCESS_ALL_REGISTRANTS, ==, 8);
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/header/sizes", test_sizes);
  return g_test_run ();
}
