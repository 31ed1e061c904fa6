/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Owns: server, store, links, control socket and metrics, and the order of their start and end. Thread: main.
 *
 * Theory of operation: everything that happens to a VM is one event; who wants to know is in a list: the log, the control
 * socket's watchers, the metrics. A VM that comes or goes is told to the links, which have a bus and a monitor for each.
 */
#include "config.h"

#include "prhelper/service.h"

#include "prhelper/log.h"
#include "prhelper/metrics.h"
#include "prhelper/vm-control.h"

enum { WATCH_LOG, WATCH_CONTROL, WATCH_METRICS, N_WATCHES };

struct _HfService {
  HfServer *server;
  HfStore *store;
  HfLinks *links;
  HfControl *control;
  HfVmControl control_rules;
  HfMetrics *metrics;
  HfVmWatch watches[N_WATCHES + 1];
};

/* What the guest itself sends is logged where it is answered. */
static void
log_event (HfVm *vm, const HfVmEvent *event, gpointer user_data)
{
  HfLogLevel level = event->warning ? HF_LOG_WARNING : HF_LOG_NOTICE;

  if (event->guest && !event->warning)
    return;
  hf_log_event (level, &(HfLogFields){ .vm = hf_vm_get_name (vm),
                                       .pid = hf_vm_get_peer (vm)->pid,
                                       .lu = event->lu,
                                       .operation = event->operation,
                                       .result = event->result });
}

static void
on_lifecycle (HfVm *vm, gboolean alive, gpointer user_data)
{
  HfService *service = user_data;

  if (service->links)
    hf_links_vm (service->links, vm, alive);
}

HfService *
hf_service_new (HfListener *listener, HfListener *control, HfStore *store, const HfServiceRules *rules,
                void (*ended) (gpointer user_data), gpointer user_data, GError **error)
{
  HfService *service = g_new0 (HfService, 1);
  HfVms *vms;

  service->store = store;
  service->server = hf_server_new (listener, &rules->server, store, ended, user_data);
  vms = hf_server_get_vms (service->server);
  service->control_rules = (HfVmControl){ .vms = vms, .on_change = rules->links.on_change };
  if (control)
    service->control = hf_control_new (control, hf_vm_control_methods, &service->control_rules);
  if (rules->metrics)
    service->metrics = hf_metrics_new (rules->metrics, vms);
  service->watches[WATCH_LOG] = (HfVmWatch){ log_event, NULL };
  service->watches[WATCH_CONTROL] = (HfVmWatch){ hf_vm_control_event, service->control };
  service->watches[WATCH_METRICS] = (HfVmWatch){ hf_metrics_event, service->metrics };
  hf_vms_set_watchers (vms, service->watches);
  if (!hf_vms_restore (vms, error)) {
    hf_service_free (service);
    return NULL;
  }
  service->links = hf_links_new (&rules->links, vms);
  hf_vms_set_lifecycle (vms, on_lifecycle, service);
  return service;
}

void
hf_service_stop (HfService *service)
{
  hf_server_stop (service->server);
}

void
hf_service_free (HfService *service)
{
  if (!service)
    return;
  /* What ends now is told to nobody. */
  hf_vms_set_watchers (hf_server_get_vms (service->server), NULL);
  hf_vms_set_lifecycle (hf_server_get_vms (service->server), NULL, NULL);
  hf_links_free (service->links);
  hf_control_free (service->control);
  hf_metrics_free (service->metrics);
  hf_server_free (service->server);
  hf_store_free (service->store);
  g_free (service);
}
