/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the process. Thread: main.
 *
 * Theory of operation: "-M none" needs no firmware, no KVM and no memory, and migrates like any other. While it is waited for,
 * the default main context runs: QEMU calls services of the test itself.
 */
#include "config.h"

#include "private-qemu.h"

#include <string.h>
#include <unistd.h>

void
private_qemu_start (Qemu *qemu, const char *const *arguments)
{
  private_qemu_start_with (qemu, arguments, -1);
}

void
private_qemu_start_with (Qemu *qemu, const char *const *arguments, int fd)
{
  const char *const common[] = { "qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-qmp", "stdio" };
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();

  for (guint i = 0; i < G_N_ELEMENTS (common); i++)
    g_ptr_array_add (argv, (gpointer)common[i]);
  for (guint i = 0; arguments[i]; i++)
    g_ptr_array_add (argv, (gpointer)arguments[i]);
  g_ptr_array_add (argv, NULL);
  qemu->process =
      private_bus_spawn ((const char *const *)argv->pdata,
                         G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE | G_SUBPROCESS_FLAGS_STDERR_PIPE, fd);
  qemu->out = g_data_input_stream_new (g_subprocess_get_stdout_pipe (qemu->process));
  g_assert_true (private_qemu_wait (qemu, "\"QMP\""));
  private_qemu_command (qemu, "qmp_capabilities", "{}", "\"return\"");
  private_qemu_command (qemu, "migrate-set-capabilities", "{\"capabilities\":[{\"capability\":\"events\",\"state\":true}]}",
                        "\"return\"");
}

static void
on_line (GObject *source, GAsyncResult *result, gpointer user_data)
{
  *(GAsyncResult **)user_data = g_object_ref (result);
}

gboolean
private_qemu_wait (Qemu *qemu, const char *text)
{
  for (;;) {
    g_autoptr (GAsyncResult) result = NULL;
    g_autofree char *line = NULL;

    g_data_input_stream_read_line_async (qemu->out, G_PRIORITY_DEFAULT, NULL, on_line, &result);
    WAIT_UNTIL (result);
    line = g_data_input_stream_read_line_finish (qemu->out, result, NULL, NULL);
    if (!line || strstr (line, text))
      return line != NULL;
    if (strstr (line, "\"error\""))
      g_error ("QEMU says: %s", line);
  }
}

void
private_qemu_command (Qemu *qemu, const char *command, const char *arguments, const char *text)
{
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"%s\",\"arguments\":%s}\n", command, arguments);

  g_assert_true (g_output_stream_write_all (g_subprocess_get_stdin_pipe (qemu->process), line, strlen (line), NULL, NULL, NULL));
  g_assert_true (private_qemu_wait (qemu, text));
}

pid_t
private_qemu_pid (Qemu *qemu)
{
  return (pid_t)g_ascii_strtoll (g_subprocess_get_identifier (qemu->process), NULL, 10);
}

void
private_qemu_end (Qemu *qemu)
{
  g_subprocess_force_exit (qemu->process);
  g_subprocess_wait (qemu->process, NULL, NULL);
  g_clear_object (&qemu->out);
  g_clear_object (&qemu->process);
}
