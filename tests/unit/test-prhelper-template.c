/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Addresses with %p, %n, %u: what they become, and that a VM's name cannot make them another path or another address. */

#include "config.h"

#include "prhelper/template.h"

#include <gio/gio.h>
#include <string.h>

#define UUID "6b2f1c1e-9d7c-4a52-8f0f-0f8c1f6c3a11"

static void
assert_expands (const char *text, const char *expected)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *got = hf_template_expand (text, 4711, "db1", UUID, &error);

  g_assert_no_error (error);
  g_assert_cmpstr (got, ==, expected);
}

static void
test_expand (void)
{
  assert_expands ("", "");
  assert_expands ("unix:path=/run/bus", "unix:path=/run/bus");
  assert_expands ("unix:path=/run/%n/%u-%p.sock", "unix:path=/run/db1/" UUID "-4711.sock");
  assert_expands ("%p%p", "47114711");
  assert_expands ("%%n", "%n");
  assert_expands ("/run/a%%20b", "/run/a%20b");
  assert_expands ("%%%n%%", "%db1%");
}

static void
test_is_template (void)
{
  g_assert_true (hf_template_is_template ("%p"));
  g_assert_true (hf_template_is_template ("unix:path=/run/%n"));
  g_assert_true (hf_template_is_template ("%%%u"));
  g_assert_false (hf_template_is_template (""));
  g_assert_false (hf_template_is_template ("unix:path=/run/bus"));
  g_assert_false (hf_template_is_template ("%%p"));
  g_assert_false (hf_template_is_template ("%"));
  g_assert_false (hf_template_is_template ("%%"));
}

/* A word that is not known is found at the start of the program, and never expanded. */
static void
test_check (void)
{
  const char *const wrong[] = { "%", "/run/%", "%%%", "%x", "/run/%20", "%N", "%\xc3\xa4", "%\xff", "%\xf0", "%n%", "% n" };

  for (guint i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (GError) again = NULL;

    g_assert_false (hf_template_check (wrong[i], &error));
    g_assert_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
    g_assert_nonnull (strstr (error->message, "is not known"));
    g_assert_null (hf_template_expand (wrong[i], 1, "n", "u", &again));
    g_assert_error (again, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
  }
  g_assert_true (hf_template_check ("/run/%p/%n/%u/%%", NULL));
  g_assert_true (hf_template_check ("", NULL));
}

/* The message names the word, so that the line of the file can be mended. */
static void
test_check_says_which (void)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) end = NULL;

  g_assert_false (hf_template_check ("/run/%n/%xyz", &error));
  g_assert_cmpstr (error->message, ==, "/run/%n/%xyz: \"%x\" is not known (only %p, %u, %n and %%)");
  g_assert_false (hf_template_check ("/run/%", &end));
  g_assert_cmpstr (end->message, ==, "/run/%: \"%\" is not known (only %p, %u, %n and %%)");
}

/* Names and uuids are written by whoever started the VM. */
static void
test_refused_values (void)
{
  const char *const wrong[] = { NULL,  "",    ".",   "..",   "a/b",  "../x",      "a,b", "a;b",
                                "a:b", "a=b", "a%b", "a\nb", "\x7f", "a\xc2\x85", "\xff" };

  for (guint i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autoptr (GError) name_error = NULL;
    g_autoptr (GError) uuid_error = NULL;
    g_autofree char *unused = NULL;

    g_assert_null (hf_template_expand ("/run/%n.sock", 1, wrong[i], "u", &name_error));
    g_assert_error (name_error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
    g_assert_nonnull (strstr (name_error->message, "the name of the VM"));
    g_assert_null (hf_template_expand ("/run/%u.sock", 1, "n", wrong[i], &uuid_error));
    g_assert_error (uuid_error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT);
    g_assert_nonnull (strstr (uuid_error->message, "the uuid of the VM"));
    /* What is not used does no harm. */
    unused = hf_template_expand ("/run/%p.sock", 1, wrong[i], wrong[i], NULL);
    g_assert_cmpstr (unused, ==, "/run/1.sock");
  }
}

static void
test_accepted_values (void)
{
  const char *const right[] = { "a", "...", ".a", "a b", "vm-1_x@host", "\xc3\xa4" };

  for (guint i = 0; i < G_N_ELEMENTS (right); i++) {
    g_autofree char *expected = g_strdup_printf ("/run/%s/x", right[i]);
    g_autofree char *got = hf_template_expand ("/run/%n/x", 1, right[i], NULL, NULL);

    g_assert_cmpstr (got, ==, expected);
  }
}

/* A client of a process-id namespace that we cannot see has no id. */
static void
test_no_pid (void)
{
  g_autoptr (GError) error = NULL;

  g_assert_null (hf_template_expand ("/run/%p", 0, "n", "u", &error));
  g_assert_cmpstr (error->message, ==, "/run/%p: the process id of the VM is not known");
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/prhelper/template/expand", test_expand);
  g_test_add_func ("/prhelper/template/is-template", test_is_template);
  g_test_add_func ("/prhelper/template/check", test_check);
  g_test_add_func ("/prhelper/template/check-says-which", test_check_says_which);
  g_test_add_func ("/prhelper/template/refused-values", test_refused_values);
  g_test_add_func ("/prhelper/template/accepted-values", test_accepted_values);
  g_test_add_func ("/prhelper/template/no-pid", test_no_pid);
  return g_test_run ();
}
