/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: the table of the VMs and each VM's life. Thread: main.
 *
 * Theory of operation: a VM is a process, named by process id and start time. It is here from its first connection on. Its end is
 * the end of the process, which a pidfd tells; QEMU may close a connection and open another one, so a connection's end is none.
 * Where there is no pidfd, the process is looked for while it has no connection; where it cannot be seen at all (it is in a
 * process-id namespace of its own), the end of the last connection is its end. A VM whose process has ended stays as long as
 * something is left to do for it: an abort, a release.
 *
 * References are held by the table, by connections, commands and operations; all on one thread.
 */
#include "config.h"

#include "prhelper/vm-private.h"

#include "prhelper/log.h"

#include <gio/gio.h>
#include <glib-unix.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS 250
/* VMs of one user that have no connection and hold nothing: each has a descriptor. */
#define ALONE_MAX 64

static guint
peer_hash (gconstpointer data)
{
  const HfPeer *peer = data;

  return (guint)peer->pid * 31 + (guint)peer->start_time;
}

static gboolean
peer_equal (gconstpointer a, gconstpointer b)
{
  const HfPeer *x = a, *y = b;

  return x->pid == y->pid && x->start_time == y->start_time;
}

/* ---- life ---- */

HfVm *
hf_vm_ref (HfVm *vm)
{
  vm->references++;
  return vm;
}

void
hf_vm_unref (HfVm *vm)
{
  if (--vm->references > 0)
    return;
  g_clear_handle_id (&vm->pidfd_source, g_source_remove);
  g_clear_handle_id (&vm->retry_source, g_source_remove);
  if (vm->pidfd >= 0)
    close (vm->pidfd);
  hf_free_elsewhere (vm->nodes);
  hf_free_elsewhere (vm->kept);
  g_clear_pointer (&vm->record, g_bytes_unref);
  hf_load_free (vm->load);
  g_free (vm->name);
  g_free (vm->uuid);
  g_free (vm->label);
  g_free (vm);
}

/* A process that no pidfd watches, for the kernel or a filter around us has none: is it still there? */
static gboolean
is_there (const HfVm *vm)
{
  return vm->pidfd >= 0 || (vm->peer.start_time && hf_peer_read_start_time (vm->peer.pid) == vm->peer.start_time);
}

static void
end (HfVm *vm)
{
  if (!vm->alive)
    return;
  vm->alive = FALSE;
  hf_vm_tell (vm, "end", NULL, "the process has ended", FALSE);
  if (vm->vms->lifecycle)
    vm->vms->lifecycle (vm, FALSE, vm->vms->lifecycle_data);
  hf_vm_ended (vm);
}

static gboolean
on_process_end (gint fd, GIOCondition condition, gpointer user_data)
{
  HfVm *vm = hf_vm_ref (user_data);

  vm->pidfd_source = 0;
  end (vm);
  hf_vm_check_end (vm);
  hf_vm_unref (vm);
  return G_SOURCE_REMOVE;
}

static void
set_names (HfVm *vm, const char *name, const char *uuid)
{
  vm->name = g_strdup (name);
  vm->uuid = g_strdup (uuid);
  vm->label = name ? g_strdup (name) : g_strdup_printf ("pid:%d", (int)vm->peer.pid);
}

/* pidfd: -1, or of the process; taken over. */
static HfVm *
vm_new (HfVms *vms, const HfPeer *peer, int pidfd, const char *name, const char *uuid)
{
  HfVm *vm = g_new0 (HfVm, 1);

  vm->references = 1;
  vm->vms = vms;
  vm->peer = *peer;
  vm->pidfd = pidfd;
  vm->alive = TRUE;
  vm->guest_time = -1;
  vm->counters.last_gap_us = -1;
  vm->nodes = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_vm_node_free);
  g_queue_init (&vm->commands);
  g_queue_init (&vm->waiting);
  g_queue_init (&vm->operations);
  set_names (vm, name, uuid);
  if (pidfd >= 0)
    vm->pidfd_source = g_unix_fd_add (pidfd, G_IO_IN, on_process_end, vm);
  g_hash_table_insert (vms->by_process, &vm->peer, vm);
  return vm;
}

gboolean
hf_vm_look_for_end (HfVm *vm)
{
  if (vm->pidfd >= 0 || vm->connections || !vm->alive)
    return FALSE;
  if (is_there (vm))
    return TRUE;
  hf_vm_ref (vm);
  end (vm);
  hf_vm_check_end (vm);
  hf_vm_unref (vm);
  return FALSE;
}

void
hf_vm_check_end (HfVm *vm)
{
  if (vm->alive || vm->connections || vm->phase != HF_VM_IDLE || !g_queue_is_empty (&vm->operations) || vm->retry_source
      || g_hash_table_lookup (vm->vms->by_process, &vm->peer) != vm)
    return;
  if (vm->vms->store && !vm->given_up)
    hf_store_remove (vm->vms->store, &vm->peer);
  g_hash_table_remove (vm->vms->by_process, &vm->peer);
}

/* ---- clients ---- */

HfVm *
hf_vms_connect (HfVms *vms, const HfPeer *peer)
{
  HfVm *vm = g_hash_table_lookup (vms->by_process, peer);
  g_autofree char *name = NULL, *uuid = NULL;
  g_autoptr (GError) error = NULL;
  gboolean is_new = vm == NULL;

  if (is_new) {
    int pidfd = hf_process_open (peer, &error);

    hf_process_get_names (peer, &name, &uuid);
    vm = vm_new (vms, peer, pidfd, name, uuid);
    vm->incomplete = peer->start_time != 0 && (gint64)peer->start_time < vms->started;
  }
  vm->connections++;
  hf_vm_ref (vm);
  if (is_new) {
    /* A helper that is started again does not refuse the Save of a client that had nothing to say since. */
    if (vms->rules.migrates)
      hf_vm_store (vm, FALSE, NULL, NULL);
    hf_vm_tell (vm, "connect", NULL, "a new VM", FALSE);
    if (vms->lifecycle)
      vms->lifecycle (vm, TRUE, vms->lifecycle_data);
  }
  return vm;
}

static gboolean
is_alone (HfVm *vm, uid_t uid)
{
  return vm->alive && vm->peer.uid == uid && vm->connections == 0 && vm->phase == HF_VM_IDLE && vm->nodes->len == 0
         && g_queue_is_empty (&vm->operations) && g_queue_is_empty (&vm->commands);
}

static void
forget (HfVm *vm)
{
  HfVms *vms = vm->vms;

  hf_vm_ref (vm);
  vm->alive = FALSE;
  if (vms->lifecycle)
    vms->lifecycle (vm, FALSE, vms->lifecycle_data);
  hf_vm_check_end (vm);
  hf_vm_unref (vm);
}

/* Whoever comes and goes with process after process has so many remembered, and not one more; those that were quiet before stay.
 */
static void
limit_alone (HfVms *vms, uid_t uid)
{
  HfVm *last = NULL;
  guint n = 0;
  GHashTableIter iter;
  gpointer value;

  g_hash_table_iter_init (&iter, vms->by_process);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    HfVm *vm = value;

    if (!is_alone (vm, uid))
      continue;
    n++;
    if (!last || vm->alone_since > last->alone_since)
      last = vm;
  }
  if (n > ALONE_MAX)
    forget (last);
}

void
hf_vms_disconnect (HfVms *vms, HfVm *vm)
{
  vm->connections--;
  vm->alone_since = g_get_monotonic_time ();
  if (!vms->freed) {
    if (hf_vm_look_for_end (vm))
      hf_vms_start_ticking (vms);
    hf_vm_check_end (vm);
    if (vm->connections == 0)
      limit_alone (vms, vm->peer.uid);
  }
  hf_vm_unref (vm);
}

/* ---- the table ---- */

/* proc(5) uptime, in clock ticks, as start times are. */
static gint64
read_uptime_ticks (void)
{
  g_autofree char *text = NULL;

  if (!g_file_get_contents ("/proc/uptime", &text, NULL, NULL))
    return 0;
  return (gint64)(g_ascii_strtod (text, NULL) * (double)sysconf (_SC_CLK_TCK));
}

HfVms *
hf_vms_new (const HfVmsRules *rules, HfQueue *queue, HfStore *store)
{
  HfVms *vms = g_new0 (HfVms, 1);

  vms->rules = *rules;
  vms->queue = queue;
  vms->store = store;
  vms->started = read_uptime_ticks ();
  vms->by_process = g_hash_table_new_full (peer_hash, peer_equal, NULL, (GDestroyNotify)hf_vm_unref);
  return vms;
}

void
hf_vms_free (HfVms *vms)
{
  GHashTableIter iter;
  gpointer value;

  if (!vms)
    return;
  vms->freed = TRUE;
  g_clear_handle_id (&vms->tick_source, g_source_remove);
  g_hash_table_iter_init (&iter, vms->by_process);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    HfVm *vm = value;

    g_clear_handle_id (&vm->pidfd_source, g_source_remove);
    g_clear_handle_id (&vm->retry_source, g_source_remove);
    hf_vm_leave_commands (vm);
    vm->orphan = TRUE;
  }
  g_hash_table_unref (vms->by_process);
  g_free (vms);
}

void
hf_vms_set_watchers (HfVms *vms, const HfVmWatch *watchers)
{
  vms->watchers = watchers;
}

void
hf_vms_set_lifecycle (HfVms *vms, void (*function) (HfVm *vm, gboolean alive, gpointer user_data), gpointer user_data)
{
  vms->lifecycle = function;
  vms->lifecycle_data = user_data;
}

static void
tell (HfVm *vm, const HfVmEvent *event)
{
  for (const HfVmWatch *watch = vm->vms->watchers; watch && watch->function; watch++)
    watch->function (vm, event, watch->user_data);
}

void
hf_vm_tell (HfVm *vm, const char *operation, const char *lu, const char *result, gboolean warning)
{
  tell (vm, &(HfVmEvent){ .operation = operation, .lu = lu, .result = result, .warning = warning });
}

void
hf_vm_tell_guest (HfVm *vm, const char *operation, const char *lu, const char *result, gboolean warning)
{
  tell (vm, &(HfVmEvent){ .operation = operation, .lu = lu, .result = result, .warning = warning, .guest = TRUE });
}

void
hf_vms_start_ticking (HfVms *vms)
{
  if (!vms->tick_source)
    vms->tick_source = g_timeout_add (TICK_MS, hf_vms_tick, vms);
}

/* ---- looking ---- */

HfVm *
hf_vms_find_process (HfVms *vms, pid_t pid, guint64 start_time)
{
  HfPeer peer = { .pid = pid, .start_time = start_time };
  HfVm *vm = start_time ? g_hash_table_lookup (vms->by_process, &peer) : NULL;

  return vm && vm->alive ? vm : NULL;
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
  GHashTableIter iter;
  gpointer value;

  g_hash_table_iter_init (&iter, vms->by_process);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    HfVm *vm = value;

    if (!is_called (vm, name))
      continue;
    /* The living one of two, for a VM may come back before the one that ended is settled. */
    if (found && found->alive != vm->alive) {
      found = vm->alive ? vm : found;
      continue;
    }
    found = vm;
    n++;
  }
  if (n == 1)
    return found;
  g_set_error (error, G_IO_ERROR, n ? G_IO_ERROR_EXISTS : G_IO_ERROR_NOT_FOUND,
               n ? "several VMs are called '%s': say pid:N" : "no VM is called '%s'", name);
  return NULL;
}

GPtrArray *
hf_vms_list (HfVms *vms)
{
  GPtrArray *list = g_ptr_array_new ();
  GHashTableIter iter;
  gpointer value;

  g_hash_table_iter_init (&iter, vms->by_process);
  while (g_hash_table_iter_next (&iter, NULL, &value))
    g_ptr_array_add (list, value);
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
  return vm->label;
}

const char *
hf_vm_get_uuid (HfVm *vm)
{
  return vm->uuid;
}

gboolean
hf_vm_is_alive (HfVm *vm)
{
  return vm->alive;
}

guint
hf_vm_get_connections (HfVm *vm)
{
  return vm->connections;
}

const HfVmCounters *
hf_vm_get_counters (HfVm *vm)
{
  return &vm->counters;
}

/* ---- the journal ---- */

static HfHeld
get_held (const HfVmNode *node)
{
  return (HfHeld){ .block = node->block,
                   .major = node->major,
                   .minor = node->minor,
                   .identified = node->identified,
                   .identity = node->identity,
                   .state = node->state,
                   .candidate_key = node->candidate_key };
}

HfVmImage *
hf_vm_get_image (HfVm *vm)
{
  HfVmImage *image = hf_vm_image_new (&vm->peer);

  image->name = g_strdup (vm->name);
  image->uuid = g_strdup (vm->uuid);
  image->phase = vm->phase;
  image->record = vm->record ? g_bytes_ref (vm->record) : NULL;
  image->guest_time = vm->guest_time;
  for (guint i = 0; i < vm->nodes->len; i++) {
    const HfVmNode *node = vm->nodes->pdata[i];

    if (node->tracked && (node->state.key || node->state.uncertain || node->candidate_key))
      g_array_append_vals (image->held, (HfHeld[]){ get_held (node) }, 1);
  }
  return image;
}

typedef struct {
  HfVm *vm;
  HfStoreDone done;
  gpointer user_data;
} Stored;

static void
on_stored (const GError *error, gpointer user_data)
{
  Stored *stored = user_data;

  if (error && !stored->vm->orphan)
    hf_vm_tell (stored->vm, "journal", NULL, error->message, TRUE);
  if (stored->done)
    stored->done (error, stored->user_data);
  hf_vm_unref (stored->vm);
  g_free (stored);
}

static gboolean
on_not_stored (gpointer user_data)
{
  on_stored (NULL, user_data);
  return G_SOURCE_REMOVE;
}

void
hf_vm_store (HfVm *vm, gboolean sync, HfStoreDone done, gpointer user_data)
{
  Stored *stored = g_new0 (Stored, 1);

  *stored = (Stored){ hf_vm_ref (vm), done, user_data };
  if (vm->vms->store)
    hf_store_write (vm->vms->store, hf_vm_get_image (vm), sync, on_stored, stored);
  else
    g_idle_add_full (G_PRIORITY_DEFAULT, on_not_stored, stored, NULL);
}

/* ---- after a restart ---- */

static void
restore_node (HfVm *vm, const HfHeld *held)
{
  HfVmNode *node = hf_vm_get_node (vm, held->block, held->major, held->minor);

  if (!node)
    return;
  node->tracked = TRUE;
  if (held->identified)
    hf_vm_node_set_identity (node, &held->identity);
  node->state = held->state;
  node->candidate_key = held->candidate_key;
  /* What was on its way when the helper ended may have been executed. */
  node->state.uncertain = TRUE;
}

static void
restore (HfVms *vms, const HfVmImage *image)
{
  g_autoptr (HfRecord) record = NULL;
  int pidfd = hf_process_open (&image->peer, NULL);
  HfVm *vm;

  if (g_hash_table_contains (vms->by_process, &image->peer)) {
    if (pidfd >= 0)
      close (pidfd);
    return;
  }
  vm = vm_new (vms, &image->peer, pidfd, image->name, image->uuid);
  for (guint i = 0; i < image->held->len; i++)
    restore_node (vm, &g_array_index (image->held, HfHeld, i));
  vm->guest_time = image->guest_time;
  vm->incomplete = TRUE; /* what was registered before any helper of ours is in no image */
  if (image->record) {
    record = hf_record_decode (g_bytes_get_data (image->record, NULL), g_bytes_get_size (image->record), NULL);
    if (record)
      hf_vm_set_moved (vm, record);
  }
  hf_vm_ref (vm);
  if (record)
    hf_vm_set_phase (vm, image->phase, image->record);
  vm->alive = is_there (vm);
  hf_vm_restored (vm);
  if (vm->alive && vms->lifecycle)
    vms->lifecycle (vm, TRUE, vms->lifecycle_data);
  if (hf_vm_look_for_end (vm))
    hf_vms_start_ticking (vms);
  hf_vm_check_end (vm);
  hf_vm_unref (vm);
}

gboolean
hf_vms_restore (HfVms *vms, GError **error)
{
  g_autoptr (GPtrArray) images = vms->store ? hf_store_read (vms->store, error) : g_ptr_array_new ();

  if (!images)
    return FALSE;
  for (guint i = 0; i < images->len; i++)
    restore (vms, images->pdata[i]);
  return TRUE;
}
