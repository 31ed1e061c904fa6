/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The model of an LU as a transport: the real library sends its commands to a HfModel, and a test stands between any two of them.
 *
 * One HfModelWire is one LU with all that is plugged into it. Commands of all its transports are numbered together, from 1, so
 * "before command 5" is the same instant in every run. The wire has a lock: transports of several threads may send at a time.
 *
 * Thread: the wire's members are set while nothing is sent; the callbacks run in the sending thread with the lock held and may
 * change the model.
 */

#include "scsi/transport.h"
#include "spc-model.h"

typedef enum {
  HF_MODEL_FAULT_NONE,
  HF_MODEL_FAULT_LINK_BEFORE,    /* the link is lost, the command was not executed */
  HF_MODEL_FAULT_LINK_AFTER,     /* executed, the answer is lost */
  HF_MODEL_FAULT_TIMEOUT_BEFORE, /* the same as a deadline that passed */
  HF_MODEL_FAULT_TIMEOUT_AFTER,
  HF_MODEL_FAULT_BUSY,          /* answered instead of executed */
  HF_MODEL_FAULT_UNIT_ATTENTION /* the same, 6/2903: a reset by somebody else */
} HfModelFault;
#define HF_N_MODEL_FAULTS (HF_MODEL_FAULT_UNIT_ATTENTION + 1)

/* index: of the command, from 1. */
typedef void (*HfModelHook) (HfModel *model, guint nexus, guint index, const guint8 *cdb, gpointer user_data);

typedef struct {
  HfModel *model;
  guint n_commands;
  HfModelHook before, after; /* NULL: nobody listens. after is called for a lost answer too */
  gpointer user_data;
  HfModelFault fault; /* acted out once, at command fault_at; 0: never */
  guint fault_at;
  gboolean dead; /* after the fault every command is lost before it is executed: the host died there */
  GMutex lock;
} HfModelWire;

void hf_model_wire_init (HfModelWire *wire, HfModel *model);
void hf_model_wire_clear (HfModelWire *wire);

/* "link-after"; static */
const char *hf_model_fault_to_string (HfModelFault fault);

/* An LU of the library over nexus of the wire's model. identified FALSE: the transport does not know its own TransportID. Free
   with hf_lu_free; wire must outlive it. */
HfLu *hf_model_lu_new (HfModelWire *wire, guint nexus, gboolean identified);

/* The transport alone, for tests of the transport. */
HfTransport *hf_model_transport_new (HfModelWire *wire, guint nexus, gboolean identified);
