//! What `kubectl create` makes of flags and sends as protobuf: workloads, services, quotas, budgets, priorities.

use super::kinds::{Field, Kind, OBJECT_META, many, one, with_spec};

const NOTHING: &[Field] = &[];
const REQUIREMENT: &[Field] =
    &[one(1, "key", Kind::Text), one(2, "operator", Kind::Text), many(3, "values", Kind::Text)];
const SELECTOR: &[Field] =
    &[one(1, "matchLabels", Kind::TextMap), many(2, "matchExpressions", Kind::Message(REQUIREMENT))];
const PORT: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "hostPort", Kind::Count),
    one(3, "containerPort", Kind::Count),
    one(4, "protocol", Kind::Text),
    one(5, "hostIP", Kind::Text),
];
const KEY_OF: &[Field] = &[
    one(1, "", Kind::Inline(&[one(1, "name", Kind::Text)])),
    one(2, "key", Kind::Text),
    one(3, "optional", Kind::Flag),
];
const FIELD_OF: &[Field] = &[one(1, "apiVersion", Kind::Text), one(2, "fieldPath", Kind::Text)];
const VALUE_FROM: &[Field] = &[
    one(1, "fieldRef", Kind::Message(FIELD_OF)),
    one(3, "configMapKeyRef", Kind::Message(KEY_OF)),
    one(4, "secretKeyRef", Kind::Message(KEY_OF)),
];
const ENV: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "value", Kind::Text),
    one(3, "valueFrom", Kind::Message(VALUE_FROM)),
];
const RESOURCES: &[Field] = &[one(1, "limits", Kind::QuantityMap), one(2, "requests", Kind::QuantityMap)];
const CONTAINER: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "image", Kind::Text),
    many(3, "command", Kind::Text),
    many(4, "args", Kind::Text),
    one(5, "workingDir", Kind::Text),
    many(6, "ports", Kind::Message(PORT)),
    many(7, "env", Kind::Message(ENV)),
    one(8, "resources", Kind::Message(RESOURCES)),
    one(13, "terminationMessagePath", Kind::Text),
    one(14, "imagePullPolicy", Kind::Text),
    one(16, "stdin", Kind::Switch),
    one(17, "stdinOnce", Kind::Switch),
    one(18, "tty", Kind::Switch),
    one(20, "terminationMessagePolicy", Kind::Text),
];
const POD: &[Field] = &[
    many(2, "containers", Kind::Message(CONTAINER)),
    one(3, "restartPolicy", Kind::Text),
    one(4, "terminationGracePeriodSeconds", Kind::Number),
    one(5, "activeDeadlineSeconds", Kind::Number),
    one(6, "dnsPolicy", Kind::Text),
    one(7, "nodeSelector", Kind::TextMap),
    one(8, "serviceAccountName", Kind::Text),
    one(9, "serviceAccount", Kind::Text),
    one(10, "nodeName", Kind::Text),
    one(11, "hostNetwork", Kind::Switch),
    one(12, "hostPID", Kind::Switch),
    one(13, "hostIPC", Kind::Switch),
    // Only an empty one.
    one(14, "securityContext", Kind::Message(NOTHING)),
    one(16, "hostname", Kind::Text),
    one(17, "subdomain", Kind::Text),
    one(19, "schedulerName", Kind::Text),
    many(20, "initContainers", Kind::Message(CONTAINER)),
    one(21, "automountServiceAccountToken", Kind::Flag),
    one(24, "priorityClassName", Kind::Text),
];
const TEMPLATE: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "spec", Kind::Message(POD))];

const ROLLING: &[Field] =
    &[one(1, "maxUnavailable", Kind::IntOrString), one(2, "maxSurge", Kind::IntOrString)];
const STRATEGY: &[Field] = &[one(1, "type", Kind::Text), one(2, "rollingUpdate", Kind::Message(ROLLING))];
const DEPLOYMENT: &[Field] = &[
    one(1, "replicas", Kind::Number),
    one(2, "selector", Kind::Message(SELECTOR)),
    one(3, "template", Kind::Message(TEMPLATE)),
    one(4, "strategy", Kind::Message(STRATEGY)),
    one(5, "minReadySeconds", Kind::Count),
    one(6, "revisionHistoryLimit", Kind::Number),
    one(7, "paused", Kind::Switch),
    one(9, "progressDeadlineSeconds", Kind::Number),
];
const JOB: &[Field] = &[
    one(1, "parallelism", Kind::Number),
    one(2, "completions", Kind::Number),
    one(3, "activeDeadlineSeconds", Kind::Number),
    one(4, "selector", Kind::Message(SELECTOR)),
    one(5, "manualSelector", Kind::Flag),
    one(6, "template", Kind::Message(TEMPLATE)),
    one(7, "backoffLimit", Kind::Number),
    one(8, "ttlSecondsAfterFinished", Kind::Number),
    one(9, "completionMode", Kind::Text),
    one(10, "suspend", Kind::Flag),
    one(14, "podReplacementPolicy", Kind::Text),
];
const JOB_TEMPLATE: &[Field] =
    &[one(1, "metadata", Kind::Message(OBJECT_META)), one(2, "spec", Kind::Message(JOB))];
const CRON_JOB: &[Field] = &[
    one(1, "schedule", Kind::Text),
    one(2, "startingDeadlineSeconds", Kind::Number),
    one(3, "concurrencyPolicy", Kind::Text),
    one(4, "suspend", Kind::Flag),
    one(5, "jobTemplate", Kind::Message(JOB_TEMPLATE)),
    one(6, "successfulJobsHistoryLimit", Kind::Number),
    one(7, "failedJobsHistoryLimit", Kind::Number),
    one(8, "timeZone", Kind::Text),
];
const SCOPE_REQUIREMENT: &[Field] =
    &[one(1, "scopeName", Kind::Text), one(2, "operator", Kind::Text), many(3, "values", Kind::Text)];
const SCOPES: &[Field] = &[many(1, "matchExpressions", Kind::Message(SCOPE_REQUIREMENT))];
const QUOTA: &[Field] = &[
    one(1, "hard", Kind::QuantityMap),
    many(2, "scopes", Kind::Text),
    one(3, "scopeSelector", Kind::Message(SCOPES)),
];
const BUDGET: &[Field] = &[
    one(1, "minAvailable", Kind::IntOrString),
    one(2, "selector", Kind::Message(SELECTOR)),
    one(3, "maxUnavailable", Kind::IntOrString),
    one(4, "unhealthyPodEvictionPolicy", Kind::Text),
];
const PRIORITY_CLASS: &[Field] = &[
    one(1, "metadata", Kind::Message(OBJECT_META)),
    one(2, "value", Kind::Number),
    one(3, "globalDefault", Kind::Switch),
    one(4, "description", Kind::Text),
    one(5, "preemptionPolicy", Kind::Text),
];
const SERVICE_PORT: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "protocol", Kind::Text),
    one(3, "port", Kind::Number),
    one(4, "targetPort", Kind::IntOrString),
    one(5, "nodePort", Kind::Count),
    one(6, "appProtocol", Kind::Text),
];
const SERVICE: &[Field] = &[
    many(1, "ports", Kind::Message(SERVICE_PORT)),
    one(2, "selector", Kind::TextMap),
    one(3, "clusterIP", Kind::Text),
    one(4, "type", Kind::Text),
    many(5, "externalIPs", Kind::Text),
    one(7, "sessionAffinity", Kind::Text),
    one(8, "loadBalancerIP", Kind::Text),
    many(9, "loadBalancerSourceRanges", Kind::Text),
    one(10, "externalName", Kind::Text),
    one(11, "externalTrafficPolicy", Kind::Text),
    one(12, "healthCheckNodePort", Kind::Count),
    one(13, "publishNotReadyAddresses", Kind::Switch),
    one(17, "ipFamilyPolicy", Kind::Text),
    many(18, "clusterIPs", Kind::Text),
    many(19, "ipFamilies", Kind::Text),
    one(20, "allocateLoadBalancerNodePorts", Kind::Flag),
    one(21, "loadBalancerClass", Kind::Text),
    one(22, "internalTrafficPolicy", Kind::Text),
];

const DEPLOYMENTS: &[Field] = &with_spec(DEPLOYMENT);
const JOBS: &[Field] = &with_spec(JOB);
const CRON_JOBS: &[Field] = &with_spec(CRON_JOB);
const QUOTAS: &[Field] = &with_spec(QUOTA);
const BUDGETS: &[Field] = &with_spec(BUDGET);
const SERVICES: &[Field] = &with_spec(SERVICE);

pub(super) fn message_of(kind: &str) -> Option<&'static [Field]> {
    Some(match kind {
        "Deployment" => DEPLOYMENTS,
        "Job" => JOBS,
        "CronJob" => CRON_JOBS,
        "ResourceQuota" => QUOTAS,
        "PodDisruptionBudget" => BUDGETS,
        "PriorityClass" => PRIORITY_CLASS,
        "Service" => SERVICES,
        _ => return None,
    })
}
