/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: what is known of each node of a VM. Thread: main.
 *
 * Theory of operation: a registration belongs to an I_T nexus, and a node is the closest to one that a descriptor tells. So state
 * is kept for each node, and nodes are grouped to LUs by identity where it is needed. A node's number is only a name as long as
 * somebody has the node open: the VM has, and where its process cannot be asked for it later, we keep a copy.
 */
#include "config.h"

#include "prhelper/vm-private.h"

#include <string.h>

HfVmNode *
hf_vm_find_node (HfVm *vm, gboolean block, guint major, guint minor)
{
  for (guint i = 0; i < vm->nodes->len; i++) {
    HfVmNode *node = vm->nodes->pdata[i];

    if (!node->block == !block && node->major == major && node->minor == minor)
      return node;
  }
  return NULL;
}

HfVmNode *
hf_vm_get_node (HfVm *vm, gboolean block, guint major, guint minor)
{
  HfVmNode *node = hf_vm_find_node (vm, block, major, minor);

  if (node || vm->nodes->len >= HF_VM_NODES_MAX)
    return node;
  node = g_new0 (HfVmNode, 1);
  node->block = block;
  node->major = major;
  node->minor = minor;
  node->lu = g_strdup_printf ("%s %u:%u", block ? "block" : "character", major, minor);
  g_ptr_array_add (vm->nodes, node);
  return node;
}

static gpointer
free_devices (gpointer data)
{
  g_ptr_array_unref (data);
  return NULL;
}

/* Closing the last descriptor of a block device waits for the device. */
void
hf_free_elsewhere (GPtrArray *holdings)
{
  GThread *thread = holdings ? g_thread_try_new ("close", free_devices, holdings, NULL) : NULL;

  if (thread)
    g_thread_unref (thread);
  else if (holdings)
    g_ptr_array_unref (holdings);
}

void
hf_vm_discard_device (HfVm *vm, HfDevice *device)
{
  if (!device)
    return;
  if (device->fd >= 0)
    hf_queue_discard (vm->vms->queue, &vm->peer, device->fd);
  device->fd = -1;
  hf_device_free (device);
}

void
hf_vm_node_free (HfVmNode *node)
{
  hf_device_free (node->device);
  g_free (node->lu);
  g_free (node);
}

gboolean
hf_vm_node_set_identity (HfVmNode *node, const HfLuIdentity *identity)
{
  gboolean same = !node->identified || hf_lu_identity_equal (&node->identity, identity);

  if (!same) {
    memset (&node->state, 0, sizeof node->state);
    node->candidate_key = node->moved_key = 0;
    node->n_unit_attentions = 0;
  }
  node->identified = TRUE;
  node->identity = *identity;
  g_free (node->lu);
  node->lu = hf_lu_identity_to_string (identity);
  return same;
}

static gboolean
is_empty (const HfVmNode *node)
{
  return node->state.key == 0 && !node->state.uncertain && node->moved_key == 0 && node->n_unit_attentions == 0
         && node->at_device == 0;
}

void
hf_vm_drop_empty_nodes (HfVm *vm)
{
  if (vm->phase != HF_VM_IDLE || vm->at_work || !g_queue_is_empty (&vm->operations))
    return;
  for (guint i = vm->nodes->len; i-- > 0;)
    if (is_empty (vm->nodes->pdata[i])) {
      hf_vm_discard_device (vm, g_steal_pointer (&((HfVmNode *)vm->nodes->pdata[i])->device));
      g_ptr_array_remove_index_fast (vm->nodes, i);
    }
}

/* Is the LU one that a Load is about to register on? */
static gboolean
is_being_loaded (const HfVm *vm, const HfLuIdentity *identity)
{
  g_autoptr (HfRecord) record = NULL;
  const HfPrSaved *saved = NULL;

  if (vm->phase != HF_VM_LOADING || !vm->record)
    return FALSE;
  record = hf_record_decode (g_bytes_get_data (vm->record, NULL), g_bytes_get_size (vm->record), NULL);
  if (record)
    saved = hf_record_find (record, identity, NULL);
  return saved && saved->key;
}

/* Registered there, or about to be. */
static gboolean
holds (const HfVm *vm, const HfLuIdentity *identity)
{
  for (guint i = 0; i < vm->nodes->len; i++) {
    const HfVmNode *node = vm->nodes->pdata[i];

    if (node->identified && (node->state.key != 0 || node->state.uncertain || node->candidate_key)
        && hf_lu_identity_equal (&node->identity, identity))
      return TRUE;
  }
  return is_being_loaded (vm, identity);
}

HfVm *
hf_vm_find_rival (HfVm *vm, const HfVmNode *node)
{
  GHashTableIter iter;
  gpointer value;

  if (!node->identified)
    return NULL;
  g_hash_table_iter_init (&iter, vm->vms->by_process);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    HfVm *other = value;

    if (other != vm && other->alive && holds (other, &node->identity))
      return other;
  }
  return NULL;
}

gboolean
hf_vm_shares_nodes (HfVm *vm, HfVm *other)
{
  gboolean any = FALSE;

  for (guint i = 0; i < vm->nodes->len; i++) {
    const HfVmNode *node = vm->nodes->pdata[i];

    if (!node->moved_key)
      continue;
    if (!hf_vm_find_node (other, node->block, node->major, node->minor))
      return FALSE;
    any = TRUE;
  }
  return any;
}

void
hf_vm_forget_held (HfVm *vm)
{
  for (guint i = 0; i < vm->nodes->len; i++) {
    HfVmNode *node = vm->nodes->pdata[i];

    memset (&node->state, 0, sizeof node->state);
    node->candidate_key = 0;
  }
}

GArray *
hf_vm_list_rivals (HfVm *vm)
{
  GArray *rivals = g_array_new (FALSE, FALSE, sizeof (HfLuIdentity));
  GHashTableIter iter;
  gpointer value;

  g_hash_table_iter_init (&iter, vm->vms->by_process);
  while (g_hash_table_iter_next (&iter, NULL, &value)) {
    HfVm *other = value;

    for (guint i = 0; i < other->nodes->len && other != vm; i++) {
      const HfVmNode *node = other->nodes->pdata[i];

      if (node->identified && (node->state.key != 0 || node->state.uncertain))
        g_array_append_val (rivals, node->identity);
    }
  }
  return rivals;
}

GPtrArray *
hf_vm_get_holdings (HfVm *vm)
{
  GPtrArray *holdings = g_ptr_array_new_with_free_func ((GDestroyNotify)hf_holding_free);

  for (guint i = 0; i < vm->nodes->len; i++) {
    const HfVmNode *node = vm->nodes->pdata[i];
    HfDevice *device = node->device ? hf_device_new (node->device->fd, NULL) : NULL;
    HfHolding *holding;

    if (!node->tracked)
      continue;
    if (!device) {
      /* Only its number: the job asks the process for it. */
      device = g_new0 (HfDevice, 1);
      *device = (HfDevice){ .fd = -1, .block = node->block, .major = node->major, .minor = node->minor };
      device->name = g_strdup (node->lu);
    }
    holding = hf_holding_new (device);
    holding->tracked = TRUE;
    holding->state = node->state;
    holding->candidate_key = node->candidate_key;
    holding->identified = node->identified;
    holding->identity = node->identity;
    g_ptr_array_add (holdings, holding);
  }
  return holdings;
}

static void
owe (HfVmNode *node, const HfHolding *holding)
{
  for (guint i = 0; i < holding->n_unit_attentions && node->n_unit_attentions < HF_SCSI_UA_MAX; i++)
    node->unit_attentions[node->n_unit_attentions++] = holding->unit_attentions[i];
}

void
hf_vm_owe (HfVm *vm, GPtrArray *holdings)
{
  for (guint i = 0; holdings && i < holdings->len; i++) {
    const HfHolding *holding = holdings->pdata[i];
    HfVmNode *node = NULL;

    if (holding->n_unit_attentions)
      node = hf_vm_get_node (vm, holding->device->block, holding->device->major, holding->device->minor);
    if (node)
      owe (node, holding);
  }
}

void
hf_vm_take_holdings (HfVm *vm, GPtrArray *holdings, gboolean owed)
{
  for (guint i = 0; holdings && i < holdings->len; i++) {
    const HfHolding *holding = holdings->pdata[i];
    HfVmNode *node;

    if (!holding->identified)
      continue;
    node = hf_vm_get_node (vm, holding->device->block, holding->device->major, holding->device->minor);
    if (!node)
      continue;
    node->tracked |= holding->tracked;
    hf_vm_node_set_identity (node, &holding->identity);
    /* A command that is still at the device may change it behind what was read. */
    if (node->at_device)
      continue;
    node->state = holding->state;
    node->candidate_key = holding->candidate_key;
  }
  if (owed)
    hf_vm_owe (vm, holdings);
}

void
hf_vm_set_moved (HfVm *vm, const HfRecord *record)
{
  for (guint i = 0; i < vm->nodes->len; i++) {
    HfVmNode *node = vm->nodes->pdata[i];
    const HfPrSaved *saved = record && node->identified ? hf_record_find (record, &node->identity, NULL) : NULL;

    node->moved_key = saved ? saved->key : 0;
  }
}
