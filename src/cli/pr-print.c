/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owns: how the answers to PERSISTENT RESERVE IN are shown. Thread: any; pure. */
#include "config.h"

#include "cli/pr-print.h"

#include <scsi/sg_lib.h>

static void
print_count (guint n, GString *text)
{
  if (n == 0)
    g_string_append (text, "there are NO registered reservation keys\n");
  else if (n == 1)
    g_string_append (text, "1 registered reservation key follows:\n");
  else
    g_string_append_printf (text, "%u registered reservation keys follow:\n", n);
}

void
hf_pr_print_keys (const HfPrKeys *keys, GString *text, JsonObject *object)
{
  JsonArray *array = json_array_new ();

  g_string_append_printf (text, "  PR generation=0x%x, ", keys->generation);
  print_count (keys->n_keys, text);
  for (guint i = 0; i < keys->n_keys; i++) {
    g_autofree char *key = g_strdup_printf ("0x%" G_GINT64_MODIFIER "x", keys->keys[i]);
    g_string_append_printf (text, "    %s\n", key);
    json_array_add_string_element (array, key);
  }
  json_object_set_int_member (object, "generation", keys->generation);
  json_object_set_array_member (object, "keys", array);
}

static void
print_scope_and_type (guint8 scope, guint8 type, GString *text)
{
  if (scope == 0)
    g_string_append (text, "scope: LU_SCOPE, ");
  else
    g_string_append_printf (text, "scope: %u ", scope);
  g_string_append_printf (text, " type: %s\n", hf_pr_type_to_string (type));
}

void
hf_pr_print_reservation (const HfPrReservation *reservation, GString *text, JsonObject *object)
{
  g_string_append_printf (text, "  PR generation=0x%x, ", reservation->generation);
  if (reservation->reserved) {
    g_string_append_printf (text, "Reservation follows:\n    Key=0x%" G_GINT64_MODIFIER "x\n    ", reservation->key);
    print_scope_and_type (reservation->scope, reservation->type, text);
  } else {
    g_string_append (text, "there is NO reservation held\n");
  }
  json_object_set_int_member (object, "generation", reservation->generation);
  hf_json_set_reservation (object, "reservation", reservation->reserved, reservation->key, reservation->type, reservation->scope);
}

static void
print_type_mask (const HfPrCapabilities *capabilities, GString *text, JsonObject *object)
{
  /* In the order of the mask's bits (SPC-4 6.15.4), as sg_persist prints them. */
  static const guint8 order[] = { 7, 6, 5, 3, 1, 8 };
  JsonArray *types = json_array_new ();

  if (capabilities->type_mask_valid)
    g_string_append (text, "    Support indicated in Type mask:\n");
  for (guint i = 0; capabilities->type_mask_valid && i < G_N_ELEMENTS (order); i++) {
    guint8 type = order[i];
    gboolean supported = (capabilities->type_mask >> type) & 1;
    g_string_append_printf (text, "      %s: %d\n", hf_pr_type_to_string (type), supported);
    if (supported)
      json_array_add_int_element (types, type);
  }
  json_object_set_array_member (object, "types", types);
}

void
hf_pr_print_capabilities (const HfPrCapabilities *capabilities, GString *text, JsonObject *object)
{
  const struct {
    const char *text, *name;
    gboolean value;
  } flags[] = {
    { "Replace Lost Reservation Capable(RLR_C)", "rlr_c", capabilities->replace_lost_reservation_capable },
    { "Compatible Reservation Handling(CRH)", "crh", capabilities->compatible_reservation_handling },
    { "Specify Initiator Ports Capable(SIP_C)", "sip_c", capabilities->specify_initiator_ports_capable },
    { "All Target Ports Capable(ATP_C)", "atp_c", capabilities->all_target_ports_capable },
    { "Persist Through Power Loss Capable(PTPL_C)", "ptpl_c", capabilities->persist_through_power_loss_capable },
    { "Type Mask Valid(TMV)", "tmv", capabilities->type_mask_valid },
    { "Persist Through Power Loss Active(PTPL_A)", "ptpl_a", capabilities->persist_through_power_loss_activated },
  };
  JsonObject *member = json_object_new ();

  g_string_append (text, "Report capabilities response:\n");
  for (guint i = 0; i < G_N_ELEMENTS (flags); i++) {
    /* ALLOW COMMANDS stands between TMV and PTPL_A in the answer. */
    if (i == G_N_ELEMENTS (flags) - 1)
      g_string_append_printf (text, "  Allow Commands: %u\n", capabilities->allow_commands);
    g_string_append_printf (text, "  %s: %d\n", flags[i].text, flags[i].value ? 1 : 0);
    json_object_set_boolean_member (member, flags[i].name, flags[i].value);
  }
  json_object_set_int_member (member, "allow_commands", capabilities->allow_commands);
  print_type_mask (capabilities, text, member);
  json_object_set_object_member (object, "capabilities", member);
}

/* The lines of libsgutils2, whatever bytes a target put into its names. */
static void
append_printable (GString *text, const char *lines)
{
  for (; *lines != '\0'; lines++)
    g_string_append_c (text, g_ascii_isprint (*lines) || *lines == '\n' ? *lines : '?');
}

static void
print_registrant (const HfPrRegistrant *registrant, GString *text, JsonArray *array)
{
  const HfTransportId *id = &registrant->nexus.transport_id;
  char initiator[HF_TRANSPORT_ID_MAX * 4] = "      Transport Id of initiator: unknown\n";
  JsonObject *object = json_object_new ();

  g_string_append_printf (text, "    Key=0x%" G_GINT64_MODIFIER "x\n", registrant->key);
  g_string_append_printf (text, "      All target ports bit %s\n", registrant->all_tg_pt ? "set" : "clear");
  g_string_append_printf (text, "      Relative port address: 0x%x\n", registrant->nexus.relative_target_port);
  if (registrant->holder) {
    g_string_append (text, "      << Reservation holder >>\n      ");
    print_scope_and_type (registrant->scope, registrant->type, text);
  } else {
    g_string_append (text, "      not reservation holder\n");
  }
  if (id->length != 0)
    sg_decode_transportid_str ("      ", (guint8 *)id->bytes, id->length, true, sizeof initiator, initiator);
  append_printable (text, initiator);

  hf_json_set_hex (object, "key", registrant->key);
  hf_json_set_nexus (object, &registrant->nexus);
  json_object_set_boolean_member (object, "holder", registrant->holder);
  json_object_set_boolean_member (object, "all_tg_pt", registrant->all_tg_pt);
  json_object_set_int_member (object, "type", registrant->type);
  json_object_set_int_member (object, "scope", registrant->scope);
  json_array_add_object_element (array, object);
}

void
hf_pr_print_full_status (const HfPrFullStatus *status, GString *text, JsonObject *object)
{
  JsonArray *array = json_array_new ();

  g_string_append_printf (text, "  PR generation=0x%x\n", status->generation);
  if (status->n_registrants == 0)
    g_string_append (text, "  No full status descriptors\n");
  for (guint i = 0; i < status->n_registrants; i++)
    print_registrant (&status->registrants[i], text, array);
  json_object_set_int_member (object, "generation", status->generation);
  json_object_set_array_member (object, "registrants", array);
}
