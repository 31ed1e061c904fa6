/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: VMs that are only told of, and their jobs. Thread: one. */
#include "config.h"

#include "fake-vms.h"

#include <gio/gio.h>
#include <string.h>

struct _HfVm {
  HfVms *vms;
  HfPeer peer;
  char *name, *uuid;
  HfVmImage *image;
  HfVmCounters counters;
};

struct _HfVms {
  GPtrArray *all; /* of HfVm */
  GQueue jobs;    /* of FakeJob */
};

G_DEFINE_QUARK (hf - migrate - error - quark, hf_migrate_error)

void
hf_vm_image_free (HfVmImage *image)
{
  if (!image)
    return;
  g_array_unref (image->held);
  g_free (image);
}

static void
vm_free (gpointer data)
{
  HfVm *vm = data;

  hf_vm_image_free (vm->image);
  g_free (vm->name);
  g_free (vm->uuid);
  g_free (vm);
}

HfVms *
fake_vms_new (void)
{
  HfVms *vms = g_new0 (HfVms, 1);

  vms->all = g_ptr_array_new_with_free_func (vm_free);
  g_queue_init (&vms->jobs);
  return vms;
}

void
fake_vms_free (HfVms *vms)
{
  g_assert_true (g_queue_is_empty (&vms->jobs));
  g_ptr_array_unref (vms->all);
  g_free (vms);
}

HfVm *
fake_vms_add (HfVms *vms, pid_t pid, const char *name, const char *uuid)
{
  HfVm *vm = g_new0 (HfVm, 1);

  vm->vms = vms;
  vm->peer = (HfPeer){ .pid = pid, .start_time = 1000 };
  vm->name = g_strdup (name);
  vm->uuid = g_strdup (uuid);
  vm->image = g_new0 (HfVmImage, 1);
  vm->image->held = g_array_new (FALSE, TRUE, sizeof (HfHeld));
  vm->counters.last_gap_us = -1;
  g_ptr_array_add (vms->all, vm);
  return vm;
}

void
fake_vms_remove (HfVms *vms, HfVm *vm)
{
  g_assert_true (g_ptr_array_remove (vms->all, vm));
}

HfVmImage *
fake_vm_image (HfVm *vm)
{
  return vm->image;
}

HfVmCounters *
fake_vm_counters (HfVm *vm)
{
  return &vm->counters;
}

void
fake_vm_hold (HfVm *vm, guint minor, const char *designator, guint64 key, guint8 type)
{
  HfHeld held = { .block = TRUE, .major = 8, .minor = minor, .identified = designator != NULL };

  held.state.key = key;
  held.state.type = type;
  if (designator) {
    /* An NAA designator of 8 bytes, as VPD page 83h has it. */
    held.identity.n_designators = 1;
    held.identity.designators[0] = (HfDesignator){ .type = 3, .code_set = 1, .length = 8 };
    memcpy (held.identity.designators[0].bytes, designator, 8);
  }
  g_array_append_val (vm->image->held, held);
}

const FakeJob *
fake_vms_get_job (HfVms *vms)
{
  return g_queue_peek_head (&vms->jobs);
}

void
fake_vms_finish (HfVms *vms, const HfVmOutcome *outcome, const GError *error)
{
  FakeJob *job = g_queue_pop_head (&vms->jobs);

  g_assert_nonnull (job);
  job->done (job->vm, outcome, error, job->user_data);
  g_clear_pointer (&job->record, g_bytes_unref);
  g_free (job);
}

/* ---- vms.h ---- */

static void
begin (HfVm *vm, const char *kind, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data)
{
  const FakeJob job = { kind, vm, record ? g_bytes_ref (record) : NULL, on_change, done, user_data };

  g_queue_push_tail (&vm->vms->jobs, g_memdup2 (&job, sizeof job));
}

void
hf_vm_save (HfVm *vm, HfVmDone done, gpointer user_data)
{
  begin (vm, "save", NULL, HF_ON_CHANGE_ADOPT, done, user_data);
}

void
hf_vm_load (HfVm *vm, GBytes *record, HfOnChange on_change, HfVmDone done, gpointer user_data)
{
  begin (vm, "load", record, on_change, done, user_data);
}

void
hf_vm_check (HfVm *vm, GBytes *record, HfVmDone done, gpointer user_data)
{
  begin (vm, "check", record, HF_ON_CHANGE_ADOPT, done, user_data);
}

void
hf_vm_release (HfVm *vm, HfVmDone done, gpointer user_data)
{
  begin (vm, "release", NULL, HF_ON_CHANGE_ADOPT, done, user_data);
}

void
hf_vm_reclaim (HfVm *vm, HfVmDone done, gpointer user_data)
{
  begin (vm, "reclaim", NULL, HF_ON_CHANGE_ADOPT, done, user_data);
}

static gboolean
is_called (const HfVm *vm, const char *name)
{
  g_autofree char *pid = g_strdup_printf ("pid:%d", (int)vm->peer.pid);

  return g_strcmp0 (vm->name, name) == 0 || g_strcmp0 (vm->uuid, name) == 0 || strcmp (pid, name) == 0;
}

HfVm *
hf_vms_find (HfVms *vms, const char *name, GError **error)
{
  HfVm *found = NULL;
  guint n = 0;

  for (guint i = 0; i < vms->all->len; i++)
    if (is_called (vms->all->pdata[i], name)) {
      found = vms->all->pdata[i];
      n++;
    }
  if (n == 1)
    return found;
  g_set_error (error, G_IO_ERROR, n ? G_IO_ERROR_EXISTS : G_IO_ERROR_NOT_FOUND, "%s: %u VMs", name, n);
  return NULL;
}

GPtrArray *
hf_vms_list (HfVms *vms)
{
  GPtrArray *list = g_ptr_array_new ();

  for (guint i = 0; i < vms->all->len; i++)
    g_ptr_array_add (list, vms->all->pdata[i]);
  return list;
}

const HfPeer *
hf_vm_get_peer (HfVm *vm)
{
  return &vm->peer;
}

const char *
hf_vm_get_name (HfVm *vm)
{
  return vm->name;
}

const char *
hf_vm_get_uuid (HfVm *vm)
{
  return vm->uuid;
}

gboolean
hf_vm_is_alive (HfVm *vm)
{
  return TRUE;
}

guint
hf_vm_get_connections (HfVm *vm)
{
  return 2;
}

HfVmImage *
hf_vm_get_image (HfVm *vm)
{
  HfVmImage *image = g_new0 (HfVmImage, 1);

  image->phase = vm->image->phase;
  image->held = g_array_copy (vm->image->held);
  return image;
}

const HfVmCounters *
hf_vm_get_counters (HfVm *vm)
{
  return &vm->counters;
}
