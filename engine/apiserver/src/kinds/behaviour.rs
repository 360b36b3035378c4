//! Which rules each built-in kind follows.

use serde_json::Value;

use crate::kind::NameRule;
use crate::kinds::rules::Rules;
use crate::kinds::value::text;
use crate::kinds::{apps, check, convert, core, pod, print, service, warn};

pub(crate) const POD: Rules = Rules {
    default: pod::default_pod,
    create: pod::prepare_create,
    check: check::pod,
    check_update: check::pod_update,
    warn: warn::pod,
    columns: print::pod_columns,
    row: print::pod_row,
    fields: pod::fields,
    grace: pod::grace,
    ..Rules::STORED
};
pub(crate) const POD_TEMPLATE: Rules = Rules { default: apps::default_pod_template, ..Rules::STORED };
pub(crate) const SERVICE: Rules = Rules {
    name: NameRule::Dns1035,
    default: service::default_service,
    check: check::service,
    columns: print::service_columns,
    row: print::service_row,
    fields: |o| at(o, &[("spec.clusterIP", "/spec/clusterIP"), ("spec.type", "/spec/type")]),
    ..Rules::STORED
};
pub(crate) const CONFIG_MAP: Rules = Rules {
    check: check::config_map,
    check_update: check::immutable_data,
    columns: print::config_map_columns,
    row: print::config_map_row,
    ..Rules::STORED
};
pub(crate) const SECRET: Rules = Rules {
    default: core::default_secret,
    check: check::secret,
    check_update: check::secret_update,
    columns: print::secret_columns,
    row: print::secret_row,
    fields: |o| at(o, &[("type", "/type")]),
    ..Rules::STORED
};
pub(crate) const ENDPOINTS: Rules = Rules {
    default: core::default_endpoints,
    check: check::endpoints,
    warn: warn::endpoints,
    columns: print::endpoints_columns,
    row: print::endpoints_row,
    create_on_update: true,
    ..Rules::STORED
};
pub(crate) const EVENT: Rules = Rules {
    default: core::default_event,
    columns: print::event_columns,
    row: print::event_row,
    fields: |o| {
        at(
            o,
            &[
                ("involvedObject.kind", "/involvedObject/kind"),
                ("involvedObject.namespace", "/involvedObject/namespace"),
                ("involvedObject.name", "/involvedObject/name"),
                ("involvedObject.uid", "/involvedObject/uid"),
                ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
                ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
                ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
                ("reason", "/reason"),
                ("reportingComponent", "/reportingComponent"),
                ("source", "/source/component"),
                ("type", "/type"),
            ],
        )
    },
    create_on_update: true,
    ..Rules::STORED
};
pub(crate) const NEW_EVENT: Rules = Rules {
    default: |_| {},
    row: print::new_event_row,
    fields: |o| at(o, &[("reason", "/reason"), ("type", "/type"), ("regarding.name", "/regarding/name")]),
    from_storage: convert::event_from_core,
    to_storage: convert::event_to_core,
    ..EVENT
};
pub(crate) const LIMIT_RANGE: Rules = Rules {
    default: core::default_limit_range,
    check: check::limit_range,
    columns: print::limit_range_columns,
    row: print::limit_range_row,
    ..Rules::STORED
};
pub(crate) const RESOURCE_QUOTA: Rules = Rules {
    check: check::resource_quota,
    columns: print::quota_columns,
    row: print::quota_row,
    ..Rules::STORED
};
pub(crate) const NAMESPACE: Rules = Rules {
    name: NameRule::Label,
    default: core::default_namespace,
    create: core::prepare_namespace,
    check: check::namespace,
    columns: print::namespace_columns,
    row: print::namespace_row,
    fields: |o| at(o, &[("status.phase", "/status/phase")]),
    ..Rules::STORED
};
pub(crate) const NODE: Rules = Rules {
    default: core::default_node,
    check: check::node,
    check_update: check::node_update,
    columns: print::node_columns,
    row: print::node_row,
    fields: |o| {
        let on = o.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false);
        vec![("spec.unschedulable", on.to_string())]
    },
    ..Rules::STORED
};
pub(crate) const CLAIM: Rules = Rules {
    default: core::default_claim,
    check: check::claim,
    check_update: check::claim_update,
    columns: print::claim_columns,
    row: print::claim_row,
    ..Rules::STORED
};
pub(crate) const VOLUME: Rules = Rules {
    default: core::default_volume,
    check: check::persistent_volume,
    check_update: check::persistent_volume_update,
    columns: print::volume_columns,
    row: print::volume_row,
    ..Rules::STORED
};
pub(crate) const SERVICE_ACCOUNT: Rules =
    Rules { columns: print::account_columns, row: print::account_row, ..Rules::STORED };
pub(crate) const REPLICATION_CONTROLLER: Rules = Rules {
    default: apps::default_replication_controller,
    check: check::replication_controller,
    warn: warn::workload,
    columns: print::replica_columns,
    row: print::replica_row,
    fields: |o| vec![("status.replicas", number(o, "/status/replicas"))],
    scaled: true,
    ..Rules::STORED
};
pub(crate) const REPLICA_SET: Rules = Rules {
    default: apps::default_replica_set,
    check: check::replica_set,
    check_update: check::selector_immutable,
    ..REPLICATION_CONTROLLER
};
pub(crate) const DEPLOYMENT: Rules = Rules {
    default: apps::default_deployment,
    check: check::deployment,
    warn: warn::workload,
    check_update: check::selector_immutable,
    columns: print::deployment_columns,
    row: print::deployment_row,
    scaled: true,
    ..Rules::STORED
};
pub(crate) const STATEFUL_SET: Rules = Rules {
    default: apps::default_stateful_set,
    check: check::stateful_set,
    warn: warn::workload,
    check_update: check::stateful_set_update,
    columns: print::stateful_columns,
    row: print::stateful_row,
    scaled: true,
    ..Rules::STORED
};
pub(crate) const DAEMON_SET: Rules = Rules {
    default: apps::default_daemon_set,
    check: check::daemon_set,
    warn: warn::workload,
    check_update: check::selector_immutable,
    columns: print::daemon_columns,
    row: print::daemon_row,
    ..Rules::STORED
};
pub(crate) const CONTROLLER_REVISION: Rules =
    Rules { columns: print::revision_columns, row: print::revision_row, ..Rules::STORED };
pub(crate) const JOB: Rules = Rules {
    default: apps::default_job,
    create: apps::prepare_job,
    check: check::job,
    warn: warn::workload,
    check_update: check::job_update,
    columns: print::job_columns,
    row: print::job_row,
    ..Rules::STORED
};
pub(crate) const CRON_JOB: Rules = Rules {
    default: apps::default_cron_job,
    check: check::cron_job,
    warn: warn::cron_job,
    columns: print::cron_columns,
    row: print::cron_row,
    ..Rules::STORED
};
pub(crate) const AUTOSCALER: Rules = Rules {
    default: core::default_autoscaler,
    check: check::autoscaler,
    columns: print::autoscaler_columns,
    row: print::autoscaler_row,
    ..Rules::STORED
};
pub(crate) const AUTOSCALER_V1: Rules = Rules {
    default: |_| {},
    from_storage: convert::autoscaler_from_v2,
    to_storage: convert::autoscaler_to_v2,
    row: |o, now| {
        let mut v2 = o.clone();
        convert::autoscaler_to_v2(&mut v2);
        print::autoscaler_row(&v2, now)
    },
    ..AUTOSCALER
};
pub(crate) const DISRUPTION_BUDGET: Rules = Rules {
    check: check::disruption_budget,
    columns: print::budget_columns,
    row: print::budget_row,
    ..Rules::STORED
};
pub(crate) const INGRESS: Rules = Rules {
    check: check::ingress,
    columns: print::ingress_columns,
    row: print::ingress_row,
    ..Rules::STORED
};
pub(crate) const INGRESS_CLASS: Rules = Rules {
    default: core::default_ingress_class,
    columns: print::ingress_class_columns,
    row: print::ingress_class_row,
    ..Rules::STORED
};
pub(crate) const NETWORK_POLICY: Rules = Rules {
    default: core::default_network_policy,
    check: check::network_policy,
    columns: print::policy_columns,
    row: print::policy_row,
    ..Rules::STORED
};
pub(crate) const ROLE: Rules = Rules {
    name: NameRule::PathSegment,
    default: core::default_role,
    check: check::role,
    columns: print::role_columns,
    row: print::role_row,
    ..Rules::STORED
};
pub(crate) const BINDING: Rules = Rules {
    name: NameRule::PathSegment,
    default: core::default_role_ref_subjects,
    check: check::binding,
    check_update: check::binding_update,
    columns: print::binding_columns,
    row: print::binding_row,
    ..Rules::STORED
};
pub(crate) const STORAGE_CLASS: Rules = Rules {
    default: core::default_storage_class,
    check: check::storage_class,
    check_update: check::storage_class_update,
    columns: print::storage_class_columns,
    row: print::storage_class_row,
    ..Rules::STORED
};
pub(crate) const CSI_DRIVER: Rules = Rules {
    default: core::default_csi_driver,
    columns: print::csi_driver_columns,
    row: print::csi_driver_row,
    ..Rules::STORED
};
pub(crate) const CSI_NODE: Rules =
    Rules { columns: print::csi_node_columns, row: print::csi_node_row, ..Rules::STORED };
pub(crate) const LEASE: Rules = Rules {
    check: check::lease,
    columns: print::lease_columns,
    row: print::lease_row,
    create_on_update: true,
    ..Rules::STORED
};
pub(crate) const ENDPOINT_SLICE: Rules = Rules {
    default: core::default_endpoint_slice,
    check: check::endpoint_slice,
    check_update: check::endpoint_slice_update,
    columns: print::slice_columns,
    row: print::slice_row,
    ..Rules::STORED
};
pub(crate) const PRIORITY_CLASS: Rules = Rules {
    default: core::default_priority_class,
    check: check::priority_class,
    check_update: check::priority_class_update,
    columns: print::priority_columns,
    row: print::priority_row,
    ..Rules::STORED
};
pub(crate) const RUNTIME_CLASS: Rules =
    Rules { columns: print::runtime_columns, row: print::runtime_row, ..Rules::STORED };
pub(crate) const WEBHOOKS: Rules = Rules {
    default: core::default_webhooks,
    columns: print::webhook_columns,
    row: print::webhook_row,
    ..Rules::STORED
};
pub(crate) const ADMISSION_POLICY: Rules = Rules { default: core::default_admission_policy, ..Rules::STORED };
pub(crate) const ADMISSION_BINDING: Rules =
    Rules { default: core::default_admission_binding, ..Rules::STORED };
pub(crate) const CRD: Rules = Rules {
    default: core::default_crd,
    check: check::crd,
    columns: print::crd_columns,
    row: print::crd_row,
    ..Rules::STORED
};
pub(crate) const API_SERVICE: Rules = Rules {
    name: NameRule::PathSegment,
    default: core::default_api_service,
    columns: print::api_service_columns,
    row: print::api_service_row,
    ..Rules::STORED
};
pub(crate) const SIGNING_REQUEST: Rules = Rules {
    default: core::default_signing_request,
    columns: print::signing_columns,
    row: print::signing_row,
    ..Rules::STORED
};
pub(crate) const FLOW_SCHEMA: Rules = Rules { default: core::default_flow_schema, ..Rules::STORED };
pub(crate) const PRIORITY_LEVEL: Rules = Rules { default: core::default_priority_level, ..Rules::STORED };

fn at(object: &Value, fields: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    fields.iter().map(|(name, pointer)| (*name, text(object, pointer).to_owned())).collect()
}

fn number(object: &Value, pointer: &str) -> String {
    crate::kinds::value::integer(object, pointer).unwrap_or(0).to_string()
}
