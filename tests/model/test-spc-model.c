/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The model proves itself before anything is proved on it.
 *
 *     host A        host B        host C          A: nexus 0, B: nexus 1, C: nexus 2
 *        |             |             |
 *        +-------------+-------------+            KA, KB, KC: a key of each host
 *                      |                          K: a key that several may use
 *                +-----------+
 *                |    LU     |  PRGENERATION, reservation (holder, type), registrations
 *                +-----------+
 *
 * Each row is one rule: the state before, one command, its answer, and key, generation, holder, type and unit attentions after
 * it. Sources: SPC-4 5.13 and 6.15 to 6.16; for LIO and tgt what the running targets answered.
 */
#include "spc-model.h"

#include <string.h>

enum { A, B, C, NOBODY = -1 };
#define K G_GUINT64_CONSTANT (0x1122334455667788)
#define KA G_GUINT64_CONSTANT (0xa)
#define KB G_GUINT64_CONSTANT (0xb)
#define KC G_GUINT64_CONSTANT (0xc)

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, IGNORE };
enum { SPC = 1 << HF_MODEL_SPC, LIO = 1 << HF_MODEL_LIO, TGT = 1 << HF_MODEL_TGT, ALL = SPC | LIO | TGT };

/* Answers as one number: status, or sense key and ASC/ASCQ behind a 1. */
#define GOOD HF_SAM_GOOD
#define CONFLICT HF_SAM_RESERVATION_CONFLICT
#define CHECK(key, asc_ascq) (0x1000000 | (key) << 16 | (asc_ascq))

static guint
answer_code (const HfModelAnswer *answer)
{
  return answer->status == HF_SAM_CHECK_CONDITION ? CHECK (answer->sense_key, answer->asc_ascq) : answer->status;
}

typedef struct {
  const char *rule;
  guint targets;
  /* before */
  guint64 keys[3];
  int holder;
  guint8 type;
  /* the command */
  int who;
  guint8 action;
  guint64 key, new_key;
  guint8 cdb_type;
  /* after */
  guint answer;
  guint64 keys_after[3];
  int holder_after;
  guint8 type_after;
  guint counts;          /* PRGENERATION */
  guint16 attentions[3]; /* one of each nexus; 0: none */
} Row;

/* clang-format off */
static const Row register_rows[] = {
  { "unregistered: REGISTER (0, 0) changes nothing", SPC | LIO, { 0 }, NOBODY, 0, A, REGISTER, 0, 0, 0, GOOD, { 0 }, NOBODY, 0,
    0, { 0 } },
  { "unregistered: REGISTER (0, 0) counts on tgt", TGT, { 0 }, NOBODY, 0, A, REGISTER, 0, 0, 0, GOOD, { 0 }, NOBODY, 0, 1,
    { 0 } },
  { "unregistered: REGISTER (0, K) registers", ALL, { 0 }, NOBODY, 0, A, REGISTER, 0, K, 0, GOOD, { K }, NOBODY, 0, 1, { 0 } },
  { "unregistered: a wrong key conflicts", ALL, { 0 }, NOBODY, 0, A, REGISTER, KB, K, 0, CONFLICT, { 0 }, NOBODY, 0, 0, { 0 } },
  { "unregistered: IGNORE registers", ALL, { 0 }, NOBODY, 0, A, IGNORE, KB, K, 0, GOOD, { K }, NOBODY, 0, 1, { 0 } },
  { "REGISTER is allowed while another holds", ALL, { 0, KB }, B, 3, A, REGISTER, 0, K, 0, GOOD, { K, KB }, B, 3, 1, { 0 } },
  { "registered: the key is changed, the reservation kept", ALL, { KA }, A, 1, A, REGISTER, KA, K, 0, GOOD, { K }, A, 1, 1,
    { 0 } },
  { "registered: the same key again is a probe that counts", ALL, { K, K }, A, 5, B, REGISTER, K, K, 0, GOOD, { K, K }, A, 5, 1,
    { 0 } },
  { "registered: RK 0 conflicts", ALL, { KA }, NOBODY, 0, A, REGISTER, 0, K, 0, CONFLICT, { KA }, NOBODY, 0, 0, { 0 } },
  { "registered: a wrong key conflicts", ALL, { KA }, NOBODY, 0, A, REGISTER, KB, 0, 0, CONFLICT, { KA }, NOBODY, 0, 0, { 0 } },
  { "registered: IGNORE replaces the key", ALL, { KA }, NOBODY, 0, A, IGNORE, KB, K, 0, GOOD, { K }, NOBODY, 0, 1, { 0 } },
  { "unregistering counts", SPC | TGT, { KA, KB }, B, 5, A, REGISTER, KA, 0, 0, GOOD, { 0, KB }, B, 5, 1, { 0 } },
  { "unregistering does not count on LIO", LIO, { KA, KB }, B, 5, A, REGISTER, KA, 0, 0, GOOD, { 0, KB }, B, 5, 0, { 0 } },
  { "the holder's unregistering releases type 1, silently", SPC, { KA, KB }, A, 1, A, REGISTER, KA, 0, 0, GOOD, { 0, KB },
    NOBODY, 0, 1, { 0 } },
  { "the holder's unregistering releases type 5, others hear of it", SPC, { KA, KB }, A, 5, A, REGISTER, KA, 0, 0, GOOD,
    { 0, KB }, NOBODY, 0, 1, { 0, 0x2a04, 0 } },
  { "the same on LIO, not counted", LIO, { KA, KB }, A, 6, A, IGNORE, 0, 0, 0, GOOD, { 0, KB }, NOBODY, 0, 0,
    { 0, 0x2a04, 0 } },
  { "the same on tgt, counted twice and silent", TGT, { KA, KB }, A, 5, A, REGISTER, KA, 0, 0, GOOD, { 0, KB }, NOBODY, 0, 2,
    { 0 } },
  { "type 7 outlives any but the last registration", SPC, { KA, KB }, A, 7, A, REGISTER, KA, 0, 0, GOOD, { 0, KB }, B, 7, 1,
    { 0 } },
  { "type 8 ends with the last registration", SPC, { KA }, A, 8, A, REGISTER, KA, 0, 0, GOOD, { 0 }, NOBODY, 0, 1, { 0 } },
};
/* clang-format on */

/* clang-format off */
static const Row reserve_rows[] = {
  { "RESERVE makes a holder and does not count", ALL, { KA }, NOBODY, 0, A, RESERVE, KA, 0, 5, GOOD, { KA }, A, 5, 0, { 0 } },
  { "RESERVE of an unregistered nexus conflicts", SPC | TGT, { 0, KB }, NOBODY, 0, A, RESERVE, KA, 0, 5, CONFLICT, { 0, KB },
    NOBODY, 0, 0, { 0 } },
  { "LIO calls it not ready", LIO, { 0, KB }, NOBODY, 0, A, RESERVE, KA, 0, 5, CHECK (2, 0x0800), { 0, KB }, NOBODY, 0, 0,
    { 0 } },
  { "while reserved it is a conflict on LIO too", LIO, { 0, KB }, B, 5, A, RESERVE, KA, 0, 5, CONFLICT, { 0, KB }, B, 5, 0,
    { 0 } },
  { "RESERVE with a wrong key conflicts", SPC | LIO, { KA }, NOBODY, 0, A, RESERVE, KB, 0, 5, CONFLICT, { KA }, NOBODY, 0, 0,
    { 0 } },
  { "RESERVE with a wrong key is accepted by tgt", TGT, { KA }, NOBODY, 0, A, RESERVE, KB, 0, 5, GOOD, { KA }, A, 5, 0, { 0 } },
  { "RESERVE again with the same type is GOOD", ALL, { KA }, A, 5, A, RESERVE, KA, 0, 5, GOOD, { KA }, A, 5, 0, { 0 } },
  { "RESERVE with another type conflicts", ALL, { KA }, A, 5, A, RESERVE, KA, 0, 1, CONFLICT, { KA }, A, 5, 0, { 0 } },
  { "RESERVE conflicts for a registrant that does not hold", ALL, { KA, KB }, B, 5, A, RESERVE, KA, 0, 5, CONFLICT, { KA, KB },
    B, 5, 0, { 0 } },
  { "every registrant may RESERVE type 7 again", ALL, { KA, KB }, B, 7, A, RESERVE, KA, 0, 7, GOOD, { KA, KB }, B, 7, 0,
    { 0 } },
  { "RESERVE with type 0 is illegal", ALL, { KA }, NOBODY, 0, A, RESERVE, KA, 0, 0, CHECK (5, 0x2400), { KA }, NOBODY, 0, 0,
    { 0 } },
  { "RESERVE with type 2 is illegal", ALL, { KA }, NOBODY, 0, A, RESERVE, KA, 0, 2, CHECK (5, 0x2400), { KA }, NOBODY, 0, 0,
    { 0 } },
  { "RELEASE of type 5: others hear of it", SPC | LIO, { KA, KB }, A, 5, A, RELEASE, KA, 0, 5, GOOD, { KA, KB }, NOBODY, 0, 0,
    { 0, 0x2a04, 0 } },
  { "RELEASE of type 1 is silent", SPC | LIO, { KA, KB }, A, 1, A, RELEASE, KA, 0, 1, GOOD, { KA, KB }, NOBODY, 0, 0, { 0 } },
  { "RELEASE of type 1 on tgt: the wrong ones hear of it", TGT, { KA, KB }, A, 1, A, RELEASE, KA, 0, 1, GOOD, { KA, KB },
    NOBODY, 0, 0, { 0x2a04, 0, 0x2a04 } },
  { "RELEASE of type 5 is silent on tgt", TGT, { KA, KB }, A, 5, A, RELEASE, KA, 0, 5, GOOD, { KA, KB }, NOBODY, 0, 0, { 0 } },
  { "RELEASE by any registrant ends type 7", SPC, { KA, KB }, A, 7, B, RELEASE, KB, 0, 7, GOOD, { KA, KB }, NOBODY, 0, 0,
    { 0x2a04, 0, 0 } },
  { "RELEASE with a wrong type", SPC | TGT, { KA }, A, 5, A, RELEASE, KA, 0, 1, CHECK (5, 0x2604), { KA }, A, 5, 0, { 0 } },
  { "RELEASE with a wrong type conflicts on LIO", LIO, { KA }, A, 5, A, RELEASE, KA, 0, 1, CONFLICT, { KA }, A, 5, 0, { 0 } },
  { "RELEASE of a registrant that does not hold: GOOD without effect", ALL, { KA, KB }, B, 5, A, RELEASE, KA, 0, 5, GOOD,
    { KA, KB }, B, 5, 0, { 0 } },
  { "RELEASE with a wrong key conflicts", SPC, { KA, KB }, B, 5, A, RELEASE, KC, 0, 5, CONFLICT, { KA, KB }, B, 5, 0, { 0 } },
  { "LIO and tgt do not look at the key where nothing is released", LIO | TGT, { KA, KB }, B, 5, A, RELEASE, KC, 0, 5, GOOD,
    { KA, KB }, B, 5, 0, { 0 } },
  { "but do where something is", ALL, { KA, KB }, A, 5, A, RELEASE, KC, 0, 5, CONFLICT, { KA, KB }, A, 5, 0, { 0 } },
  { "RELEASE of an unregistered nexus conflicts", ALL, { 0, KB }, B, 5, A, RELEASE, KA, 0, 5, CONFLICT, { 0, KB }, B, 5, 0,
    { 0 } },
  { "RELEASE unregistered, nothing reserved: not ready on LIO", LIO, { 0, KB }, NOBODY, 0, A, RELEASE, KA, 0, 5,
    CHECK (2, 0x0800), { 0, KB }, NOBODY, 0, 0, { 0 } },
  { "CLEAR removes all and tells the others", ALL, { KA, KB }, B, 3, A, CLEAR, KA, 0, 0, GOOD, { 0 }, NOBODY, 0, 1,
    { 0, 0x2a03, 0 } },
  { "CLEAR with a wrong key conflicts", ALL, { KA, KB }, B, 3, A, CLEAR, KB, 0, 0, CONFLICT, { KA, KB }, B, 3, 0, { 0 } },
  { "CLEAR of an unregistered nexus conflicts", SPC | TGT, { 0, KB }, NOBODY, 0, A, CLEAR, KB, 0, 0, CONFLICT, { 0, KB },
    NOBODY, 0, 0, { 0 } },
};
/* clang-format on */

/* clang-format off */
static const Row preempt_rows[] = {
  { "the holder's key: the caller holds with the TYPE of the CDB", SPC | LIO, { KA, KB }, B, 5, A, PREEMPT, KA, KB, 1, GOOD,
    { KA }, A, 1, 1, { 0, 0x2a05, 0 } },
  { "tgt says 2A03 where 2A05 is meant", TGT, { KA, KB }, B, 5, A, PREEMPT, KA, KB, 1, GOOD, { KA }, A, 1, 1,
    { 0, 0x2a03, 0 } },
  { "a changed type tells the registrants that stay", SPC | LIO, { KA, KB, KC }, B, 5, A, PREEMPT, KA, KB, 6, GOOD,
    { KA, 0, KC }, A, 6, 1, { 0, 0x2a05, 0x2a04 } },
  { "the move: PREEMPT (K, K) takes over from the holder with K", SPC | LIO, { K, K, KC }, A, 3, B, PREEMPT, K, K, 3, GOOD,
    { 0, K, KC }, B, 3, 1, { 0x2a05, 0, 0 } },
  { "the move on tgt", TGT, { K, K, KC }, A, 3, B, PREEMPT, K, K, 3, GOOD, { 0, K, KC }, B, 3, 1, { 0x2a03, 0, 0 } },
  { "the holder preempts its own key: stays, type changed, namesakes removed", SPC | LIO, { K, K }, A, 1, A, PREEMPT, K, K, 5,
    GOOD, { K }, A, 5, 1, { 0, 0x2a05, 0 } },
  { "another key: only its registrations go", SPC | LIO, { KA, KB, KC }, C, 5, A, PREEMPT, KA, KB, 1, GOOD, { KA, 0, KC }, C, 5,
    1, { 0, 0x2a05, 0 } },
  { "nothing reserved: the same", SPC | LIO, { KA, KB }, NOBODY, 0, A, PREEMPT, KA, KB, 5, GOOD, { KA }, NOBODY, 0, 1,
    { 0, 0x2a05, 0 } },
  { "PREEMPT (K, K), nothing reserved: K vanishes, the caller's too", SPC | LIO, { K, K }, NOBODY, 0, A, PREEMPT, K, K, 5, GOOD,
    { 0 }, NOBODY, 0, 1, { 0, 0x2a05, 0 } },
  { "PREEMPT (K, K), another holds: K vanishes", SPC | LIO, { K, K, KC }, C, 5, A, PREEMPT, K, K, 5, GOOD, { 0, 0, KC }, C, 5,
    1, { 0, 0x2a05, 0 } },
  { "tgt keeps the caller", TGT, { K, K, KC }, C, 5, A, PREEMPT, K, K, 5, GOOD, { K, 0, KC }, C, 5, 1, { 0, 0x2a03, 0 } },
  { "tgt keeps the caller, nothing reserved", TGT, { K, K }, NOBODY, 0, A, PREEMPT, K, K, 5, GOOD, { K }, NOBODY, 0, 1,
    { 0, 0x2a03, 0 } },
  { "a key that nobody has conflicts", ALL, { KA, KB }, B, 5, A, PREEMPT, KA, KC, 5, CONFLICT, { KA, KB }, B, 5, 0, { 0 } },
  { "a wrong own key conflicts", ALL, { KA, KB }, B, 5, A, PREEMPT, KC, KB, 5, CONFLICT, { KA, KB }, B, 5, 0, { 0 } },
  { "an unregistered nexus conflicts", ALL, { 0, KB }, B, 5, A, PREEMPT, KA, KB, 5, CONFLICT, { 0, KB }, B, 5, 0, { 0 } },
  { "an unregistered nexus conflicts, nothing reserved", ALL, { 0, KB }, NOBODY, 0, A, PREEMPT, KA, KB, 5, CONFLICT, { 0, KB },
    NOBODY, 0, 0, { 0 } },
  { "types 7, 8: a key removes the others with it, TYPE ignored", SPC | LIO, { KA, KB, KC }, A, 7, C, PREEMPT, KC, KB, 1, GOOD,
    { KA, 0, KC }, A, 7, 1, { 0, 0x2a05, 0 } },
  { "types 7, 8: SARK 0 removes all others, new type", SPC | LIO, { KA, KB, KC }, A, 7, C, PREEMPT, KC, 0, 1, GOOD,
    { 0, 0, KC }, C, 1, 1, { 0x2a05, 0x2a05, 0 } },
  { "types 7, 8: PREEMPT (K, K) keeps caller and type", SPC, { K, K, KC }, A, 7, B, PREEMPT, K, K, 1, GOOD, { 0, K, KC }, B, 7,
    1, { 0x2a05, 0, 0 } },
  { "the same on tgt", TGT, { K, K, KC }, A, 7, B, PREEMPT, K, K, 1, GOOD, { 0, K, KC }, B, 7, 1, { 0x2a03, 0, 0 } },
  { "LIO: K of the internal holder makes a reservation of the CDB's TYPE", LIO, { K, K, KC }, A, 7, B, PREEMPT, K, K, 1, GOOD,
    { 0, K, KC }, B, 1, 1, { 0x2a05, 0, 0x2a04 } },
  { "LIO: with TYPE 7 all stays well", LIO, { K, K, KC }, A, 7, B, PREEMPT, K, K, 7, GOOD, { 0, K, KC }, B, 7, 1,
    { 0x2a05, 0, 0 } },
  { "LIO: K of others than the internal holder as SPC", LIO, { K, K, KC }, C, 7, B, PREEMPT, K, K, 1, GOOD, { 0, K, KC }, C, 7,
    1, { 0x2a05, 0, 0 } },
  { "LIO: nobody but the caller has K", LIO, { 0, K, KC }, C, 7, B, PREEMPT, K, K, 7, CONFLICT, { 0, K, KC }, C, 7, 0, { 0 } },
  { "SARK 0 without types 7, 8", SPC | LIO, { KA, KB }, B, 5, A, PREEMPT, KA, 0, 5, CHECK (5, 0x2600), { KA, KB }, B, 5, 0,
    { 0 } },
  { "SARK 0, nothing reserved, on tgt", TGT, { KA, KB }, NOBODY, 0, A, PREEMPT, KA, 0, 5, GOOD, { KA, KB }, NOBODY, 0, 1,
    { 0 } },
  { "TYPE 0 is ignored where no reservation is made", SPC, { KA, KB }, NOBODY, 0, A, PREEMPT, KA, KB, 0, GOOD, { KA }, NOBODY,
    0, 1, { 0, 0x2a05, 0 } },
  { "LIO refuses TYPE 0 always", LIO, { KA, KB }, NOBODY, 0, A, PREEMPT, KA, KB, 0, CHECK (5, 0x2400), { KA, KB }, NOBODY, 0, 0,
    { 0 } },
  { "TYPE 0 where a reservation is made", SPC, { KA, KB }, B, 5, A, PREEMPT, KA, KB, 0, CHECK (5, 0x2400), { KA, KB }, B, 5, 0,
    { 0 } },
  { "tgt takes TYPE 0 and leaves no reservation", TGT, { KA, KB }, B, 5, A, PREEMPT, KA, KB, 0, GOOD, { KA }, NOBODY, 0, 1,
    { 0, 0x2a03, 0 } },
  { "PREEMPT AND ABORT as PREEMPT", SPC | LIO, { KA, KB }, B, 5, A, PREEMPT_AND_ABORT, KA, KB, 5, GOOD, { KA }, A, 5, 1,
    { 0, 0x2a05, 0 } },
  { "tgt has no PREEMPT AND ABORT", TGT, { KA, KB }, B, 5, A, PREEMPT_AND_ABORT, KA, KB, 5, CHECK (5, 0x2400), { KA, KB }, B, 5,
    0, { 0 } },
};
/* clang-format on */

static void
assert_state (const HfModel *model, const char *rule, const guint64 keys[3], int holder, guint8 type, guint32 generation)
{
  for (guint i = 0; i < 3; i++)
    if (model->nexuses[i].key != keys[i] || model->nexuses[i].registered != (keys[i] != 0))
      g_error ("%s: host %c has key %" G_GINT64_MODIFIER "x", rule, 'A' + (int)i, model->nexuses[i].key);
  if (model->holder != holder || model->type != type)
    g_error ("%s: holder %d, type %u", rule, model->holder, model->type);
  if (model->generation != generation)
    g_error ("%s: generation %u", rule, model->generation);
}

static void
run_row (const Row *row, HfModelQuirks quirks)
{
  g_autofree char *rule = g_strdup_printf ("%s: %s", hf_model_quirks_to_string (quirks), row->rule);
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, quirks, 3);
  model.generation = 40;
  for (guint i = 0; i < 3; i++)
    hf_model_set_key (&model, i, row->keys[i]);
  hf_model_set_reservation (&model, row->holder < 0 ? 0 : (guint)row->holder, row->type);
  answer = hf_model_pr_out (&model, (guint)row->who, row->action, row->key, row->new_key, row->cdb_type);
  if (answer_code (&answer) != row->answer)
    g_error ("%s: answered %x", rule, answer_code (&answer));
  assert_state (&model, rule, row->keys_after, row->holder_after, row->type_after, 40 + row->counts);
  for (guint i = 0; i < 3; i++) {
    const HfModelNexus *n = &model.nexuses[i];
    if (n->n_unit_attentions != (row->attentions[i] != 0)
        || (row->attentions[i] != 0 && n->unit_attentions[0] != row->attentions[i]))
      g_error ("%s: host %c has %u unit attentions, %x", rule, 'A' + (int)i, n->n_unit_attentions, n->unit_attentions[0]);
  }
}

static void
run_rows (const Row *rows, gsize n)
{
  guint ran = 0;

  for (gsize i = 0; i < n; i++)
    for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++)
      if (rows[i].targets & 1u << quirks) {
        run_row (&rows[i], quirks);
        ran++;
      }
  g_assert_cmpuint (ran, >=, n);
}

static void
test_register (void)
{
  run_rows (register_rows, G_N_ELEMENTS (register_rows));
}

static void
test_reserve (void)
{
  run_rows (reserve_rows, G_N_ELEMENTS (reserve_rows));
}

static void
test_preempt (void)
{
  run_rows (preempt_rows, G_N_ELEMENTS (preempt_rows));
}

/* ---- sequences and data ---- */

static HfModelAnswer
command (HfModel *model, guint nexus, const char *bytes, guint8 *in, gsize in_size)
{
  guint8 cdb[16] = { 0 };
  gsize n = 0;

  for (const char *p = bytes; *p != '\0'; p += p[2] == ' ' ? 3 : 2)
    cdb[n++] = (guint8)(g_ascii_xdigit_value (p[0]) << 4 | g_ascii_xdigit_value (p[1]));
  return hf_model_execute (model, nexus, cdb, n, NULL, 0, in, in_size);
}

#define assert_command(model, nexus, bytes, expected)                                                                            \
  G_STMT_START                                                                                                                   \
  {                                                                                                                              \
    guint8 in_[512];                                                                                                             \
    HfModelAnswer answer_ = command (model, nexus, bytes, in_, sizeof in_);                                                      \
    g_assert_cmphex (answer_code (&answer_), ==, expected);                                                                      \
  }                                                                                                                              \
  G_STMT_END

#define TEST_UNIT_READY "00 00 00 00 00 00"
#define READ_ONE "28 00 00 00 00 00 00 00 01 00"
#define WRITE_NOTHING "2a 00 00 00 00 00 00 00 00 00"
#define READ_KEYS "5e 00 00 00 00 00 00 20 00 00"
#define READ_KEYS_SHORT "5e 00 00 00 00 00 00 00 10 00"
#define READ_KEYS_4 "5e 00 00 00 00 00 00 00 04 00"
#define READ_RESERVATION "5e 01 00 00 00 00 00 20 00 00"
#define REPORT_CAPABILITIES "5e 02 00 00 00 00 00 20 00 00"
#define READ_FULL_STATUS "5e 03 00 00 00 00 00 20 00 00"
#define RESERVE_6 "16 00 00 00 00 00"
#define RELEASE_6 "17 00 00 00 00 00"

/* Facts 2, first table: what A (holder), B (registered) and C (not) may read and write under each type. */
static void
test_access (void)
{
  static const struct {
    guint8 type;
    const char *may; /* r or w of A, B, C; - conflict */
  } rows[] = { { 0, "rwrwrw" }, { 1, "rwr-r-" }, { 3, "rw----" }, { 5, "rwrwr-" },
               { 6, "rwrw--" }, { 7, "rwrwr-" }, { 8, "rwrw--" } };

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++)
    for (guint row = 0; row < G_N_ELEMENTS (rows); row++) {
      HfModel model;
      hf_model_init (&model, quirks, 3);
      hf_model_set_key (&model, A, KA);
      hf_model_set_key (&model, B, KB);
      hf_model_set_reservation (&model, A, rows[row].type);
      for (guint i = 0; i < 3; i++) {
        assert_command (&model, i, READ_ONE, rows[row].may[2 * i] == 'r' ? GOOD : CONFLICT);
        assert_command (&model, i, WRITE_NOTHING, rows[row].may[2 * i + 1] == 'w' ? GOOD : CONFLICT);
        assert_command (&model, i, TEST_UNIT_READY, GOOD);
        assert_command (&model, i, READ_KEYS, GOOD);
      }
    }
}

/* A written block is read back, and a conflict writes nothing. */
static void
test_data (void)
{
  static const guint8 write[] = { 0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0 };
  guint8 block[HF_MODEL_BLOCK], back[HF_MODEL_BLOCK] = { 0 };
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_SPC, 2);
  memset (block, 0xaa, sizeof block);
  answer = hf_model_execute (&model, A, write, sizeof write, block, sizeof block, NULL, 0);
  g_assert_cmpuint (answer.status, ==, HF_SAM_GOOD);
  hf_model_set_key (&model, A, KA);
  hf_model_set_reservation (&model, A, 1);
  memset (block, 0xbb, sizeof block);
  answer = hf_model_execute (&model, B, write, sizeof write, block, sizeof block, NULL, 0);
  g_assert_cmpuint (answer.status, ==, HF_SAM_RESERVATION_CONFLICT);
  answer = command (&model, B, READ_ONE, back, sizeof back);
  g_assert_cmpuint (answer.in_length, ==, sizeof back);
  g_assert_cmphex (back[0], ==, 0xaa);
  assert_command (&model, A, "28 00 00 00 00 01 00 00 01 00", CHECK (5, 0x2100));
}

static void
test_read_keys (void)
{
  static const guint8 expected[] = { 0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0xa };
  guint8 in[64];
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 2);
  model.generation = 7;
  hf_model_set_key (&model, B, KB);
  hf_model_set_key (&model, A, KA);
  answer = command (&model, A, READ_KEYS, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, expected, sizeof expected);
  /* cut, but the additional length says all */
  answer = command (&model, A, READ_KEYS_SHORT, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, expected, 16);
  assert_command (&model, A, READ_KEYS_4, CHECK (5, 0x2400));
  model.quirks = HF_MODEL_SPC;
  answer = command (&model, A, READ_KEYS_4, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, expected, 4);
}

/* More keys than 8192 bytes hold; READ FULL STATUS of LIO hides that its list was cut. */
static void
test_long_lists (void)
{
  g_autofree guint8 *in = g_malloc0 (65536);
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_SPC, 1);
  model.n_crowd = 1100;
  model.crowd_key = KC;
  hf_model_set_key (&model, A, KA);
  answer = command (&model, A, READ_KEYS, in, 65536);
  g_assert_cmpuint (answer.in_length, ==, 8192);
  g_assert_cmphex ((guint)in[6] << 8 | in[7], ==, 8 * 1101);
  answer = command (&model, A, "5e 00 00 00 00 00 00 ff ff 00", in, 65536);
  g_assert_cmpuint (answer.in_length, ==, 8 + 8 * 1101);
  g_assert_cmphex (in[15], ==, 0xa);
  g_assert_cmphex (in[8 + 8 * 1101 - 1], ==, 0xc);
  answer = command (&model, A, READ_FULL_STATUS, in, 65536);
  g_assert_cmpuint (answer.in_length, ==, 8192);
  g_assert_cmphex ((guint)in[5] << 16 | (guint)in[6] << 8 | in[7], ==, 48 * 1101);
  model.quirks = HF_MODEL_LIO;
  answer = command (&model, A, READ_FULL_STATUS, in, 65536);
  g_assert_cmpuint (answer.in_length, ==, 8 + 48 * 170);
  g_assert_cmphex ((guint)in[5] << 16 | (guint)in[6] << 8 | in[7], ==, 48 * 170);
  hf_model_pr_out (&model, A, CLEAR, KA, 0, 0);
  g_assert_cmpuint (model.n_crowd, ==, 0);
}

static void
test_read_reservation (void)
{
  static const guint8 none[] = { 0, 0, 0, 0, 0, 0, 0, 0 };
  static const guint8 type_5[] = { 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0xa, 0, 0, 0, 0, 0, 5, 0, 0 };
  static const guint8 type_7[] = { 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0 };
  guint8 in[64];
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_TGT, 2);
  answer = command (&model, A, READ_RESERVATION, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, none, sizeof none);
  hf_model_set_key (&model, A, KA);
  hf_model_set_reservation (&model, A, 5);
  answer = command (&model, B, READ_RESERVATION, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, type_5, sizeof type_5);
  hf_model_set_reservation (&model, A, 7);
  answer = command (&model, B, READ_RESERVATION, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, type_7, sizeof type_7);
}

static void
test_read_full_status (void)
{
  guint8 in[256];
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 3);
  hf_model_set_key (&model, A, KA);
  hf_model_set_key (&model, C, KC);
  hf_model_set_reservation (&model, C, 6);
  answer = command (&model, B, READ_FULL_STATUS, in, sizeof in);
  g_assert_cmpuint (answer.in_length, ==, 8 + 2 * 48);
  g_assert_cmphex (in[7], ==, 2 * 48);
  g_assert_cmphex (in[8 + 7], ==, 0xa);
  g_assert_cmphex (in[8 + 12], ==, 0);       /* not the holder */
  g_assert_cmphex (in[8 + 19], ==, 1);       /* port */
  g_assert_cmphex (in[8 + 23], ==, 24);      /* TransportID */
  g_assert_cmphex (in[8 + 24], ==, 6);       /* SAS */
  g_assert_cmphex (in[56 + 12], ==, 1);      /* holder */
  g_assert_cmphex (in[56 + 13], ==, 6);      /* type */
  g_assert_cmphex (in[56 + 24 + 11], ==, C); /* the last byte of the address */
  hf_model_set_reservation (&model, C, 8);
  command (&model, B, READ_FULL_STATUS, in, sizeof in);
  g_assert_cmphex (in[8 + 12], ==, 1); /* every registrant holds */
  model.refuse_full_status = TRUE;
  assert_command (&model, B, READ_FULL_STATUS, CHECK (5, 0x2000));
  model.quirks = HF_MODEL_TGT;
  assert_command (&model, B, READ_FULL_STATUS, CHECK (5, 0x2400));
}

static void
test_report_capabilities (void)
{
  static const guint8 lio[] = { 0x00, 0x08, 0x1d, 0x90, 0xea, 0x01, 0, 0 };
  static const guint8 lio_active[] = { 0x00, 0x08, 0x1d, 0x91, 0xea, 0x01, 0, 0 };
  static const guint8 tgt[] = { 0x00, 0x08, 0x00, 0x80, 0xea, 0x01, 0, 0 };
  guint8 in[16];
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 1);
  answer = command (&model, A, REPORT_CAPABILITIES, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, lio, sizeof lio);
  model.aptpl = TRUE;
  answer = command (&model, A, REPORT_CAPABILITIES, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, lio_active, sizeof lio_active);
  hf_model_init (&model, HF_MODEL_TGT, 1);
  answer = command (&model, A, REPORT_CAPABILITIES, in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, tgt, sizeof tgt);
}

/* One flag for the LU, and the last REGISTER of any nexus sets it. */
static HfModelAnswer
register_flags (HfModel *model, guint nexus, guint8 key, guint8 new_key, guint8 flags)
{
  static const guint8 cdb[10] = { 0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0 };
  guint8 list[24] = { [7] = key, [15] = new_key, [20] = flags };

  return hf_model_execute (model, nexus, cdb, sizeof cdb, list, sizeof list, NULL, 0);
}

static void
test_aptpl (void)
{
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 2);
  register_flags (&model, A, 0, KA, 1);
  g_assert_true (model.aptpl);
  register_flags (&model, B, 0, KB, 0);
  g_assert_false (model.aptpl);
  register_flags (&model, B, KB, KB, 1);
  g_assert_true (model.aptpl);
  register_flags (&model, A, KA, 0, 0); /* an unregister too */
  g_assert_false (model.aptpl);
  register_flags (&model, B, KB, KB, 1);
  hf_model_pr_out (&model, B, CLEAR, KB, 0, 0);
  g_assert_false (model.aptpl);
  hf_model_init (&model, HF_MODEL_TGT, 2);
  answer = register_flags (&model, A, 0, KA, 1);
  g_assert_cmphex (answer_code (&answer), ==, CHECK (5, 0x2400));
}

/* LIO without its folder: executed, and then not ready. */
static void
test_aptpl_store (void)
{
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 1);
  model.no_aptpl_store = TRUE;
  answer = register_flags (&model, A, 0, KA, 1);
  g_assert_cmphex (answer_code (&answer), ==, CHECK (2, 0x0800));
  g_assert_true (model.nexuses[A].registered);
}

static void
test_all_tg_pt (void)
{
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 1);
  register_flags (&model, A, 0, KA, 4);
  answer = register_flags (&model, A, KA, 0, 0);
  g_assert_cmphex (answer_code (&answer), ==, CHECK (5, 0x2400));
  g_assert_cmphex (model.nexuses[A].key, ==, KA);
  answer = register_flags (&model, A, KA, 0, 4);
  g_assert_cmphex (answer_code (&answer), ==, GOOD);
  g_assert_false (model.nexuses[A].registered);
}

/* A unit attention answers once, in order, before anything but INQUIRY, and before a conflict. */
static void
test_unit_attentions (void)
{
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 2);
  hf_model_set_key (&model, B, KB);
  hf_model_set_reservation (&model, B, 3);
  hf_model_raise_unit_attention (&model, A, 0x2a05);
  hf_model_raise_unit_attention (&model, A, 0x2a03);
  assert_command (&model, A, "12 01 83 00 ff 00", GOOD);
  assert_command (&model, A, READ_RESERVATION, CHECK (6, 0x2a05));
  assert_command (&model, A, READ_ONE, CHECK (6, 0x2a03));
  assert_command (&model, A, READ_ONE, CONFLICT);
}

/* SCSI-2 and persistent reservations keep each other out. */
static void
test_scsi2 (void)
{
  HfModel model;

  hf_model_init (&model, HF_MODEL_SPC, 2);
  assert_command (&model, A, RESERVE_6, GOOD);
  assert_command (&model, B, RESERVE_6, CONFLICT);
  assert_command (&model, A, READ_KEYS, CONFLICT);
  assert_command (&model, B, READ_ONE, CONFLICT);
  assert_command (&model, B, TEST_UNIT_READY, CONFLICT);
  assert_command (&model, B, "12 00 00 00 24 00", GOOD);
  assert_command (&model, B, RELEASE_6, GOOD); /* without effect */
  assert_command (&model, B, READ_ONE, CONFLICT);
  assert_command (&model, A, RELEASE_6, GOOD);
  assert_command (&model, B, READ_ONE, GOOD);
  hf_model_set_key (&model, A, KA);
  assert_command (&model, B, RESERVE_6, CONFLICT);
  hf_model_set_reservation (&model, A, 5);
  assert_command (&model, A, RESERVE_6, GOOD);
  g_assert_cmpint (model.scsi2_holder, ==, NOBODY);
}

static HfModelAnswer
register_and_move (HfModel *model, guint from, guint64 key, guint to, guint8 flags)
{
  static const guint8 cdb[10] = { 0x5f, 7, 0, 0, 0, 0, 0, 0, 48, 0 };
  guint8 list[48] = { [7] = (guint8)key, [15] = (guint8)key, [17] = flags, [19] = 1, [23] = 24 };

  memcpy (list + 24, model->nexuses[to].id.transport_id.bytes, 24);
  return hf_model_execute (model, from, cdb, sizeof cdb, list, sizeof list, NULL, 0);
}

static void
test_register_and_move (void)
{
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 3);
  hf_model_set_key (&model, A, KA);
  hf_model_set_reservation (&model, A, 7);
  answer = register_and_move (&model, A, KA, B, 0);
  g_assert_cmphex (answer_code (&answer), ==, CONFLICT);
  hf_model_set_reservation (&model, A, 3);
  answer = register_and_move (&model, A, KA, B, 2);
  g_assert_cmphex (answer_code (&answer), ==, GOOD);
  assert_state (&model, "UNREG", (const guint64[3]){ 0, KA, 0 }, B, 3, 1);
  answer = register_and_move (&model, B, KA, B, 0);
  g_assert_cmphex (answer_code (&answer), ==, CHECK (5, 0x2600));
  model.quirks = HF_MODEL_TGT;
  answer = register_and_move (&model, B, KA, A, 0);
  g_assert_cmphex (answer_code (&answer), ==, CONFLICT); /* not registered before */
}

static void
test_list_lengths (void)
{
  guint8 cdb[10] = { 0x5f, 0, 0, 0, 0, 0, 0, 0, 23, 0 };
  guint8 list[32] = { [15] = 1 };
  HfModelAnswer answer;
  HfModel model;

  for (guint quirks = 0; quirks < HF_N_MODEL_QUIRKS; quirks++)
    for (guint length = 0; length <= 32; length++) {
      hf_model_init (&model, quirks, 1);
      cdb[8] = (guint8)length;
      answer = hf_model_execute (&model, A, cdb, sizeof cdb, list, length, NULL, 0);
      g_assert_cmphex (answer_code (&answer), ==,
                       length == 24             ? GOOD
                       : quirks == HF_MODEL_TGT ? CHECK (5, 0x2400)
                                                : CHECK (5, 0x1a00));
    }
}

/* tgt takes a new login for a new nexus: the key stays listed with nobody behind it, until PREEMPT (K, K). */
static void
test_relogin (void)
{
  HfModel model;
  guint fresh;

  hf_model_init (&model, HF_MODEL_LIO, 2);
  g_assert_cmpuint (hf_model_relogin (&model, A), ==, A);
  hf_model_init (&model, HF_MODEL_TGT, 2);
  hf_model_set_key (&model, A, KA);
  hf_model_set_reservation (&model, A, 5);
  fresh = hf_model_relogin (&model, A);
  g_assert_cmpuint (fresh, ==, 2);
  assert_command (&model, fresh, WRITE_NOTHING, CONFLICT);
  hf_model_pr_out (&model, fresh, IGNORE, 0, KA, 0);
  g_assert_cmpuint (hf_model_count_key (&model, KA), ==, 2);
  hf_model_pr_out (&model, fresh, PREEMPT, KA, KA, 5);
  g_assert_cmpuint (hf_model_count_key (&model, KA), ==, 1);
  g_assert_true (hf_model_is_holder (&model, fresh));
}

/* LIO: when the internal holder of types 7, 8 leaves, the oldest registrant follows. */
static void
test_internal_holder (void)
{
  HfModel model;

  hf_model_init (&model, HF_MODEL_LIO, 3);
  hf_model_set_key (&model, C, KC);
  hf_model_set_key (&model, A, KA);
  hf_model_set_key (&model, B, KB);
  hf_model_set_reservation (&model, A, 8);
  hf_model_pr_out (&model, A, REGISTER, KA, 0, 0);
  g_assert_cmpint (model.holder, ==, C);
  g_assert_cmpuint (model.type, ==, 8);
  g_assert_true (hf_model_is_holder (&model, B));
}

static void
test_inquiry (void)
{
  static const guint8 page[] = { 0,    0x83, 0,    20,   0x01, 0x03, 0, 8,    0x60, 0x01, 0x40, 0x5a,
                                 0x0b, 0x0c, 0x0d, 0x0e, 0x01, 0x14, 0, 0x04, 0,    0,    0,    1 };
  guint8 in[64];
  HfModelAnswer answer;
  HfModel model;

  hf_model_init (&model, HF_MODEL_SPC, 1);
  answer = command (&model, A, "12 01 83 00 40 00", in, sizeof in);
  g_assert_cmpmem (in, answer.in_length, page, sizeof page);
  answer = command (&model, A, "12 01 80 00 40 00", in, sizeof in);
  g_assert_cmpuint (answer.in_length, ==, 8);
  assert_command (&model, A, "12 01 b0 00 40 00", CHECK (5, 0x2400));
  assert_command (&model, A, "03 00 00 00 12 00", CHECK (5, 0x2000));
}

int
main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/spc-model/register", test_register);
  g_test_add_func ("/spc-model/reserve", test_reserve);
  g_test_add_func ("/spc-model/preempt", test_preempt);
  g_test_add_func ("/spc-model/access", test_access);
  g_test_add_func ("/spc-model/data", test_data);
  g_test_add_func ("/spc-model/read-keys", test_read_keys);
  g_test_add_func ("/spc-model/long-lists", test_long_lists);
  g_test_add_func ("/spc-model/read-reservation", test_read_reservation);
  g_test_add_func ("/spc-model/read-full-status", test_read_full_status);
  g_test_add_func ("/spc-model/report-capabilities", test_report_capabilities);
  g_test_add_func ("/spc-model/aptpl", test_aptpl);
  g_test_add_func ("/spc-model/aptpl-store", test_aptpl_store);
  g_test_add_func ("/spc-model/all-tg-pt", test_all_tg_pt);
  g_test_add_func ("/spc-model/unit-attentions", test_unit_attentions);
  g_test_add_func ("/spc-model/scsi2", test_scsi2);
  g_test_add_func ("/spc-model/register-and-move", test_register_and_move);
  g_test_add_func ("/spc-model/list-lengths", test_list_lengths);
  g_test_add_func ("/spc-model/relogin", test_relogin);
  g_test_add_func ("/spc-model/internal-holder", test_internal_holder);
  g_test_add_func ("/spc-model/inquiry", test_inquiry);
  return g_test_run ();
}
