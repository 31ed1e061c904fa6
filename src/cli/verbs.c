/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: the table of verbs. Thread: any, it is constant. */
#include "config.h"

#include "cli/cli.h"

const HfVerb hf_verbs[] = {
  { "status", "show what LUs hold", hf_verb_status },
  { "pr", "send one PERSISTENT RESERVE command", hf_verb_pr },
  { "save", "write what a VM holds into a record", hf_verb_save },
  { "check", "say what load would do, by reads only", hf_verb_check },
  { "load", "take over here what a record says", hf_verb_load },
  { "release", "remove this host's registration after a move", hf_verb_release },
  { "reclaim", "take everything back after a failed migration", hf_verb_reclaim },
  { "inspect", "show a record", hf_verb_inspect },
  { "doctor", "check a running VM for what would go wrong in a migration", hf_verb_doctor },
  { "access", "try a read and a write", hf_verb_access },
  { "selftest", "qualify a target with the move matrix", hf_verb_selftest },
  { "stream", "carry the state of a VM through a file", hf_verb_stream },
  { "batch", "run one verb per line", hf_verb_batch },
  { NULL, NULL, NULL },
};
